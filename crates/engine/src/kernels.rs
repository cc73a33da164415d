//! The arithmetic, one function each. Plain slices in, plain slices out; nothing here knows a model.
//!
//! Every function adds in an order that depends on its row alone, never on what else is in the batch, on the number
//! of threads or on the tier, and no multiply-add is fused. So a sequence's logits are the same bits whatever runs
//! beside it and on whatever processor.

pub(crate) mod activation;
pub(crate) mod attention;
mod float;
pub(crate) mod layer_norm;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod quantize;
pub(crate) mod rope;
pub(crate) mod route;
mod tier;
pub(crate) mod unpack;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use tier::Cpu;
pub use tier::Tier;
