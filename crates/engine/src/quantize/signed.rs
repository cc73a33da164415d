//! Q6_K: 256 weights in sixteen groups, each with a signed scale of eight bits, which are multiples of one
//! half-precision number. The layout is ggml's.
//!
//! A group's scale is fitted by least squares, for a number of step sizes, where a weight counts by its square: large
//! ones do the most harm. Codes reach one further below zero than above, so the weight that is furthest from zero takes
//! that end, whatever its sign; hence a scale may be negative.

use half::f16;

const BLOCK: usize = 256;
const GROUP: usize = 16;
const GROUPS: usize = BLOCK / GROUP;
/// Codes are -32 to 31, kept with 32 added.
const ZERO: f32 = 32.0;
/// Step sizes that are tried on both sides of the obvious one.
const TRIES: i32 = 9;
/// How far the number of steps is moved from one try to the next.
const TRY_STEP: f32 = 0.1;

/// Adds the blocks of `values`.
pub(super) fn quantize(values: &[f32], out: &mut Vec<u8>) {
    for block in values.as_chunks::<BLOCK>().0 {
        quantize_block(block, out);
    }
}

fn quantize_block(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    let groups = block.as_chunks::<GROUP>().0;
    let fits: Vec<f32> = groups.iter().map(fit).collect();
    let largest = furthest(&fits);
    // The same trick once more: the largest scale takes -128, which has no counterpart above zero.
    let unit = f16::from_f32(largest / -128.0);
    let mut scales = [0i8; GROUPS];
    if largest != 0.0 {
        for (scale, fit) in scales.iter_mut().zip(&fits) {
            *scale = (fit * -128.0 / largest).round_ties_even().clamp(-128.0, 127.0) as i8;
        }
    }
    let mut codes = [ZERO as u8; BLOCK];
    for ((group, scale), codes) in groups.iter().zip(scales).zip(codes.as_chunks_mut::<GROUP>().0) {
        let step = unit.to_f32() * f32::from(scale);
        if step != 0.0 {
            for (code, value) in codes.iter_mut().zip(group) {
                *code = (round(value / step) + ZERO) as u8;
            }
        }
    }
    for half in codes.as_chunks::<128>().0 {
        out.extend((0..64).map(|at| half[at] & 15 | (half[64 + at] & 15) << 4));
    }
    for half in codes.as_chunks::<128>().0 {
        out.extend(
            (0..32).map(|at| (0..4).map(|quarter| half[32 * quarter + at] >> 4 << (2 * quarter)).sum::<u8>()),
        );
    }
    out.extend(scales.iter().map(|scale| scale.to_le_bytes()[0]));
    out.extend(unit.to_le_bytes());
}

/// The scale with which a group is rounded best.
fn fit(group: &[f32; GROUP]) -> f32 {
    let end = furthest(group);
    if end == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (-end / ZERO, f32::NEG_INFINITY);
    for attempt in -TRIES..=TRIES {
        let inverse = -(ZERO + TRY_STEP * attempt as f32) / end;
        let (mut products, mut squares) = (0f32, 0f32);
        for &value in group {
            // In units of the furthest value, so that the fourth power of none is lost.
            let share = value / end;
            let code = round(value * inverse);
            products += share * share * share * code;
            squares += share * share * code * code;
        }
        // What least squares leaves is smallest where this is largest.
        let gain = products * products / squares;
        if gain > best_gain {
            (best, best_gain) = (products / squares * end, gain);
        }
    }
    best
}

fn round(value: f32) -> f32 {
    value.round_ties_even().clamp(-ZERO, ZERO - 1.0)
}

/// The value that is furthest from zero.
fn furthest(values: &[f32]) -> f32 {
    values.iter().copied().fold(0.0, |end: f32, value| if value.abs() > end.abs() { value } else { end })
}
