//! The body of a feed-forward branch: a gated unit, or one without a gate.

use crate::{
    Error,
    compute::Compute,
    kernels::activation::{self, Activation},
    linear::{Input, Linear},
};

pub(super) struct FeedForward {
    pub activation: Activation,
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    inner: Input,
    up: Vec<f32>,
}

impl FeedForward {
    /// `input`: [n, width] to `out`: [n, width].
    pub fn forward(
        &self,
        compute: &Compute,
        buffers: &mut Buffers,
        input: &mut Input,
        out: &mut Vec<f32>,
    ) -> Result<(), Error> {
        let Buffers { inner, up } = buffers;
        let width = self.down.cols();
        if let Some(gate) = &self.gate {
            Linear::forward(compute, input, &mut [(gate, inner.values()), (&self.up, up)])?; // [n, inner] each
            compute.pool.rows(inner.values(), width, |first, gate| {
                activation::gated(compute.cpu, self.activation, gate, &up[first * width..][..gate.len()]);
            });
        } else {
            Linear::forward(compute, input, &mut [(&self.up, inner.values())])?; // [n, inner]
            compute.pool.rows(inner.values(), width, |_, values| {
                activation::plain(compute.cpu, self.activation, values);
            });
        }
        Linear::forward(compute, inner, &mut [(&self.down, out)]) // [n, width]
    }
}
