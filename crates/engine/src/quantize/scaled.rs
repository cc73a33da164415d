//! Q4_K and Q5_K: 256 weights in eight groups, each with a scale and a minimum of six bits, which are multiples of two
//! half-precision numbers. The layout is ggml's.
//!
//! A group is fitted by weighted least squares: for a number of step sizes, the codes are rounded and the scale and
//! minimum that suit these codes best are solved for; the best of all counts. A weight counts more the larger it is,
//! because what it is multiplied with is not known and large ones do more harm.

use half::f16;

const BLOCK: usize = 256;
const GROUP: usize = 32;
const GROUPS: usize = BLOCK / GROUP;
/// The largest six-bit scale.
const SIX_BITS: f32 = 63.0;
/// Step sizes that are tried beside the obvious one, around it.
const TRIES: i32 = 12;
/// How far the number of steps is moved from one try to the next.
const TRY_STEP: f32 = 0.1;

/// `x` is about `scale * code - minimum`, and neither is negative.
#[derive(Clone, Copy, Default)]
struct Fit {
    scale: f32,
    minimum: f32,
}

/// Adds the blocks of `values` with codes of `BITS` bits.
pub(super) fn quantize<const BITS: u32>(values: &[f32], out: &mut Vec<u8>) {
    for block in values.as_chunks::<BLOCK>().0 {
        quantize_block::<BITS>(block, out);
    }
}

fn quantize_block<const BITS: u32>(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    let largest_code = ((1u32 << BITS) - 1) as f32;
    let groups = block.as_chunks::<GROUP>().0;
    let fits: Vec<Fit> = groups.iter().map(|group| fit(group, largest_code)).collect();
    let (d, scales) = six_bits(fits.iter().map(|fit| fit.scale));
    let (m, minimums) = six_bits(fits.iter().map(|fit| fit.minimum));
    let mut codes = [0u8; BLOCK];
    for (at, (group, codes)) in groups.iter().zip(codes.as_chunks_mut::<GROUP>().0).enumerate() {
        let (scale, minimum) = (d.to_f32() * f32::from(scales[at]), m.to_f32() * f32::from(minimums[at]));
        if scale > 0.0 {
            for (code, value) in codes.iter_mut().zip(group) {
                *code = ((value + minimum) / scale).round_ties_even().clamp(0.0, largest_code) as u8;
            }
        }
    }
    out.extend(d.to_le_bytes());
    out.extend(m.to_le_bytes());
    out.extend(pack_scales(&scales, &minimums));
    if BITS == 5 {
        out.extend((0..GROUP).map(|at| fifth_bits(&codes, at)));
    }
    for pair in codes.as_chunks::<{ 2 * GROUP }>().0 {
        out.extend((0..GROUP).map(|at| pair[at] & 15 | (pair[GROUP + at] & 15) << 4));
    }
}

/// One bit of each group: that of its code at `at` which is worth 16.
fn fifth_bits(codes: &[u8; BLOCK], at: usize) -> u8 {
    (0..GROUPS).map(|group| (codes[group * GROUP + at] >> 4 & 1) << group).sum()
}

/// The half-precision unit, and how many units each value is.
fn six_bits(values: impl Iterator<Item = f32> + Clone) -> (f16, [u8; GROUPS]) {
    let largest = values.clone().fold(0.0, f32::max);
    let mut units = [0; GROUPS];
    if largest > 0.0 {
        for (unit, value) in units.iter_mut().zip(values) {
            *unit = (value * SIX_BITS / largest).round_ties_even().min(SIX_BITS) as u8;
        }
    }
    (f16::from_f32(largest / SIX_BITS), units)
}

/// Eight scales and eight minimums in twelve bytes: those of the last four groups are split between the high bits of
/// the first ones' bytes and four bytes of their own.
fn pack_scales(scales: &[u8; GROUPS], minimums: &[u8; GROUPS]) -> [u8; 12] {
    let mut packed = [0; 12];
    for at in 0..4 {
        packed[at] = scales[at] | scales[at + 4] >> 4 << 6;
        packed[at + 4] = minimums[at] | minimums[at + 4] >> 4 << 6;
        packed[at + 8] = scales[at + 4] & 15 | (minimums[at + 4] & 15) << 4;
    }
    packed
}

fn fit(group: &[f32; GROUP], largest_code: f32) -> Fit {
    let lowest = group.iter().copied().fold(0.0, f32::min);
    let highest = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest <= lowest {
        // All of them are the same, and not above zero.
        return Fit { scale: 0.0, minimum: -lowest };
    }
    let mean_square = group.iter().map(|value| value * value).sum::<f32>() / GROUP as f32;
    let importance = group.map(|value| mean_square.sqrt() + value.abs());
    let mut best = Fit { scale: (highest - lowest) / largest_code, minimum: -lowest };
    let mut best_error = error(group, &importance, best, largest_code);
    for attempt in -TRIES..=TRIES {
        let steps = largest_code + TRY_STEP * attempt as f32;
        let codes = group.map(|value| {
            ((value - lowest) * steps / (highest - lowest)).round_ties_even().clamp(0.0, largest_code)
        });
        let Some(fit) = solve(group, &importance, &codes) else { continue };
        let error = error(group, &importance, fit, largest_code);
        if error < best_error {
            (best, best_error) = (fit, error);
        }
    }
    best
}

/// The scale and minimum that suit these codes best.
fn solve(group: &[f32; GROUP], importance: &[f32; GROUP], codes: &[f32; GROUP]) -> Option<Fit> {
    let (mut w, mut x, mut l, mut ll, mut lx) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for ((value, weight), code) in group.iter().zip(importance).zip(codes) {
        w += weight;
        x += weight * value;
        l += weight * code;
        ll += weight * code * code;
        lx += weight * code * value;
    }
    let determinant = w * ll - l * l;
    if determinant <= 0.0 {
        return None;
    }
    let (scale, offset) = ((w * lx - x * l) / determinant, (ll * x - l * lx) / determinant);
    let fit = if offset > 0.0 {
        // A minimum above zero cannot be written; without one, the scale has another best value.
        Fit { scale: lx / ll, minimum: 0.0 }
    } else {
        Fit { scale, minimum: -offset }
    };
    (fit.scale > 0.0).then_some(fit)
}

/// How far the group is from itself once it is quantized so.
fn error(group: &[f32; GROUP], importance: &[f32; GROUP], fit: Fit, largest_code: f32) -> f32 {
    let Fit { scale, minimum } = fit;
    let inverse = 1.0 / scale;
    let off = |value: f32| {
        let code = ((value + minimum) * inverse).round_ties_even().clamp(0.0, largest_code);
        scale * code - minimum - value
    };
    group.iter().zip(importance).map(|(&value, weight)| weight * off(value) * off(value)).sum()
}
