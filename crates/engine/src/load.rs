//! How a model is loaded, and what that will cost.

use gguf::Gguf;

use crate::{
    Device, Error, Tier, device, pages::pages_for, scheduler::Limits, spec::Spec, transformer::Shape, weights,
};

/// Sequences that one replica runs at once at most: each takes part in every step.
const MAX_SLOTS: usize = 1024;
/// Positions of one slot at most: far above any model, and `MAX_SLOTS` of them still have 32-bit page numbers.
const MAX_CONTEXT_LENGTH: usize = 1 << 26;
/// Prompt tokens of one step at most: scratch memory grows with it.
const MAX_PREFILL_CHUNK: usize = 1 << 14;
const MAX_THREADS: usize = 1024;
/// What the tokenizer's tables take for a token and for a merge rule, and what the header's twin of either leaves in
/// the allocator when the file is closed: measured, see `tests/memory.rs`.
const BYTES_PER_TOKEN: u64 = 60;
const BYTES_PER_MERGE: u64 = 80;
/// Guessed tokens of one step at most: each has scores for the whole vocabulary.
const MAX_GUESSES: usize = 256;

/// How to load a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Sequences that run at once.
    pub slots: usize,
    /// Positions of each slot; what the model was trained for if that is less.
    pub context_length: usize,
    pub threads: usize,
    /// Prompt tokens of one step at most, over all sequences; fewer while others wait for their next token. Scratch
    /// memory grows with it, and how long a cancel may take.
    pub prefill_chunk: usize,
    /// Memory of the KV cache at most; `None` = as much as the contexts of all slots need. With less, sequences are
    /// computed again when it runs out, and one that cannot have enough is refused.
    pub kv_bytes: Option<u64>,
    pub kv_type: KvType,
    /// Guessed tokens of one step at most, over all sequences, that are checked along with the next ones; 0 = nothing
    /// is guessed. What is said never depends on it, and none are guessed where that does not pay.
    pub guesses: usize,
    pub device: Device,
    /// The instructions to use; `None` = the best that the processor has.
    pub tier: Option<Tier>,
}

/// How the KV cache keeps a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// A byte, with a scale for each position and head: about half of the memory.
    Q8_0,
}

/// Memory that a loaded model uses at most, of the device that it is loaded to. What the host of a GPU has beside that,
/// the embedding and the tokenizer, is not counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub weights_bytes: u64,
    /// The KV cache. It is taken page by page as sequences grow, and then kept.
    pub kv_bytes: u64,
    /// Rows of one step, and its logits.
    pub scratch_bytes: u64,
    pub tokenizer_bytes: u64,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            slots: 1,
            context_length: 4096,
            threads: 1,
            prefill_chunk: 512,
            kv_bytes: None,
            kv_type: KvType::F16,
            guesses: 16,
            device: Device::Cpu,
            tier: None,
        }
    }
}

impl LoadOptions {
    /// Fails on what no engine can be loaded with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let bounds = [
            ("slots", "between 1 and 1024", self.slots, MAX_SLOTS),
            ("context_length", "between 1 and 67108864", self.context_length, MAX_CONTEXT_LENGTH),
            ("threads", "between 1 and 1024", self.threads, MAX_THREADS),
            ("prefill_chunk", "between 1 and 16384", self.prefill_chunk, MAX_PREFILL_CHUNK),
        ];
        if self.guesses > MAX_GUESSES {
            let bound = "at most 256";
            return Err(Error::InvalidOption { option: "guesses", bound, value: self.guesses });
        }
        match bounds.into_iter().find(|&(.., value, bound)| value == 0 || value > bound) {
            None => Ok(()),
            Some((option, bound, value, _)) => Err(Error::InvalidOption { option, bound, value }),
        }
    }

    pub(crate) fn limits(&self, spec: &Spec) -> Limits {
        let context_length = self.context_length.min(spec.train_context_length);
        let all = self.slots * pages_for(context_length);
        let page_bytes = match self.device {
            Device::Cpu => Shape::of(spec, self.kv_type).page_bytes(),
            Device::Cuda(_) | Device::CandleCpu => device::page_bytes(spec),
        } as u64;
        let bound = self.kv_bytes.map_or(all as u64, |bytes| bytes / page_bytes.max(1));
        let pages = usize::try_from(bound).unwrap_or(usize::MAX).clamp(1, all);
        let LoadOptions { slots, guesses, .. } = *self;
        let chunk = if spec.is_causal { self.prefill_chunk } else { context_length };
        Limits { slots, context_length, chunk, pages, page_bytes, guesses }
    }
}

impl Estimate {
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes + self.kv_bytes + self.scratch_bytes + self.tokenizer_bytes
    }

    pub(crate) fn of(gguf: &Gguf, spec: &Spec, device: Device, limits: Limits) -> Estimate {
        let weights_bytes = match device {
            Device::Cpu => weights::packed_bytes(gguf),
            Device::Cuda(_) | Device::CandleCpu => weights::total_bytes(gguf),
        };
        let floats = |count: usize| count as u64 * size_of::<f32>() as u64;
        let items = |key: &str| {
            let value = gguf.metadata.get(&format!("tokenizer.ggml.{key}"));
            value.and_then(gguf::Value::as_array).map_or(0, |array| array.len() as u64)
        };
        let heads = spec.heads;
        let query = heads.count * heads.key_dim + heads.kv_count * (heads.key_dim + heads.value_dim);
        // The stream, a branch's input and update, attention's parts, the gated unit's two; inputs once more as bytes.
        let row = 3 * spec.width + query + heads.count * heads.value_dim + feed_forward_row(spec);
        let rows = limits.chunk + limits.slots + limits.guesses;
        Estimate {
            weights_bytes,
            kv_bytes: limits.pages as u64 * limits.page_bytes,
            scratch_bytes: floats(rows * row) * 5 / 4
                + floats((limits.slots + limits.guesses) * spec.vocab_size),
            tokenizer_bytes: items("tokens") * BYTES_PER_TOKEN + items("merges") * BYTES_PER_MERGE,
        }
    }
}

/// Floats of a row that a feed-forward branch has at most.
fn feed_forward_row(spec: &Spec) -> usize {
    let Some(experts) = spec.experts else { return 2 * spec.feed_forward_width };
    // Its scores; and where all rows go to one expert, each is gathered and has a result.
    experts.count + 2 * spec.width + 2 * experts.width.max(experts.shared_width)
}

/// What loading `gguf` with `options` would use, without loading it.
pub fn estimate(gguf: &Gguf, options: &LoadOptions) -> Result<Estimate, Error> {
    options.check()?;
    let spec = Spec::read(gguf)?;
    Ok(Estimate::of(gguf, &spec, options.device, options.limits(&spec)))
}
