//! The KV cache: keys and values of all blocks in half precision, page by page.

use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    Error,
    kernels::attention::{Heads, PageView},
    pages::{PAGE_TOKENS, PageId},
};

/// Memory of a page is asked for when the page is first used, and then kept: a replica grows into its bound, which
/// `estimate` tells, and never beyond.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Those of a model without windows: a window changes what is seen, not what is kept.
    heads: Heads,
    blocks: usize,
    /// [blocks, (kv heads, PAGE_TOKENS, key_dim), (kv heads, PAGE_TOKENS, value_dim)] each; empty until first used.
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

    /// Stores keys, [kv heads, key_dim], and values, [kv heads, value_dim], of one position.
    pub fn store(&mut self, block: usize, pages: &[PageId], position: u32, (keys, values): (&[f32], &[f32])) {
        let (page, at) = (position as usize / PAGE_TOKENS, position as usize % PAGE_TOKENS);
        let len = self.block_len();
        let Heads { kv_count, key_dim, value_dim, .. } = self.heads;
        let block = &mut self.pages[pages[page] as usize][block * len..(block + 1) * len];
        let (all_keys, all_values) = block.split_at_mut(kv_count * PAGE_TOKENS * key_dim);
        for head in 0..kv_count {
            let at = head * PAGE_TOKENS + at;
            all_keys[at * key_dim..][..key_dim].convert_from_f32_slice(&keys[head * key_dim..][..key_dim]);
            all_values[at * value_dim..][..value_dim]
                .convert_from_f32_slice(&values[head * value_dim..][..value_dim]);
        }
    }

    /// What one head of a block has in `pages`.
    pub fn view<'a>(
        &'a self,
        block: usize,
        head: usize,
        pages: &'a [PageId],
    ) -> impl Iterator<Item = PageView<'a>> {
        let len = self.block_len();
        let Heads { kv_count, key_dim, value_dim, .. } = self.heads;
        pages.iter().map(move |&page| {
            let block = &self.pages[page as usize][block * len..(block + 1) * len];
            let (keys, values) = block.split_at(kv_count * PAGE_TOKENS * key_dim);
            PageView {
                keys: &keys[head * PAGE_TOKENS * key_dim..][..PAGE_TOKENS * key_dim],
                values: &values[head * PAGE_TOKENS * value_dim..][..PAGE_TOKENS * value_dim],
            }
        })
    }

    fn block_len(&self) -> usize {
        self.heads.kv_count * PAGE_TOKENS * (self.heads.key_dim + self.heads.value_dim)
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
        cache.store(1, &table, position, (&[1., 2., 3., 4., 5., 6.], &[7., 8., 9., 10.]));
        let view = cache.view(1, 1, &table).nth(1).unwrap();
        let keys: Vec<f32> = view.keys[5 * 3..6 * 3].iter().map(|key| key.to_f32()).collect();
        let values: Vec<f32> = view.values[5 * 2..6 * 2].iter().map(|value| value.to_f32()).collect();
        assert_eq!((keys, values), (vec![4., 5., 6.], vec![9., 10.]));
        assert!(cache.view(0, 1, &table).all(|page| page.keys.iter().all(|key| *key == f16::ZERO)));
    }
}
