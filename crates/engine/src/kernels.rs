//! The arithmetic, one function each. Plain slices in, plain slices out; nothing here knows a model.
//!
//! Every function adds in an order that depends on its row alone, never on what else is in the batch, on the number
//! of threads or on the tier; where a multiply-add is fused it is fused on every tier. So a sequence's logits are the
//! same bits whatever runs beside it and on whatever processor.

pub(crate) mod activation;
pub(crate) mod attention;
mod blocks;
pub(crate) mod float;
mod lanes;
pub(crate) mod layer_norm;
mod layout;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod packed;
pub(crate) mod rope;
pub(crate) mod route;
pub(crate) mod rows;
mod tier;
mod tile;

pub(crate) use tier::Cpu;
pub use tier::Tier;
