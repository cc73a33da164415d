//! The KV cache: keys and values of all blocks in half precision, page by page.

use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    Error,
    kernels::attention::{Heads, PageView, value_stride},
    pages::{PAGE_TOKENS, PageId},
    pool::Shared,
};

/// Memory of a page is asked for when the page is first used, and then kept: a replica grows into its bound, which
/// `estimate` tells, and never beyond.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Those of a model without windows: a window changes what is seen, not what is kept.
    heads: Heads,
    blocks: usize,
    /// [blocks, kv heads, (key_dim, PAGE_TOKENS), (PAGE_TOKENS, value_stride)] each; empty until first used.
    pages: Vec<Vec<f16>>,
}

impl Cache {
    pub fn new(heads: Heads, blocks: usize, pages: usize) -> Cache {
        Cache { heads, blocks, pages: vec![Vec::new(); pages] }
    }

    /// Makes sure that `pages` have memory.
    pub fn reserve(&mut self, pages: &[PageId]) -> Result<(), Error> {
        let len = self.blocks * self.block_len();
        for &page in pages {
            let page = &mut self.pages[page as usize];
            if page.is_empty() {
                page.try_reserve_exact(len).map_err(|_| Error::OutOfMemory {
                    what: "a page of the KV cache",
                    needed: (len * size_of::<f16>()) as u64,
                })?;
                page.resize(len, f16::ZERO);
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
        let keys = self.heads.key_dim * PAGE_TOKENS;
        let start = self.head_start(block, head);
        pages.iter().map(move |&page| {
            let head = &self.pages[page as usize][start..start + self.head_len()];
            let (keys, values) = head.split_at(keys);
            PageView { keys, values }
        })
    }

    /// For storing from several threads, each other pages.
    pub fn writer(&mut self) -> Writer<'_> {
        let Cache { heads, blocks, .. } = *self;
        Writer { shape: Cache { heads, blocks, pages: Vec::new() }, pages: Shared::new(&mut self.pages) }
    }

    /// Of a head in a page: keys, then values.
    fn head_len(&self) -> usize {
        PAGE_TOKENS * (self.heads.key_dim + value_stride(self.heads.value_dim))
    }

    fn head_start(&self, block: usize, head: usize) -> usize {
        (block * self.heads.kv_count + head) * self.head_len()
    }

    fn block_len(&self) -> usize {
        self.heads.kv_count * self.head_len()
    }
}

pub(crate) struct Writer<'a> {
    /// A cache without pages.
    shape: Cache,
    pages: Shared<'a, Vec<f16>>,
}

impl Writer<'_> {
    /// Stores keys, [kv heads, key_dim], and values, [kv heads, value_dim], of place `at` in `page`.
    ///
    /// # Safety
    /// No other thread stores anything in the same page at the same time.
    pub unsafe fn store(&self, block: usize, (page, at): (PageId, usize), (keys, values): (&[f32], &[f32])) {
        let Heads { key_dim, value_dim, .. } = self.shape.heads;
        let stride = value_stride(value_dim);
        let page = page as usize;
        // SAFETY: the caller's promise.
        let page = unsafe { &mut self.pages.part(page..page + 1)[0] };
        let heads = keys.chunks_exact(key_dim).zip(values.chunks_exact(value_dim));
        for (head, (keys, values)) in heads.enumerate() {
            let start = self.shape.head_start(block, head);
            let (all_keys, all_values) =
                page[start..start + self.shape.head_len()].split_at_mut(key_dim * PAGE_TOKENS);
            for (key, place) in keys.iter().zip(all_keys[at..].iter_mut().step_by(PAGE_TOKENS)) {
                *place = f16::from_f32(*key);
            }
            all_values[at * stride..][..value_dim].convert_from_f32_slice(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_where_it_was_stored() {
        let heads = Heads {
            count: 4,
            kv_count: 2,
            key_dim: 3,
            value_dim: 2,
            scale: 1.0,
            soft_cap: None,
            window: None,
        };
        let mut cache = Cache::new(heads, 2, 4);
        let table = [3, 1];
        cache.reserve(&table).unwrap();
        assert_eq!(cache.pages.iter().filter(|page| !page.is_empty()).count(), 2);
        let position = PAGE_TOKENS as u32 + 5;
        let at = (table[1], position as usize % PAGE_TOKENS);
        // SAFETY: there is no other thread.
        unsafe { cache.writer().store(1, at, (&[1., 2., 3., 4., 5., 6.], &[7., 8., 9., 10.])) };
        let view = cache.view(1, 1, &table).nth(1).unwrap();
        let keys: Vec<f32> = (0..3).map(|dim| view.keys[dim * PAGE_TOKENS + 5].to_f32()).collect();
        let stride = value_stride(2);
        let values: Vec<f32> = view.values[5 * stride..][..2].iter().map(|value| value.to_f32()).collect();
        assert_eq!((keys, values), (vec![4., 5., 6.], vec![9., 10.]));
        assert!(cache.view(0, 1, &table).all(|page| page.keys.iter().all(|key| *key == f16::ZERO)));
    }
}
