//! A transformer as plain data: everything that its metadata and the arch table say. Which branches it has, and
//! which biases and norms, is told by the tensors themselves, when they are loaded.

mod arch;
mod experts;
mod keys;
mod rope;
mod window;

use gguf::Gguf;

use crate::{
    Error, Pooling,
    kernels::{activation::Activation, attention::Heads, rope::Pairing},
};
use arch::Arch;
pub use arch::is_supported;
pub(crate) use arch::{Layout, NormKind};
pub(crate) use experts::Experts;
use keys::Keys;
pub(crate) use rope::Rope;
use window::Window;

/// Above any model known (Llama 3.1 405B has 126), so that a lying file is refused by name.
const MAX_BLOCKS: usize = 1024;
/// Above any model known; keeps products of sizes far from overflow.
const MAX_WIDTH: usize = 1 << 20;
const MAX_CONTEXT: usize = 1 << 30;

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub architecture: &'static str,
    pub blocks: usize,
    /// Values of a row between blocks.
    pub width: usize,
    /// Of dense feed-forward bodies; 0 where there are only experts.
    pub feed_forward_width: usize,
    pub experts: Option<Experts>,
    pub vocab_size: usize,
    pub train_context_length: usize,
    pub norm: NormKind,
    pub layout: Layout,
    pub epsilon: f32,
    pub activation: Activation,
    pub is_gated: bool,
    pub embedding_scale: f32,
    /// Of blocks that see everything; see [`Spec::heads`].
    pub heads: Heads,
    window: Option<Window>,
    pub output_soft_cap: Option<f32>,
    /// `None` = positions are a table.
    pub pairing: Option<Pairing>,
    pub rope: Rope,
    /// Of blocks with a window, where it differs.
    pub local_rope: Option<Rope>,
    /// Rope factors come in two tensors, the long one for contexts above this.
    pub original_context_length: usize,
    /// Set for an embedder.
    pub pooling: Option<Pooling>,
    /// Whether it has a head that tells how well a document answers a query.
    pub is_reranker: bool,
    pub has_head: bool,
    /// Whether a position sees only what is before it. Where it sees everything, an input is one chunk.
    pub is_causal: bool,
}

// === impl Spec ===

impl Spec {
    pub fn read(gguf: &Gguf) -> Result<Spec, Error> {
        let arch = arch::row(gguf.architecture()?)?;
        let keys = Keys::new(gguf, arch.name);
        let blocks = keys.count("block_count", MAX_BLOCKS)?;
        let width = keys.count("embedding_length", MAX_WIDTH)?;
        let train_context_length = keys.count("context_length", MAX_CONTEXT)?;
        let heads = read_heads(keys, arch, blocks, width)?;
        let window = Window::read(keys, arch.window, blocks)?;
        let dims = keys.optional_count("rope.dimension_count", heads.key_dim)?.unwrap_or(heads.key_dim);
        if dims % 2 != 0 {
            return Err(keys.wrong("rope.dimension_count", &format!("must be even, got {dims}")));
        }
        let feed_forward_width = keys.optional_count("feed_forward_length", MAX_WIDTH)?;
        let experts = Experts::read(keys, arch.experts, feed_forward_width)?;
        if feed_forward_width.is_none() && experts.is_none() {
            return Err(keys.wrong("feed_forward_length", "is missing"));
        }
        let rope = Rope::read(keys, dims, train_context_length)?;
        let local_base = match arch.window.and_then(|row| row.local_base) {
            Some(base) => Some(keys.positive("rope.freq_base_swa")?.unwrap_or(base)),
            None => None,
        };
        let is_causal = keys.flag("attention.causal")?.unwrap_or(true);
        if !is_causal && window.is_some() {
            return Err(keys.wrong("attention.causal", "must be true in a model with sliding windows"));
        }
        let is_embedder = !is_causal || !arch.has_head;
        let is_reranker = gguf.is_reranker();
        let usual = if is_reranker { Some(whole(is_causal)) } else { is_embedder.then_some(Pooling::Mean) };
        let output_soft_cap = keys.positive("final_logit_softcapping")?;
        let original = keys.optional_count("rope.scaling.original_context_length", MAX_CONTEXT)?;
        Ok(Spec {
            architecture: arch.name,
            blocks,
            width,
            feed_forward_width: feed_forward_width.unwrap_or(0),
            experts,
            vocab_size: read_vocab_size(gguf)?,
            train_context_length,
            norm: arch.norm,
            layout: arch.layout,
            epsilon: read_epsilon(keys, arch.norm)?,
            activation: arch.activation,
            is_gated: arch.is_gated,
            embedding_scale: if arch.scaled_embedding { (width as f32).sqrt() } else { 1.0 },
            heads,
            window,
            output_soft_cap: output_soft_cap.or(arch.soft_caps.map(|caps| caps.1)),
            pairing: arch.pairing,
            local_rope: local_base.map(|base| rope.local(base)),
            rope,
            original_context_length: original.unwrap_or(train_context_length),
            pooling: read_pooling(keys)?.or(usual),
            is_reranker,
            has_head: arch.has_head,
            is_causal,
        })
    }

    /// The heads of block `at`: its window is its own.
    pub fn heads(&self, at: usize) -> Heads {
        let window = self.window.as_ref().filter(|_| self.is_local(at)).map(|window| window.tokens);
        Heads { window, ..self.heads }
    }

    /// The row that a reranker reads.
    pub fn whole(&self) -> Pooling {
        whole(self.is_causal)
    }

    /// Whether block `at` sees only a window.
    pub fn is_local(&self, at: usize) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_local[at])
    }
}

fn read_epsilon(keys: Keys<'_>, norm: NormKind) -> Result<f32, Error> {
    let key = match norm {
        NormKind::RootMeanSquare => "attention.layer_norm_rms_epsilon",
        NormKind::Layer => "attention.layer_norm_epsilon",
    };
    Ok(keys.positive(key)?.unwrap_or(1e-5))
}

fn read_heads(keys: Keys<'_>, arch: &Arch, blocks: usize, width: usize) -> Result<Heads, Error> {
    const KV_COUNT: &str = "attention.head_count_kv";
    let count = keys.count("attention.head_count", width)?;
    let kv_count = keys.optional_count(KV_COUNT, count)?.unwrap_or(count);
    if count % kv_count != 0 {
        let problem = format!("must divide the {count} heads, got {kv_count}");
        return Err(keys.wrong(KV_COUNT, &problem));
    }
    let key_dim = match keys.optional_count("attention.key_length", MAX_WIDTH)? {
        Some(key_dim) => key_dim,
        None if width.is_multiple_of(count) => width / count,
        None => {
            let problem = format!("must divide the width {width} where there is no key_length, got {count}");
            return Err(keys.wrong("attention.head_count", &problem));
        }
    };
    let scaled_by = if arch.wide_head_blocks == Some(blocks) { width / count } else { key_dim };
    let soft_cap = keys.positive("attn_logit_softcapping")?.or(arch.soft_caps.map(|caps| caps.0));
    Ok(Heads {
        count,
        kv_count,
        key_dim,
        value_dim: keys.optional_count("attention.value_length", MAX_WIDTH)?.unwrap_or(key_dim),
        scale: 1.0 / (scaled_by as f32).sqrt(),
        soft_cap,
        window: None,
    })
}

/// The rows of the token embedding: the one size that no metadata is trusted with.
fn read_vocab_size(gguf: &Gguf) -> Result<usize, Error> {
    let name = "token_embd.weight";
    let tensor = gguf.tensor(name).ok_or_else(|| Error::MissingTensor { name: name.to_owned() })?;
    let rows = tensor.shape.get(1).copied().unwrap_or(1);
    u32::try_from(rows).map(|rows| rows as usize).map_err(|_| Error::WrongShape {
        name: name.to_owned(),
        expected: vec![tensor.shape[0], u64::from(u32::MAX)],
        found: tensor.shape.clone(),
    })
}

/// Which row stands for all: the first where it sees ahead, else the last.
fn whole(is_causal: bool) -> Pooling {
    if is_causal { Pooling::Last } else { Pooling::Cls }
}

fn read_pooling(keys: Keys<'_>) -> Result<Option<Pooling>, Error> {
    match keys.number("pooling_type")? {
        // 4 is ranking, which names no way to make a vector.
        None | Some(0 | 4) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::Cls)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => Err(keys.wrong("pooling_type", &format!("must be between 0 and 4, got {other}"))),
    }
}

#[cfg(test)]
mod tests;
