//! Rope frequencies with every kind of scaling folded in, so that the kernel only multiplies.

use std::f32::consts::PI;

use super::keys::Keys;
use crate::Error;

/// How positions turn the heads of one kind of block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Values of a head that are turned; even.
    pub dims: usize,
    base: f32,
    scaling: Scaling,
    /// Multiplies sine and cosine.
    pub magnitude: f32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scaling {
    /// Positions are divided by the factor; 1 = no scaling.
    Linear(f32),
    /// <https://arxiv.org/abs/2309.00071>: low frequencies are scaled, high ones not.
    Yarn { factor: f32, original_context: f32, beta_fast: f32, beta_slow: f32 },
}

// === impl Rope ===

impl Rope {
    pub fn read(keys: Keys<'_>, dims: usize, train_context: usize) -> Result<Rope, Error> {
        let base = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
        // The second key is how files before `rope.scaling` said it.
        let factor = match keys.positive("rope.scaling.factor")? {
            Some(factor) => factor,
            None => keys.positive("rope.scale_linear")?.unwrap_or(1.0),
        };
        let attention_factor = keys.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let mut rope = Rope { dims, base, scaling: Scaling::Linear(factor), magnitude: attention_factor };
        match keys.text("rope.scaling.type")? {
            None | Some("linear") => {}
            // What longrope scales lies in its factor tensors, and so does llama3's.
            Some("none" | "longrope") => rope.scaling = Scaling::Linear(1.0),
            Some("yarn") => {
                let original = keys.optional_count("rope.scaling.original_context_length", 1 << 30)?;
                rope.scaling = Scaling::Yarn {
                    factor,
                    original_context: original.unwrap_or(train_context) as f32,
                    beta_fast: keys.positive("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: keys.positive("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                };
                rope.magnitude *= 1.0 + 0.1 * factor.max(1.0).ln();
            }
            Some(other) => {
                let problem = format!("must be none, linear, yarn or longrope, got {other:?}");
                return Err(keys.wrong("rope.scaling.type", &problem));
            }
        }
        Ok(rope)
    }

    /// The same turns at another base and without scaling.
    pub fn local(&self, base: f32) -> Rope {
        Rope { dims: self.dims, base, scaling: Scaling::Linear(1.0), magnitude: 1.0 }
    }

    /// Radians per position for each pair, divided by `factors` where the file has them.
    pub fn frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        (0..self.dims / 2)
            .map(|pair| {
                let plain = self.base.powf(-2.0 * pair as f32 / self.dims as f32);
                let plain = plain / factors.map_or(1.0, |factors| factors[pair]);
                match self.scaling {
                    Scaling::Linear(factor) => plain / factor,
                    Scaling::Yarn { factor, .. } => {
                        let scaled = self.scaled_share(pair);
                        plain / factor * scaled + plain * (1.0 - scaled)
                    }
                }
            })
            .collect()
    }

    /// Yarn's ramp: 0 for pairs that turn often within the original context, 1 for those that hardly turn.
    fn scaled_share(&self, pair: usize) -> f32 {
        let Scaling::Yarn { original_context, beta_fast, beta_slow, .. } = self.scaling else { return 0.0 };
        let dims = self.dims as f32;
        let pair_of =
            |turns: f32| dims * (original_context / (turns * 2.0 * PI)).ln() / (2.0 * self.base.ln());
        let low = pair_of(beta_fast).floor().max(0.0);
        let high = pair_of(beta_slow).ceil().min(dims - 1.0);
        ((pair as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: Scaling) -> Rope {
        Rope { dims: 64, base: 10_000.0, scaling, magnitude: 1.0 }
    }

    #[test]
    fn plain_frequencies_fall_from_one_to_nearly_the_base() {
        let frequencies = rope(Scaling::Linear(1.0)).frequencies(None);
        assert_eq!((frequencies.len(), frequencies[0]), (32, 1.0));
        assert!((frequencies[16] - 0.01).abs() < 1e-6);
    }

    #[test]
    fn linear_scaling_and_factors_divide() {
        let plain = rope(Scaling::Linear(1.0)).frequencies(None);
        let scaled = rope(Scaling::Linear(4.0)).frequencies(Some(&[2.0; 32]));
        assert!(plain.iter().zip(scaled).all(|(plain, scaled)| (plain / 8.0 - scaled).abs() < 1e-9));
    }

    #[test]
    fn yarn_leaves_fast_pairs_and_scales_slow_ones() {
        let yarn = Scaling::Yarn { factor: 4.0, original_context: 4096.0, beta_fast: 32.0, beta_slow: 1.0 };
        let (plain, scaled) = (rope(Scaling::Linear(1.0)).frequencies(None), rope(yarn).frequencies(None));
        assert_eq!(plain[..10], scaled[..10]);
        assert!((plain[31] / scaled[31] - 4.0).abs() < 1e-3);
        let ratios: Vec<f32> = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled).collect();
        assert!(ratios.windows(2).all(|pair| pair[0] <= pair[1] + 1e-3));
    }

    #[test]
    fn a_local_rope_has_no_scaling() {
        let rope = Rope { magnitude: 1.3, ..rope(Scaling::Linear(8.0)) };
        let local = rope.local(10_000.0);
        assert_eq!((local.frequencies(None)[0], local.magnitude), (1.0, 1.0));
    }
}
