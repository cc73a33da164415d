//! A linear map: packed weights, perhaps a bias.

use std::sync::Arc;

use crate::{
    compute::Compute,
    kernels::{
        matmul::{self, Product},
        packed::Packed,
        rows::{Forms, Rows},
    },
    pool::Shared,
};

/// `rows` outputs from `cols` inputs.
#[derive(Clone)]
pub(crate) struct Linear {
    weights: Arc<Packed>,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `bias` has one value for each row of the weights.
    pub fn new(weights: Arc<Packed>, bias: Option<Vec<f32>>) -> Linear {
        Linear { weights, bias }
    }

    pub fn rows(&self) -> usize {
        self.weights.rows()
    }

    pub fn cols(&self) -> usize {
        self.weights.cols()
    }

    /// The forms in which maps want their input.
    pub fn forms<'a>(maps: impl IntoIterator<Item = &'a Linear>) -> Forms {
        maps.into_iter().fold(Forms::default(), |forms, map| forms.with(map.weights.form()))
    }

    /// Fills each output with [n, rows] of its map; all the maps together are one piece of work for the threads.
    /// `input` is [n, cols] in the forms of all of them.
    pub fn forward(compute: &Compute, input: &Rows, outputs: &mut [(&Linear, &mut Vec<f32>)]) {
        let products: Vec<Product<'_>> = outputs
            .iter_mut()
            .map(|(linear, out)| {
                out.resize(input.rows * linear.rows(), 0.0);
                Product { weights: &linear.weights, bias: linear.bias.as_deref(), out: Shared::new(out) }
            })
            .collect();
        matmul::multiply((&compute.pool, compute.cpu), &products, input);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::GgmlDType as Kind;
    use candle_core::{Device, Tensor, quantized::QTensor};
    use proptest::prelude::*;

    use super::*;
    use crate::{kernels::Tier, pool::Pool};

    fn random(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// A map of a type, and its weights as candle sees them.
    fn linear(kind: Kind, seed: u32, (rows, cols): (usize, usize)) -> (Linear, Vec<f32>) {
        let tensor = Tensor::from_vec(random(seed, rows * cols), (rows, cols), &Device::Cpu).unwrap();
        let tensor = QTensor::quantize(&tensor, kind).unwrap();
        let plain = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let packed =
            Packed::pack(&Pool::new(1).unwrap(), kind, &tensor.data().unwrap(), (rows, cols)).unwrap();
        (Linear::new(Arc::new(packed), None), plain)
    }

    fn run(tier: Tier, threads: usize, linear: &Linear, values: &[f32]) -> Vec<f32> {
        let compute = Compute::new(threads, Some(tier)).unwrap();
        let cols = linear.cols();
        let mut input = Rows::default();
        let fill = |row: usize, out: &mut [f32]| out.copy_from_slice(&values[row * cols..][..cols]);
        let shape = (values.len() / cols, cols);
        input.fill((&compute.pool, compute.cpu), shape, Linear::forms([linear]), fill);
        let mut out = Vec::new();
        Linear::forward(&compute, &input, &mut [(linear, &mut out)]);
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
        fn every_type_multiplies_like_its_dequantized_weights(seed in any::<u32>(), n in 1usize..20) {
            let (rows, cols) = (37, 512);
            let values = random(seed ^ 1, n * cols);
            for kind in KINDS {
                let (mut linear, plain) = linear(kind, seed, (rows, cols));
                linear.bias = Some(vec![0.5; rows]);
                let out = run(Tier::detect(), 2, &linear, &values);
                for (at, out) in out.iter().enumerate() {
                    let (row, column) = (at / rows, at % rows);
                    let pairs = values[row * cols..][..cols].iter().zip(&plain[column * cols..][..cols]);
                    let exact: f64 = 0.5 + pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                    // An 8-bit activation is off by up to 1/254 of the block's largest; that averages out.
                    prop_assert!((f64::from(*out) - exact).abs() < 0.25, "{kind:?} {at}: {out} is not {exact}");
                }
            }
        }

        #[test]
        fn the_bits_do_not_depend_on_tier_threads_or_neighbours(seed in any::<u32>(), n in 1usize..20) {
            let (rows, cols) = (50, 256);
            let values = random(seed ^ 1, n * cols);
            for kind in KINDS {
                let linear = linear(kind, seed, (rows, cols)).0;
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
        let linear = linear(Kind::Q4_1, 1, (8, 64)).0;
        let mut values = random(2, 128);
        values[100] = f32::NAN;
        let out = run(Tier::detect(), 1, &linear, &values);
        assert!(
            out[..8].iter().all(|value| value.is_finite()) && out[8..].iter().all(|value| value.is_nan())
        );
    }
}
