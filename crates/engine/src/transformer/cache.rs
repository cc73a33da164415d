//! The KV cache: keys and values of all blocks, page by page, in half precision or as bytes.

use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    Error,
    kernels::attention::{Cells, Heads, PageView, Scales, value_stride},
    load::KvType,
    pages::{PAGE_TOKENS, PageId},
    pool::Shared,
    spec::Spec,
};

/// Memory of a page is asked for when the page is first used, and then kept: a replica grows into its bound, which
/// `estimate` tells, and never beyond.
#[derive(Debug)]
pub(crate) struct Cache {
    shape: Shape,
    pages: Vec<Page>,
    /// Pages that have memory; none gives it back.
    taken: usize,
}

/// What all pages have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Those of a model without windows: a window changes what is seen, not what is kept.
    pub heads: Heads,
    pub blocks: usize,
    pub kv_type: KvType,
}

/// Empty until it is first used.
#[derive(Debug)]
enum Page {
    /// [blocks, kv heads, (key_dim, PAGE_TOKENS), (PAGE_TOKENS, value_stride)].
    Halves(Vec<f16>),
    /// The same as bytes, and [blocks, kv heads, 2] rows of scales: of the keys and of the values of each position.
    Bytes(Vec<i8>, Vec<[f32; PAGE_TOKENS]>),
}

// === impl Cache ===

impl Cache {
    pub fn new(shape: Shape, pages: usize) -> Cache {
        let page = || match shape.kv_type {
            KvType::F16 => Page::Halves(Vec::new()),
            KvType::Q8_0 => Page::Bytes(Vec::new(), Vec::new()),
        };
        Cache { shape, pages: (0..pages).map(|_| page()).collect(), taken: 0 }
    }

    /// What the pages that were never used will take.
    pub fn untaken_bytes(&self) -> u64 {
        (self.pages.len() - self.taken) as u64 * self.shape.page_bytes() as u64
    }

    /// Makes sure that `pages` have memory.
    pub fn reserve(&mut self, pages: &[PageId]) -> Result<(), Error> {
        let shape = self.shape;
        let heads = shape.blocks * shape.heads.kv_count;
        let refusal =
            |_| Error::OutOfMemory { what: "a page of the KV cache", needed: shape.page_bytes() as u64 };
        for &page in pages {
            match &mut self.pages[page as usize] {
                Page::Halves(cells) if cells.is_empty() => {
                    cells.try_reserve_exact(heads * shape.head_len()).map_err(refusal)?;
                    cells.resize(heads * shape.head_len(), f16::ZERO);
                    self.taken += 1;
                }
                Page::Bytes(cells, scales) if cells.is_empty() => {
                    cells.try_reserve_exact(heads * shape.head_len()).map_err(refusal)?;
                    scales.try_reserve_exact(2 * heads).map_err(refusal)?;
                    cells.resize(heads * shape.head_len(), 0);
                    scales.resize(2 * heads, [0.0; PAGE_TOKENS]);
                    self.taken += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What one head of a block has in `pages`.
    pub fn view<'a>(
        &'a self,
        block: usize,
        head: usize,
        pages: &'a [PageId],
    ) -> impl Iterator<Item = PageView<'a>> {
        let at = block * self.shape.heads.kv_count + head;
        pages.iter().map(move |&page| match &self.pages[page as usize] {
            Page::Halves(cells) => PageView::Halves(self.shape.cells(cells, at)),
            Page::Bytes(cells, scales) => {
                let scales = Scales { keys: &scales[2 * at], values: &scales[2 * at + 1] };
                PageView::Bytes(self.shape.cells(cells, at), scales)
            }
        })
    }

    /// For storing from several threads, each other pages.
    pub fn writer(&mut self) -> Writer<'_> {
        Writer { shape: self.shape, pages: Shared::new(&mut self.pages) }
    }
}

// === impl Shape ===

impl Shape {
    pub fn of(spec: &Spec, kv_type: KvType) -> Shape {
        Shape { heads: spec.heads, blocks: spec.blocks, kv_type }
    }

    pub fn page_bytes(&self) -> usize {
        let heads = self.blocks * self.heads.kv_count;
        match self.kv_type {
            KvType::F16 => heads * self.head_len() * size_of::<f16>(),
            KvType::Q8_0 => heads * (self.head_len() + 2 * size_of::<[f32; PAGE_TOKENS]>()),
        }
    }

    /// Numbers of a head in a page: keys, then values.
    fn head_len(&self) -> usize {
        PAGE_TOKENS * (self.heads.key_dim + value_stride(self.heads.value_dim))
    }

    /// The numbers of head `at` of all blocks.
    fn cells<'a, T>(&self, cells: &'a [T], at: usize) -> Cells<'a, T> {
        let cells = &cells[at * self.head_len()..(at + 1) * self.head_len()];
        let (keys, values) = cells.split_at(self.heads.key_dim * PAGE_TOKENS);
        Cells { keys, values }
    }
}

pub(crate) struct Writer<'a> {
    shape: Shape,
    pages: Shared<'a, Page>,
}

impl Writer<'_> {
    /// Stores keys, [kv heads, key_dim], and values, [kv heads, value_dim], of place `at` in `page`.
    ///
    /// # Safety
    /// No other thread stores anything in the same page at the same time.
    pub unsafe fn store(&self, block: usize, (page, at): (PageId, usize), (keys, values): (&[f32], &[f32])) {
        let Heads { key_dim, value_dim, kv_count, .. } = self.shape.heads;
        let stride = value_stride(value_dim);
        let len = self.shape.head_len();
        let page = page as usize;
        // SAFETY: the caller's promise.
        let page = unsafe { &mut self.pages.part(page..page + 1)[0] };
        let heads = keys.chunks_exact(key_dim).zip(values.chunks_exact(value_dim));
        for (head, (keys, values)) in (block * kv_count..).zip(heads) {
            match page {
                Page::Halves(cells) => {
                    let (all_keys, all_values) =
                        cells[head * len..(head + 1) * len].split_at_mut(key_dim * PAGE_TOKENS);
                    for (key, place) in keys.iter().zip(all_keys[at..].iter_mut().step_by(PAGE_TOKENS)) {
                        *place = f16::from_f32(*key);
                    }
                    all_values[at * stride..][..value_dim].convert_from_f32_slice(values);
                }
                Page::Bytes(cells, scales) => {
                    let (all_keys, all_values) =
                        cells[head * len..(head + 1) * len].split_at_mut(key_dim * PAGE_TOKENS);
                    scales[2 * head][at] = quantize(keys, all_keys[at..].iter_mut().step_by(PAGE_TOKENS));
                    scales[2 * head + 1][at] = quantize(values, all_values[at * stride..].iter_mut());
                }
            }
        }
    }
}

/// Writes `values` as bytes and returns their scale: what is not finite makes it NaN.
fn quantize<'a>(values: &[f32], places: impl Iterator<Item = &'a mut i8>) -> f32 {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let poison: f32 = values.iter().map(|value| value * 0.0).sum();
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    for (value, place) in values.iter().zip(places) {
        *place = (value * inverse).round_ties_even() as i8;
    }
    largest / 127.0 + poison
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two blocks with two heads, and four pages.
    fn cache(kv_type: KvType) -> Cache {
        let heads = Heads {
            count: 4,
            kv_count: 2,
            key_dim: 3,
            value_dim: 2,
            scale: 1.0,
            soft_cap: None,
            window: None,
        };
        Cache::new(Shape { heads, blocks: 2, kv_type }, 4)
    }

    #[test]
    fn a_position_is_found_where_it_was_stored() {
        let mut cache = cache(KvType::F16);
        let table = [3, 1];
        cache.reserve(&table).unwrap();
        let is_used = |page: &&Page| matches!(page, Page::Halves(cells) if !cells.is_empty());
        assert_eq!(cache.pages.iter().filter(is_used).count(), 2);
        let untaken = (cache.pages.len() - 2) * cache.shape.page_bytes();
        assert_eq!(cache.untaken_bytes(), untaken as u64);
        let position = PAGE_TOKENS as u32 + 5;
        let at = (table[1], position as usize % PAGE_TOKENS);
        // SAFETY: there is no other thread.
        unsafe { cache.writer().store(1, at, (&[1., 2., 3., 4., 5., 6.], &[7., 8., 9., 10.])) };
        let Some(PageView::Halves(view)) = cache.view(1, 1, &table).nth(1) else { panic!("not halves") };
        let keys: Vec<f32> = (0..3).map(|dim| view.keys[dim * PAGE_TOKENS + 5].to_f32()).collect();
        let stride = value_stride(2);
        let values: Vec<f32> = view.values[5 * stride..][..2].iter().map(|value| value.to_f32()).collect();
        assert_eq!((keys, values), (vec![4., 5., 6.], vec![9., 10.]));
        for other in cache.view(0, 1, &table) {
            let PageView::Halves(view) = other else { panic!("not halves") };
            assert!(view.keys.iter().all(|key| *key == f16::ZERO));
        }
    }

    #[test]
    fn bytes_and_their_scales_are_found_where_they_were_stored() {
        let mut cache = cache(KvType::Q8_0);
        cache.reserve(&[1]).unwrap();
        let rows: (&[f32], &[f32]) = (&[1., 2., 3., -4., 5., 127.], &[7., 8., f32::NAN, 10.]);
        // SAFETY: there is no other thread.
        unsafe { cache.writer().store(1, (1, 9), rows) };
        let Some(PageView::Bytes(cells, scales)) = cache.view(1, 1, &[1]).next() else { panic!("not bytes") };
        let keys: Vec<i8> = (0..3).map(|dim| cells.keys[dim * PAGE_TOKENS + 9]).collect();
        assert_eq!((keys, scales.keys[9]), (vec![-4, 5, 127], 1.0));
        assert!(scales.values[9].is_nan() && scales.values[8] == 0.0);
        let Some(PageView::Bytes(cells, scales)) = cache.view(1, 0, &[1]).next() else { panic!("not bytes") };
        let second = f32::from(cells.values[9 * value_stride(2) + 1]) * scales.values[9];
        assert!((second - 8.0).abs() < 1e-5);
    }
}
