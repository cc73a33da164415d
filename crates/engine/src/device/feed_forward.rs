//! Feed-forward bodies, dense and of experts. Which experts a row goes through is chosen on the host.

use candle_core::Tensor;

use super::{Result, weights::Placement};
use crate::{
    kernels::activation::Activation,
    transformer::{Experts, FeedForward, SharedExpert},
};

impl FeedForward<Placement> {
    /// `input`: [n, width] to [n, width].
    pub fn run(&self, input: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(input)?; // [n, inner]
        let inner = match &self.gate {
            Some(gate) => (activate(self.activation, &gate.forward(input)?)? * up)?,
            None => activate(self.activation, &up)?,
        };
        self.down.forward(&inner)
    }
}

impl Experts<Placement> {
    /// `input`: [n, width] to [n, width].
    pub fn run(&self, input: &Tensor) -> Result<Tensor> {
        let mut scores: Vec<f32> = self.router.forward(input)?.flatten_all()?.to_vec1()?;
        let mut routes = Vec::new();
        self.route(&mut scores, &mut Vec::new(), &mut routes);
        let mut out = match &self.shared {
            Some(shared) => shared.run(input)?,
            None => input.zeros_like()?,
        };
        for routes in routes.chunk_by(|one, next| one.expert == next.expert) {
            let rows: Vec<u32> = routes.iter().map(|route| route.row).collect();
            let rows = Tensor::new(rows, input.device())?;
            let shares: Vec<f32> = routes.iter().map(|route| route.weight).collect();
            let shares = Tensor::from_vec(shares, (routes.len(), 1), input.device())?;
            let result = self.experts[routes[0].expert as usize].run(&input.index_select(&rows, 0)?)?;
            out = out.index_add(&rows, &result.broadcast_mul(&shares)?, 0)?;
        }
        Ok(out)
    }
}

impl SharedExpert<Placement> {
    fn run(&self, input: &Tensor) -> Result<Tensor> {
        let result = self.body.run(input)?;
        let Some(gate) = &self.gate else { return Ok(result) };
        let gate = Tensor::from_slice(gate, (gate.len(), 1), input.device())?;
        let open = (((input.matmul(&gate)?.neg()?.exp()? + 1.0)?).recip())?; // [n, 1]
        result.broadcast_mul(&open)
    }
}

fn activate(activation: Activation, values: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => values.silu(),
        Activation::Gelu => values.gelu(),
        Activation::ExactGelu => values.gelu_erf(),
    }
}
