//! Small seeded checkpoints, as their trainers' libraries would save them: what is made of them computes what a plain
//! reading of those libraries computes, and what lies in them is refused.

#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

mod adapters;
mod eight_bits;
mod encoder;
mod experts;
mod fixture;
mod ggufs;
mod golden;
mod lora;
mod numbers;
mod phi;
mod reference;
mod refusals;
mod tokenizers;
