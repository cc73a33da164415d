//! The body of a feed-forward branch: a gated unit.

use crate::{
    Error,
    compute::Compute,
    kernels::activation::{self, Activation},
    linear::{Input, Linear},
};

pub(super) struct FeedForward {
    pub activation: Activation,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    gate: Input,
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
        let Buffers { gate, up } = buffers;
        Linear::forward(compute, input, &mut [(&self.gate, gate.values()), (&self.up, up)])?; // [n, inner] each
        let inner = self.down.cols();
        compute.pool.rows(gate.values(), inner, |first, gate| {
            activation::gated(compute.cpu, self.activation, gate, &up[first * inner..][..gate.len()]);
        });
        Linear::forward(compute, gate, &mut [(&self.down, out)]) // [n, width]
    }
}
