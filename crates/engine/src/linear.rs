//! A linear map: the one place that knows how weights are stored and which kernel multiplies with them.

use std::sync::Arc;

use candle_core::quantized::QTensor;

use crate::{
    Error,
    compute::Compute,
    kernels::{
        matmul::{self, Product, Weights},
        quantize::Rows,
    },
    pool::Shared,
};

/// `rows` outputs from `cols` inputs. The fused tensors of a file are several maps over one tensor.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// [n, cols], n ≥ first + rows.
    weight: Arc<QTensor>,
    first: usize,
    rows: usize,
    bias: Option<Vec<f32>>,
}

/// Rows that one or several maps take in: quantized once, when the first of them asks.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// [n, cols].
    values: Vec<f32>,
    quantized: Rows,
    is_quantized: bool,
}

// === impl Linear ===

impl Linear {
    /// Over rows `first..first + rows` of `weight`, a matrix of a type that [`matmul::is_supported`].
    pub fn new(weight: Arc<QTensor>, first: usize, rows: usize, bias: Option<Vec<f32>>) -> Linear {
        Linear { weight, first, rows, bias }
    }

    pub fn cols(&self) -> usize {
        self.weight.shape().dims()[1]
    }

    /// Fills each output with [n, rows]; all the maps together are one piece of work for the threads.
    pub fn forward(
        compute: &Compute,
        input: &mut Input,
        outputs: &mut [(&Linear, &mut Vec<f32>)],
    ) -> Result<(), Error> {
        let bytes = outputs.iter().map(|(linear, _)| linear.weight.data()).collect::<Result<Vec<_>, _>>()?;
        let (mut floats, mut quantized) = (Vec::new(), Vec::new());
        for ((linear, out), bytes) in outputs.iter_mut().zip(&bytes) {
            out.resize(input.values.len() / linear.cols() * linear.rows, 0.0);
            let weights = linear.weights(bytes);
            let products = if matmul::is_float(weights.kind) { &mut floats } else { &mut quantized };
            products.push(Product { weights, out: Shared::new(out.as_mut_slice()) });
        }
        if !floats.is_empty() {
            matmul::multiply_floats(&compute.pool, compute.cpu, &floats, &input.values);
        }
        if !quantized.is_empty() {
            let cols = quantized[0].weights.cols;
            matmul::multiply_quantized(
                &compute.pool,
                compute.cpu,
                &quantized,
                input.quantized(compute, cols),
            );
        }
        drop((floats, quantized));
        for (linear, out) in outputs {
            linear.add_bias(out);
        }
        Ok(())
    }

    fn weights<'a>(&self, bytes: &'a [u8]) -> Weights<'a> {
        let stride = bytes.len() / self.weight.shape().dims()[0];
        Weights {
            kind: self.weight.dtype(),
            bytes: &bytes[self.first * stride..(self.first + self.rows) * stride],
            rows: self.rows,
            cols: self.cols(),
        }
    }

    fn add_bias(&self, out: &mut [f32]) {
        let Some(bias) = &self.bias else { return };
        for row in out.chunks_exact_mut(self.rows) {
            row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    }
}

// === impl Input ===

impl Input {
    /// The values, to be changed: what was quantized of them is forgotten.
    pub fn values(&mut self) -> &mut Vec<f32> {
        self.is_quantized = false;
        &mut self.values
    }

    pub fn rows(&self) -> &[f32] {
        &self.values
    }

    fn quantized(&mut self, compute: &Compute, cols: usize) -> &Rows {
        if !self.is_quantized {
            self.quantized.quantize(&compute.pool, compute.cpu, &self.values, cols);
            self.is_quantized = true;
        }
        &self.quantized
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType as Kind;
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::Tier;

    fn random(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn weight(kind: Kind, seed: u32, rows: usize, cols: usize) -> Arc<QTensor> {
        let tensor = Tensor::from_vec(random(seed, rows * cols), (rows, cols), &Device::Cpu).unwrap();
        Arc::new(QTensor::quantize(&tensor, kind).unwrap())
    }

    fn run(tier: Tier, threads: usize, linear: &Linear, values: &[f32]) -> Vec<f32> {
        let compute = Compute::new(threads, Some(tier)).unwrap();
        let mut input = Input::default();
        input.values().extend(values);
        let mut out = Vec::new();
        Linear::forward(&compute, &mut input, &mut [(linear, &mut out)]).unwrap();
        out
    }

    const KINDS: [Kind; 13] = [
        Kind::F32,
        Kind::F16,
        Kind::BF16,
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q2K,
        Kind::Q3K,
        Kind::Q4K,
        Kind::Q5K,
        Kind::Q6K,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_type_multiplies_like_its_dequantized_weights(seed in any::<u32>(), n in 1usize..10, first in 0usize..5) {
            let (rows, cols) = (37, 512);
            let values = random(seed ^ 1, n * cols);
            for kind in KINDS {
                let weight = weight(kind, seed, rows + first, cols);
                let plain: Vec<f32> = weight.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
                let linear = Linear::new(weight, first, rows, Some(vec![0.5; rows]));
                let out = run(Tier::detect(), 2, &linear, &values);
                for (at, out) in out.iter().enumerate() {
                    let (row, column) = (at / rows, first + at % rows);
                    let pairs = values[row * cols..][..cols].iter().zip(&plain[column * cols..][..cols]);
                    let exact: f64 = 0.5 + pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                    // An 8-bit activation is off by up to 1/254 of the block's largest; that averages out.
                    prop_assert!((f64::from(*out) - exact).abs() < 0.25, "{kind:?} {at}: {out} is not {exact}");
                }
            }
        }

        #[test]
        fn the_bits_do_not_depend_on_tier_threads_or_neighbours(seed in any::<u32>(), n in 1usize..10) {
            let (rows, cols) = (50, 256);
            let values = random(seed ^ 1, n * cols);
            for kind in KINDS {
                let linear = Linear::new(weight(kind, seed, rows, cols), 0, rows, None);
                let reference = run(Tier::Scalar, 1, &linear, &values);
                for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
                    prop_assert_eq!(&run(tier, 3, &linear, &values), &reference, "{:?} {:?}", kind, tier);
                }
                for row in 0..n {
                    let alone = run(Tier::detect(), 1, &linear, &values[row * cols..][..cols]);
                    prop_assert_eq!(&alone, &reference[row * rows..][..rows], "{:?} row {}", kind, row);
                }
            }
        }
    }

    #[test]
    fn an_input_that_is_not_finite_is_not_hidden_by_quantization() {
        let linear = Linear::new(weight(Kind::Q4_1, 1, 8, 64), 0, 8, None);
        let mut values = random(2, 128);
        values[100] = f32::NAN;
        let out = run(Tier::detect(), 1, &linear, &values);
        assert!(
            out[..8].iter().all(|value| value.is_finite()) && out[8..].iter().all(|value| value.is_nan())
        );
    }
}
