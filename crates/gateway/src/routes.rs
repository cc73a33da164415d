//! The handlers, one module per noun. Each reads a request, asks the parts that know, and shapes the answer;
//! none writes a status number.

pub mod anthropic;
pub mod audio;
pub mod blobs;
pub mod bundle;
pub mod chat;
pub mod cloud;
pub mod create;
pub mod embed;
pub mod generate;
pub mod manage;
pub mod openai;
pub mod rerank;
pub mod status;
pub mod transfer;
