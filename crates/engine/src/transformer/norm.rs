//! A norm with what the file has for it.

use crate::{
    Error,
    kernels::{
        Cpu,
        layer_norm::{Affine, layer_norm},
        norm,
    },
    spec::{NormKind, Spec},
    weights::{Backend, Weights},
};

pub(crate) struct Norm {
    pub kind: NormKind,
    /// Values that are normalised together.
    pub dim: usize,
    /// [dim], or of each head its own, [heads, dim].
    pub weight: Vec<f32>,
    /// [dim]; empty = nothing is added.
    pub bias: Vec<f32>,
    pub epsilon: f32,
}

impl Norm {
    /// Of rows of `dim` values, if the file has it.
    pub fn optional<B: Backend>(
        weights: &mut Weights<'_, B>,
        spec: &Spec,
        name: &str,
        dim: usize,
    ) -> Result<Option<Norm>, Error> {
        let Some(weight) = weights.vector(&format!("{name}.weight"), dim)? else { return Ok(None) };
        Norm::with_bias(weights, spec, name, weight, dim).map(Some)
    }

    /// The same, but it must be there.
    pub fn expect<B: Backend>(
        weights: &mut Weights<'_, B>,
        spec: &Spec,
        name: &str,
        dim: usize,
    ) -> Result<Norm, Error> {
        let weight = weights.expect_floats(&format!("{name}.weight"), &[dim])?;
        Norm::with_bias(weights, spec, name, weight, dim)
    }

    /// Of heads of `dim` values: one for all, or, where the tensor is a matrix, one for each of `heads`.
    pub fn of_heads<B: Backend>(
        weights: &mut Weights<'_, B>,
        spec: &Spec,
        name: &str,
        (heads, dim): (usize, usize),
    ) -> Result<Option<Norm>, Error> {
        let tensor = format!("{name}.weight");
        if weights.shape(&tensor).is_none_or(|shape| shape.len() == 1) {
            return Norm::optional(weights, spec, name, dim);
        }
        let Some(weight) = weights.floats(&tensor, &[dim, heads])? else { return Ok(None) };
        Norm::with_bias(weights, spec, name, weight, dim).map(Some)
    }

    /// A bias of a kind that has none stays untaken and is refused with the tensors that nobody knows.
    fn with_bias<B: Backend>(
        weights: &mut Weights<'_, B>,
        spec: &Spec,
        name: &str,
        weight: Vec<f32>,
        dim: usize,
    ) -> Result<Norm, Error> {
        let bias = match spec.norm {
            NormKind::RootMeanSquare => None,
            NormKind::Layer => weights.vector(&format!("{name}.bias"), dim)?,
        };
        let bias = bias.unwrap_or_default();
        Ok(Norm { kind: spec.norm, dim, weight, bias, epsilon: spec.epsilon })
    }

    /// Normalises `rows`, [n, weight.len()].
    pub fn apply(&self, cpu: Cpu, rows: &mut [f32]) {
        match self.kind {
            NormKind::RootMeanSquare => norm::rms(cpu, rows, &self.weight, self.epsilon),
            NormKind::Layer => {
                let affine = Affine { weight: &self.weight, bias: &self.bias, epsilon: self.epsilon };
                layer_norm(cpu, rows, self.dim, affine);
            }
        }
    }
}
