//! The body of a feed-forward branch: a gated unit, or one without a gate.

use crate::{
    compute::Compute,
    kernels::{
        activation::{self, Activation},
        rows::{Forms, Rows},
    },
    linear::Linear,
    weights::Backend,
};

pub(crate) struct FeedForward<B: Backend = Compute> {
    pub activation: Activation,
    pub gate: Option<B::Linear>,
    pub up: B::Linear,
    pub down: B::Linear,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    gate: Vec<f32>,
    up: Vec<f32>,
    input: Rows,
}

impl FeedForward {
    /// The forms in which the maps want the input of the branch.
    pub fn forms(&self) -> Forms {
        Linear::forms(self.gate.iter().chain([&self.up]))
    }

    /// `input`: [n, width] to `out`: [n, width].
    pub(super) fn forward(
        &self,
        compute: &Compute,
        buffers: &mut Buffers,
        (rows, out): (&Rows, &mut Vec<f32>),
    ) {
        let Buffers { gate, up, input } = buffers;
        let mut maps = vec![(&self.up, &mut *up)];
        maps.extend(self.gate.as_ref().map(|map| (map, &mut *gate)));
        Linear::forward(compute, rows, &mut maps); // [n, inner] each
        let inner = self.down.cols();
        let fill = |row: usize, to: &mut [f32]| {
            let part = row * inner..(row + 1) * inner;
            if self.gate.is_some() {
                to.copy_from_slice(&gate[part.clone()]);
                activation::gated(compute.cpu, self.activation, to, &up[part]);
            } else {
                to.copy_from_slice(&up[part]);
                activation::plain(compute.cpu, self.activation, to);
            }
        };
        input.fill((&compute.pool, compute.cpu), (rows.rows, inner), Linear::forms([&self.down]), fill);
        Linear::forward(compute, input, &mut [(&self.down, out)]); // [n, width]
    }
}
