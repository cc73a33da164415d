//! The real engine: a transformer, on the processor or on a device of candle's, behind the scheduler.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use gguf::File;

use crate::{
    Engine, Error, Estimate, Event, Info, LoadOptions, Pooling, Reranker, Sequence, SequenceId, Tokenizer,
    compute::Compute,
    device::DeviceTransformer,
    model::{Batch, Logits, Model, Output, RANKS_NOTHING},
    pages::{PageId, pages_for},
    pooling::{self, Pass},
    scheduler::Scheduler,
    spec::Spec,
    transformer::{Setup, Transformer},
};

/// One loaded GGUF model. One thread owns it; its own threads only help within a call.
pub struct CandleEngine {
    scheduler: Scheduler<Box<dyn Model>>,
    info: Info,
    /// What goes through the model at once where nothing is generated.
    pass: Pass,
    /// How a reranker makes one row of a pair.
    whole: Pooling,
}

// === impl CandleEngine ===

impl CandleEngine {
    /// Loads the model in `file`, which may be closed afterwards. `progress` is called with 0..1, never falling,
    /// before each tensor; a break gives the load up.
    pub fn load(
        file: &File,
        options: LoadOptions,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<CandleEngine, Error> {
        options.check()?;
        let device = options.device.open()?;
        let gguf = file.header();
        let spec = Spec::read(gguf)?;
        let limits = options.limits(&spec);
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        if tokenizer.vocab_size() != spec.vocab_size {
            return Err(Error::WrongShape {
                name: "token_embd.weight".to_owned(),
                expected: vec![spec.width as u64, tokenizer.vocab_size() as u64],
                found: vec![spec.width as u64, spec.vocab_size as u64],
            });
        }
        let text = |token: Option<u32>| {
            let piece = token.map(|token| tokenizer.piece_with_special(token)).unwrap_or_default();
            String::from_utf8_lossy(piece).into_owned()
        };
        let rerank_template = gguf.metadata.str("tokenizer.chat_template.rerank")?;
        let info = Info {
            architecture: spec.architecture.to_owned(),
            slots: limits.slots,
            context_length: limits.context_length,
            train_context_length: spec.train_context_length,
            embedding_length: spec.width,
            vocab_size: spec.vocab_size,
            size_bytes: Estimate::of(gguf, &spec, options.device, limits).total_bytes(),
            pooling: spec.pooling,
            reranker: spec.is_reranker.then_some(Reranker { template: rerank_template.map(str::to_owned) }),
            chat_template: gguf.metadata.str("tokenizer.chat_template")?.map(str::to_owned),
            add_bos: tokenizer.add_bos(),
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
        };
        let whole = spec.whole();
        let setup = Setup {
            compute: Compute::new(options.threads, options.tier)?,
            pages: limits.pages,
            context_length: limits.context_length,
            kv_type: options.kv_type,
        };
        let model: Box<dyn Model> = match device {
            Some(device) => Box::new(DeviceTransformer::load(file, spec, (setup, device), progress)?),
            None => Box::new(Transformer::load(file, spec, setup, progress)?),
        };
        let scheduler = Scheduler::new(model, Arc::new(tokenizer), limits);
        // Where nobody generates, nobody else needs the pages.
        let pages = if info.pooling.is_some() { limits.pages } else { pages_for(limits.context_length) };
        Ok(CandleEngine { scheduler, info, pass: Pass { tokens: limits.chunk, pages }, whole })
    }

    /// The scores after each of `tokens`, run as one sequence of its own: for comparing with other engines.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, Error> {
        let mut rows = Vec::with_capacity(tokens.len());
        let mut logits = Logits::default();
        self.run_chunks(tokens, |model, batch| {
            model.forward(batch, &mut logits)?;
            if let Some(error) = logits.faults.iter().flatten().next() {
                return Err(error.clone());
            }
            rows.extend((0..batch.tokens.len()).map(|row| logits.row(row).to_vec()));
            Ok(())
        })?;
        Ok(rows)
    }

    /// One pooled row per input; short inputs share a pass.
    fn pool(&mut self, inputs: &[Vec<u32>], pooling: Pooling) -> Result<Vec<Vec<f32>>, Error> {
        inputs.iter().try_for_each(|tokens| self.check(tokens))?;
        let mut pooled = Vec::with_capacity(inputs.len());
        let mut rest = inputs;
        while !rest.is_empty() {
            let (group, after) = rest.split_at(self.pass.fitting(rest));
            let pass = self.pass;
            let run = |model: &mut Box<dyn Model>, pages: &[PageId]| {
                pass.run(model.as_mut(), (group, pages), pooling)
            };
            pooled.extend(self.scheduler.borrow(pooling::positions(group), run)?);
            rest = after;
        }
        Ok(pooled)
    }

    /// Fails on what cannot be run as one sequence.
    fn check(&self, tokens: &[u32]) -> Result<(), Error> {
        let context_length = self.info.context_length;
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens.len() > context_length {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context_length });
        }
        self.scheduler.check_tokens(tokens)
    }

    /// Runs `tokens` through `work` in chunks, in pages that are free between two steps.
    fn run_chunks(
        &mut self,
        tokens: &[u32],
        mut work: impl FnMut(&mut dyn Model, &Batch<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check(tokens)?;
        let chunk = self.pass.tokens;
        self.scheduler.borrow(tokens.len(), |model, pages: &[PageId]| {
            for (at, tokens) in tokens.chunks(chunk).enumerate() {
                let mut batch = Batch::default();
                batch.push(tokens, at * chunk, pages, Output::All);
                work(model, &batch)?;
            }
            Ok(())
        })
    }
}

impl Engine for CandleEngine {
    fn info(&self) -> &Info {
        &self.info
    }

    fn tokenizer(&self) -> Arc<Tokenizer> {
        self.scheduler.tokenizer().clone()
    }

    fn admit(&mut self, sequence: Sequence) -> Result<(), Error> {
        if self.info.pooling.is_some() {
            return Err(Error::Unsupported { what: "generate text, it makes embeddings" });
        }
        self.scheduler.admit(sequence)
    }

    fn step(&mut self) -> Result<Vec<Event>, Error> {
        self.scheduler.step()
    }

    fn note_step(&mut self, took: Duration) {
        self.scheduler.note_step(took);
    }

    fn cancel(&mut self, id: SequenceId) {
        self.scheduler.cancel(id);
    }

    fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    fn untaken_bytes(&self) -> u64 {
        self.scheduler.untaken_bytes()
    }

    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, Error> {
        self.pool(inputs, self.info.pooling.unwrap_or(Pooling::Mean))
    }

    fn rank(&mut self, pairs: &[Vec<u32>]) -> Result<Vec<f32>, Error> {
        if self.info.reranker.is_none() {
            return Err(RANKS_NOTHING);
        }
        // Not the pooling of the file, which is about vectors.
        let rows = self.pool(pairs, self.whole)?.concat(); // [n, width]
        self.scheduler.borrow(0, |model, _| model.rank(&rows))
    }
}
