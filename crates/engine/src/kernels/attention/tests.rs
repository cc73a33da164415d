//! The kernel against the formula, on every tier, for rows alone and together.

use super::*;
use crate::kernels::Tier;
use proptest::prelude::*;

/// Softmax and weighted sum as the formula says, in double precision.
fn plain(heads: Heads, keys: &[Vec<f32>], values: &[Vec<f32>], query: &[f32], position: usize) -> Vec<f64> {
    let visible = heads.visible(position);
    let scores: Vec<f64> = visible
        .clone()
        .map(|at| {
            let dot: f64 = query.iter().zip(&keys[at]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(heads.scale);
            heads.soft_cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        })
        .collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    let mut out = vec![0.0; heads.value_dim];
    for (score, at) in scores.iter().zip(visible) {
        for (out, value) in out.iter_mut().zip(&values[at]) {
            *out += (score - highest).exp() / total * f64::from(*value);
        }
    }
    out
}

fn half_rows(seed: u32, rows: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_f32()
    };
    (0..rows).map(|_| (0..dim).map(|_| next()).collect()).collect()
}

/// A page as a cache of one type has it.
struct Stored<T> {
    keys: Vec<T>,
    values: Vec<T>,
    key_scales: [f32; PAGE_TOKENS],
    value_scales: [f32; PAGE_TOKENS],
}

/// The rows of a page; `number` gives what is stored of a value, in a row that was divided by its scale.
fn stored<T: Copy + Default>(
    heads: Heads,
    (keys, values): (&[Vec<f32>], &[Vec<f32>]),
    page: usize,
    scale_of: impl Fn(&[f32]) -> f32,
    number: impl Fn(f32) -> T,
) -> Stored<T> {
    let stride = value_stride(heads.value_dim);
    let mut stored = Stored {
        keys: vec![T::default(); PAGE_TOKENS * heads.key_dim],
        values: vec![T::default(); PAGE_TOKENS * stride],
        key_scales: [0.0; PAGE_TOKENS],
        value_scales: [0.0; PAGE_TOKENS],
    };
    let rows = keys.iter().zip(values).skip(page * PAGE_TOKENS).take(PAGE_TOKENS);
    for (position, (keys, values)) in rows.enumerate() {
        let scales = [keys, values].map(|row| scale_of(row));
        [stored.key_scales[position], stored.value_scales[position]] = scales;
        for (dim, key) in keys.iter().enumerate() {
            stored.keys[dim * PAGE_TOKENS + position] = number(key / scales[0]);
        }
        for (dim, value) in values.iter().enumerate() {
            stored.values[position * stride + dim] = number(value / scales[1]);
        }
    }
    stored
}

fn attend_with(cpu: Cpu, heads: Heads, rows: &[Vec<Vec<f32>>; 3], first: usize) -> Vec<Vec<f32>> {
    let [_, keys, values] = rows;
    let pages: Vec<_> = (0..keys.len().div_ceil(PAGE_TOKENS))
        .map(|page| stored(heads, (keys, values), page, |_| 1.0, f16::from_f32))
        .collect();
    let views: Vec<_> =
        pages.iter().map(|page| PageView::Halves(Cells { keys: &page.keys, values: &page.values })).collect();
    attend_to(cpu, heads, &rows[0], (&views, first))
}

/// The same with bytes, and what those bytes stand for.
fn attend_to_bytes(
    cpu: Cpu,
    heads: Heads,
    rows: &[Vec<Vec<f32>>; 3],
    first: usize,
) -> (Vec<Vec<f32>>, [Vec<Vec<f32>>; 2]) {
    let [_, keys, values] = rows;
    let scale_of = |row: &[f32]| row.iter().fold(1e-9, |a: f32, b| a.max(b.abs())) / 127.0;
    let pages: Vec<_> = (0..keys.len().div_ceil(PAGE_TOKENS))
        .map(|page| stored(heads, (keys, values), page, scale_of, |value| value.round() as i8))
        .collect();
    let views: Vec<_> = pages
        .iter()
        .map(|page| {
            let scales = Scales { keys: &page.key_scales, values: &page.value_scales };
            PageView::Bytes(Cells { keys: &page.keys, values: &page.values }, scales)
        })
        .collect();
    let meant = [keys, values].map(|rows| {
        let row = |row: &Vec<f32>| {
            row.iter().map(|value| (value / scale_of(row)).round() * scale_of(row)).collect()
        };
        rows.iter().map(row).collect()
    });
    (attend_to(cpu, heads, &rows[0], (&views, first)), meant)
}

fn attend_to(
    cpu: Cpu,
    heads: Heads,
    queries: &[Vec<f32>],
    (pages, first): (&[PageView<'_>], usize),
) -> Vec<Vec<f32>> {
    let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
    let mut out = vec![vec![7.0; heads.group() * heads.value_dim]; queries.len()];
    let mut parts: Vec<&mut [f32]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    let scratch = &mut Scratch::default();
    attend(cpu, Job { heads, pages, first, advance: 1, queries: &queries, out: &mut parts, scratch });
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_is_the_formula_on_every_tier(
        seed in any::<u32>(), first in 0usize..90, rows in 1usize..9, group in 1usize..4,
        window in prop::option::of(1usize..70), soft_cap in prop::option::of(1f32..50.0),
    ) {
        let heads = Heads { count: group, kv_count: 1, key_dim: 20, value_dim: 12, scale: 0.7, soft_cap, window };
        let keys = half_rows(seed, first + rows, 20);
        let values = half_rows(seed ^ 1, first + rows, 12);
        let queries = half_rows(seed ^ 2, rows, group * 20);
        let inputs = [queries, keys, values];
        let scalar = attend_with(Cpu::new(Tier::Scalar).unwrap(), heads, &inputs, first);
        for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
            let ours = attend_with(Cpu::new(tier).unwrap(), heads, &inputs, first);
            prop_assert_eq!(&scalar, &ours, "{:?}", tier);
        }
        let (of_bytes, meant) = attend_to_bytes(Cpu::new(Tier::Scalar).unwrap(), heads, &inputs, first);
        for tier in Tier::ALL.into_iter().filter(|tier| tier.is_available()) {
            let ours = attend_to_bytes(Cpu::new(tier).unwrap(), heads, &inputs, first).0;
            prop_assert_eq!(&of_bytes, &ours, "{:?}", tier);
        }
        for (row, out) in of_bytes.iter().enumerate() {
            for head in 0..group {
                let query = &inputs[0][row][head * 20..(head + 1) * 20];
                let exact = plain(heads, &meant[0], &meant[1], query, first + row);
                for (ours, exact) in out[head * 12..(head + 1) * 12].iter().zip(exact) {
                    prop_assert!((f64::from(*ours) - exact).abs() < 2e-5, "{} is not {}", ours, exact);
                }
            }
        }
        for (row, out) in scalar.iter().enumerate() {
            for head in 0..group {
                let query = &inputs[0][row][head * 20..(head + 1) * 20];
                let exact = plain(heads, &inputs[1], &inputs[2], query, first + row);
                for (ours, exact) in out[head * 12..(head + 1) * 12].iter().zip(exact) {
                    prop_assert!((f64::from(*ours) - exact).abs() < 2e-5, "{} is not {}", ours, exact);
                }
            }
        }
    }
}

#[test]
fn rows_are_the_same_alone_and_together() {
    let heads = Heads {
        count: 2,
        kv_count: 1,
        key_dim: 8,
        value_dim: 8,
        scale: 1.0,
        soft_cap: None,
        window: Some(40),
    };
    let inputs = [half_rows(1, 6, 16), half_rows(2, 76, 8), half_rows(3, 76, 8)];
    let cpu = Cpu::new(Tier::detect()).unwrap();
    let together = attend_with(cpu, heads, &inputs, 70);
    for row in 0..6 {
        let alone = [vec![inputs[0][row].clone()], inputs[1].clone(), inputs[2].clone()];
        assert_eq!(attend_with(cpu, heads, &alone, 70 + row)[0], together[row]);
    }
}
