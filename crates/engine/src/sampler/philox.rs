//! Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (SC 2011). It has no state: a number is a function of a key and a counter, here the seed of a request
//! and the position of a token in its output. So a token's randomness does not depend on what else is in the batch,
//! and an output can be continued on another machine.

const ROUNDS: usize = 10;
/// The paper's multipliers, and its key increments (the golden ratio and the square root of three, minus one).
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// A number in [0, 1) with 53 random bits.
pub(super) fn uniform(seed: u64, position: u64) -> f64 {
    let [first, second, ..] = philox([position as u32, (position >> 32) as u32, 0, 0], halves(seed));
    let bits = (u64::from(first) << 32 | u64::from(second)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

fn halves(wide: u64) -> [u32; 2] {
    [wide as u32, (wide >> 32) as u32]
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [low0, high0] = halves(u64::from(counter[0]) * u64::from(MULTIPLIERS[0]));
        let [low1, high1] = halves(u64::from(counter[2]) * u64::from(MULTIPLIERS[1]));
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(INCREMENTS[0]), key[1].wrapping_add(INCREMENTS[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' own implementation.
    #[test]
    fn the_known_answers_of_the_paper_come_out() {
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn numbers_are_spread_evenly_over_seeds_and_positions() {
        let mut buckets = [0; 10];
        for seed in 0..100 {
            for position in 0..100 {
                let number = uniform(seed, position);
                assert!((0.0..1.0).contains(&number));
                buckets[(number * 10.0) as usize] += 1;
            }
        }
        assert!(buckets.iter().all(|&count: &i32| (count - 1000).abs() < 150), "{buckets:?}");
    }
}
