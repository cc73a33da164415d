//! Attention, plainly: of each span, all that its rows may see is gathered from the cache, then scores, mask, softmax
//! and sum are one tensor operation each.

use std::ops::Range;

use candle_core::{D, Device, Tensor};

use super::{
    Result,
    cache::{Cache, Targets},
    weights::Placement,
};
use crate::{
    kernels::{
        attention::Heads,
        rope::{Angles, Pairing},
    },
    model::{Batch, Span},
    pages::PAGE_TOKENS,
    transformer::Attention,
};

/// What all branches of a step have in common.
pub struct Step {
    pub targets: Targets,
    pub turns: Turns,
    /// Of blocks with a window, where they differ.
    pub local_turns: Option<Turns>,
    /// What blocks see that see everything.
    pub views: Vec<View>,
    /// What the others see.
    pub local_views: Vec<View>,
}

/// Sine and cosine of the angles of each row, [n, 1, frequencies].
pub struct Turns {
    cos: Tensor,
    sin: Tensor,
}

/// What the rows of a span may see.
pub struct View {
    /// Of the batch.
    rows: Range<usize>,
    /// Where that is in the cache, [seen].
    places: Tensor,
    /// What is added to scores, 0 or minus infinity: [rows, seen]. `None` = each row sees all of it.
    mask: Option<Tensor>,
}

impl Attention<Placement> {
    /// `input`: [n, width] to [n, width], leaving keys and values of block `block` in `cache`.
    pub fn run(&self, step: &Step, (cache, block): (&Cache, usize), input: &Tensor) -> Result<Tensor> {
        let Heads { count, kv_count, key_dim, value_dim, window, .. } = self.heads;
        let rows = input.dim(0)?;
        let query = self.query.forward(input)?.reshape((rows, count, key_dim))?;
        let key = self.key.forward(input)?.reshape((rows, kv_count, key_dim))?;
        let value = self.value.forward(input)?; // [n, kv heads * value_dim]
        let (views, turns) = match window {
            Some(_) => (&step.local_views, step.local_turns.as_ref().unwrap_or(&step.turns)),
            None => (&step.views, &step.turns),
        };
        let place = |heads: Tensor, norm| self.place(turns, heads, norm);
        let (query, key) = (place(query, &self.query_norm)?, place(key, &self.key_norm)?);
        cache.store(block, &step.targets, (&key, &value))?;
        let mixed = views.iter().map(|view| {
            let query = query.narrow(0, view.rows.start, view.rows.len())?;
            self.mix(view, cache.gather(block, &view.places, self.heads)?, &query)
        });
        let mixed = Tensor::cat(&mixed.collect::<Result<Vec<_>>>()?, 0)?;
        self.out.forward(&mixed.reshape((rows, count * value_dim))?)
    }

    /// Normalises and turns heads, [n, heads, key_dim].
    fn place(&self, turns: &Turns, heads: Tensor, norm: &Option<super::weights::Norm>) -> Result<Tensor> {
        let heads = match norm {
            Some(norm) => norm.apply(&heads)?,
            None => heads,
        };
        match self.pairing {
            Some(pairing) => turns.turn(pairing, &heads),
            None => Ok(heads),
        }
    }

    /// `query`: [rows, heads, key_dim] to [rows, heads, value_dim].
    fn mix(&self, view: &View, (keys, values): (Tensor, Tensor), query: &Tensor) -> Result<Tensor> {
        let Heads { count, kv_count, key_dim, value_dim, scale, soft_cap, .. } = self.heads;
        let (rows, seen, group) = (view.rows.len(), view.places.dim(0)?, self.heads.group());
        let query = query.reshape((rows, kv_count, group, key_dim))?.permute((1, 2, 0, 3))?.contiguous()?;
        let query = query.reshape((kv_count, group * rows, key_dim))?;
        let mut scores = (query.matmul(&keys)? * f64::from(scale))?; // [kv heads, group * rows, seen]
        if let Some(cap) = soft_cap {
            scores = soft_cap_all(&scores, cap)?;
        }
        if let Some(mask) = &view.mask {
            scores = scores.reshape((count, rows, seen))?.broadcast_add(mask)?;
            scores = scores.reshape((kv_count, group * rows, seen))?;
        }
        let shares = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let shares = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        let mixed = shares.matmul(&values)?.reshape((count, rows, value_dim))?;
        mixed.transpose(0, 1)?.contiguous() // [rows, heads, value_dim]
    }
}

pub fn soft_cap_all(values: &Tensor, cap: f32) -> Result<Tensor> {
    let cap = f64::from(cap);
    (values / cap)?.tanh()? * cap
}

/// Of each row of the batch, its place in the cache.
pub fn places(batch: &Batch<'_>) -> Vec<u32> {
    let of = |span: &Span<'_>| {
        let positions = &batch.positions[span.rows.clone()];
        positions.iter().map(|&position| place(span, position as usize)).collect::<Vec<u32>>()
    };
    batch.spans.iter().flat_map(of).collect()
}

fn place(span: &Span<'_>, position: usize) -> u32 {
    span.pages[position / PAGE_TOKENS] * PAGE_TOKENS as u32 + (position % PAGE_TOKENS) as u32
}

// === impl View ===

impl View {
    /// Of each span, what its rows may see of `heads`; everything, where that is not `causal`.
    pub fn all(batch: &Batch<'_>, heads: Heads, causal: bool, device: &Device) -> Result<Vec<View>> {
        batch.spans.iter().map(|span| View::new(batch, span, (heads, causal), device)).collect()
    }

    fn new(
        batch: &Batch<'_>,
        span: &Span<'_>,
        (heads, causal): (Heads, bool),
        device: &Device,
    ) -> Result<View> {
        let positions = &batch.positions[span.rows.clone()];
        let (first, last) = (positions[0] as usize, positions[positions.len() - 1] as usize);
        let start = if causal { heads.visible(first).start } else { 0 };
        let places: Vec<u32> = (start..=last).map(|position| place(span, position)).collect();
        let mask = if causal && positions.len() > 1 {
            let mut mask = vec![f32::NEG_INFINITY; positions.len() * places.len()];
            for (row, &position) in mask.chunks_exact_mut(places.len()).zip(positions) {
                let visible = heads.visible(position as usize);
                row[visible.start - start..visible.end - start].fill(0.0);
            }
            Some(Tensor::from_vec(mask, (positions.len(), places.len()), device)?)
        } else {
            None
        };
        Ok(View { rows: span.rows.clone(), places: Tensor::new(places, device)?, mask })
    }
}

// === impl Turns ===

impl Turns {
    pub fn new(angles: &Angles, device: &Device) -> Result<Turns> {
        let (cos, sin, frequencies) = angles.parts();
        let shape = (cos.len() / frequencies.max(1), 1, frequencies);
        Ok(Turns {
            cos: Tensor::from_slice(cos, shape, device)?,
            sin: Tensor::from_slice(sin, shape, device)?,
        })
    }

    /// Turns `heads`, [n, heads, dim]. What a head has beyond two values per frequency stays.
    fn turn(&self, pairing: Pairing, heads: &Tensor) -> Result<Tensor> {
        let (rows, count, dim) = heads.dims3()?;
        let half = self.cos.dim(D::Minus1)?;
        let turning = heads.narrow(D::Minus1, 0, 2 * half)?;
        let pairs = match pairing {
            Pairing::Neighbours => turning.reshape((rows, count, half, 2))?,
            Pairing::Halves => turning.reshape((rows, count, 2, half))?.transpose(2, 3)?,
        };
        let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
        let (cos, sin) = (&self.cos, &self.sin);
        let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?; // [n, heads, frequencies]
        let second = (a.broadcast_mul(sin)? + b.broadcast_mul(cos)?)?;
        let turned = match pairing {
            Pairing::Neighbours => Tensor::stack(&[first, second], 3)?.flatten_from(2)?,
            Pairing::Halves => Tensor::cat(&[first, second], 2)?,
        };
        match dim - 2 * half {
            0 => Ok(turned),
            rest => Tensor::cat(&[turned, heads.narrow(D::Minus1, 2 * half, rest)?], 2),
        }
    }
}
