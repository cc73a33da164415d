//! The KV cache on a device: of each block the keys and values of all positions of all pages, in half precision. Taken
//! when the model is loaded, and kept.

use candle_core::{DType, Device, Tensor};

use crate::{Error, kernels::attention::Heads, pages::PAGE_TOKENS, spec::Spec};

pub struct Cache {
    blocks: Vec<Block>,
}

struct Block {
    /// [places, kv heads * key_dim].
    keys: Tensor,
    /// [places, kv heads * value_dim].
    values: Tensor,
}

/// Where the rows of a batch go: the place of each, once for each value that it has there.
pub struct Targets {
    /// [n, kv heads * key_dim].
    keys: Tensor,
    /// [n, kv heads * value_dim].
    values: Tensor,
}

/// The bytes of a page.
pub fn page_bytes(spec: &Spec) -> usize {
    let Heads { kv_count, key_dim, value_dim, .. } = spec.heads;
    spec.blocks * kv_count * PAGE_TOKENS * (key_dim + value_dim) * DType::F16.size_in_bytes()
}

// === impl Cache ===

impl Cache {
    pub fn new(spec: &Spec, pages: usize, device: &Device) -> Result<Cache, Error> {
        let Heads { kv_count, key_dim, value_dim, .. } = spec.heads;
        let zeros = |dim: usize| Tensor::zeros((pages * PAGE_TOKENS, kv_count * dim), DType::F16, device);
        let block = || Ok(Block { keys: zeros(key_dim)?, values: zeros(value_dim)? });
        let blocks: candle_core::Result<Vec<Block>> = (0..spec.blocks).map(|_| block()).collect();
        let needed = (pages * page_bytes(spec)) as u64;
        // Its shape cannot be wrong, so it is the memory.
        let blocks = blocks.map_err(|_| Error::OutOfMemory { what: "the KV cache", needed })?;
        Ok(Cache { blocks })
    }

    /// Stores keys, [n, kv heads, key_dim], and values, [n, kv heads * value_dim].
    pub fn store(
        &self,
        block: usize,
        targets: &Targets,
        (keys, values): (&Tensor, &Tensor),
    ) -> candle_core::Result<()> {
        let block = &self.blocks[block];
        let keys = keys.flatten_from(1)?.to_dtype(DType::F16)?.contiguous()?;
        let values = values.to_dtype(DType::F16)?.contiguous()?;
        block.keys.scatter_set(&targets.keys, &keys, 0)?;
        block.values.scatter_set(&targets.values, &values, 0)
    }

    /// What is at `places`: keys, [kv heads, key_dim, seen], and values, [kv heads, seen, value_dim].
    pub fn gather(
        &self,
        block: usize,
        places: &Tensor,
        heads: Heads,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let Heads { kv_count, key_dim, value_dim, .. } = heads;
        let (seen, block) = (places.dim(0)?, &self.blocks[block]);
        let take = |from: &Tensor, dim: usize| {
            from.index_select(places, 0)?.to_dtype(DType::F32)?.reshape((seen, kv_count, dim))
        };
        let keys = take(&block.keys, key_dim)?.permute((1, 2, 0))?.contiguous()?;
        let values = take(&block.values, value_dim)?.transpose(0, 1)?.contiguous()?;
        Ok((keys, values))
    }
}

// === impl Targets ===

impl Targets {
    pub fn new(places: Vec<u32>, heads: Heads, device: &Device) -> candle_core::Result<Targets> {
        let rows = places.len();
        let places = Tensor::from_vec(places, (rows, 1), device)?;
        let spread = |dim: usize| places.broadcast_as((rows, heads.kv_count * dim))?.contiguous();
        Ok(Targets { keys: spread(heads.key_dim)?, values: spread(heads.value_dim)? })
    }
}
