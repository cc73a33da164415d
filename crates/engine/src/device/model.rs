//! The steps of a transformer on a device.

use std::ops::ControlFlow;

use candle_core::{D, Device, Tensor};
use gguf::File;

use super::{
    Result,
    attention::{Step, Turns, View, places, soft_cap_all},
    cache::{Cache, Targets},
    weights::Placement,
};
use crate::{
    Error,
    kernels::rope::Angles,
    load::KvType,
    model::{Batch, Hidden, Logits, Model},
    spec::Spec,
    transformer::{Before, Body, Branch, Embed, Parts, Ranker, Setup},
    weights::Weights,
};

pub(crate) struct DeviceTransformer {
    spec: Spec,
    placement: Placement,
    parts: Parts<Placement>,
    cache: Cache,
}

// === impl DeviceTransformer ===

impl DeviceTransformer {
    pub fn load(
        file: &File,
        spec: Spec,
        (setup, device): (Setup, Device),
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<DeviceTransformer, Error> {
        if setup.kv_type != KvType::F16 {
            return Err(Error::Unsupported { what: "keep its KV cache as bytes on a GPU yet" });
        }
        let placement = Placement { compute: setup.compute, device };
        let weights = Weights::new(file, &placement, progress);
        let parts = Parts::load(weights, &spec, setup.context_length)?;
        let cache = Cache::new(&spec, setup.pages, &placement.device)?;
        Ok(DeviceTransformer { spec, placement, parts, cache })
    }

    /// Embeds the tokens and lets every branch add to the stream, [n, width]. Notes for each span the first block after
    /// which its rows are not finite.
    fn run_blocks(&self, batch: &Batch<'_>, faults: &mut [Option<Error>]) -> Result<Tensor> {
        let step = self.step(batch)?;
        let mut stream = self.embed(batch)?;
        let mut input = stream.clone();
        let mut poisons = Vec::with_capacity(self.parts.branches.len());
        for branch in &self.parts.branches {
            match &branch.before {
                Before::Norm(norm) => input = norm.apply(&stream)?,
                Before::Plain => input = stream.clone(),
                Before::Shared => {}
            }
            let update = self.run_branch(branch, &step, &input)?;
            let update = match &branch.after {
                Some(norm) => norm.apply(&update)?,
                None => update,
            };
            stream = (stream + update)?;
            // 0 times a value is 0 if the value is finite and NaN if not.
            poisons.push((&stream * 0.0)?.sum(D::Minus1)?);
            if let Some(norm) = &branch.closing {
                stream = norm.apply(&stream)?;
            }
        }
        // Asked for once: each answer of a GPU is waited for.
        let poisons: Vec<Vec<f32>> = Tensor::stack(&poisons, 0)?.to_vec2()?; // [branches, n]
        for (span, fault) in batch.spans.iter().zip(faults) {
            let broken =
                poisons.iter().position(|rows| rows[span.rows.clone()].iter().any(|row| *row != 0.0));
            *fault = broken.map(|at| Error::block_not_finite(self.parts.branches[at].block));
        }
        Ok(stream)
    }

    fn step(&self, batch: &Batch<'_>) -> Result<Step> {
        let (spec, device) = (&self.spec, &self.placement.device);
        let turns = |frequencies: &[f32], magnitude: f32| {
            let mut angles = Angles::default();
            angles.fill(&batch.positions, frequencies, magnitude);
            Turns::new(&angles, device)
        };
        let views = |is_local: bool| {
            let block = (0..spec.blocks).find(|&block| spec.is_local(block) == is_local);
            let view = |block| View::all(batch, spec.heads(block), spec.is_causal, device);
            block.map_or(Ok(Vec::new()), view)
        };
        let local = self.parts.local_frequencies.as_ref().zip(spec.local_rope.as_ref());
        Ok(Step {
            targets: Targets::new(places(batch), spec.heads, device)?,
            turns: turns(&self.parts.frequencies, spec.rope.magnitude)?,
            local_turns: local.map(|(frequencies, rope)| turns(frequencies, rope.magnitude)).transpose()?,
            views: views(false)?,
            local_views: views(true)?,
        })
    }

    fn embed(&self, batch: &Batch<'_>) -> Result<Tensor> {
        let Parts { embedding, entry, .. } = &self.parts;
        let embed = Embed { embedding, entry, scale: self.spec.embedding_scale };
        let mut stream = Vec::new();
        embed.fill(self.placement.compute.cpu, batch, &mut stream);
        Tensor::from_vec(stream, (batch.tokens.len(), self.spec.width), &self.placement.device)
    }

    fn run_branch(&self, branch: &Branch<Placement>, step: &Step, input: &Tensor) -> Result<Tensor> {
        match &branch.body {
            Body::Attention(body) => body.run(step, (&self.cache, branch.block), input),
            Body::FeedForward(body) => body.run(input),
            Body::Experts(body) => body.run(input),
        }
    }

    fn normalise(&self, rows: Tensor) -> Result<Tensor> {
        match &self.parts.output_norm {
            Some(norm) => norm.apply(&rows),
            None => Ok(rows),
        }
    }
}

impl Model for DeviceTransformer {
    fn vocab_size(&self) -> usize {
        self.spec.vocab_size
    }

    fn forward(&mut self, batch: &Batch<'_>, logits: &mut Logits) -> Result<(), Error> {
        let head = self.parts.head.as_ref().ok_or(Error::Unsupported { what: "score tokens" })?;
        let wanted: Vec<u32> = batch.wanted().into_iter().map(|row| row as u32).collect();
        logits.reset(self.spec.vocab_size, wanted.len(), batch.spans.len());
        let stream = self.run_blocks(batch, &mut logits.faults)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let rows = stream.index_select(&Tensor::new(wanted, stream.device())?, 0)?;
        let mut scores = head.forward(&self.normalise(rows)?)?; // [wanted, vocab]
        if let Some(cap) = self.spec.output_soft_cap {
            scores = soft_cap_all(&scores, cap)?;
        }
        logits.values = scores.flatten_all()?.to_vec1()?;
        logits.find_faults(batch, self.placement.compute.cpu);
        Ok(())
    }

    fn hidden(&mut self, batch: &Batch<'_>) -> Result<Hidden, Error> {
        let mut faults = vec![None; batch.spans.len()];
        let stream = self.run_blocks(batch, &mut faults)?;
        let rows = self.normalise(stream)?.flatten_all()?.to_vec1()?;
        Ok(Hidden { rows, faults })
    }

    fn rank(&mut self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        Ranker::rank(self.parts.ranker.as_ref(), &self.placement.compute, rows)
    }
}
