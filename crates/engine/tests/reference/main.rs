//! The engine against llama.cpp, on three real models: the vectors beside this file, and the scripts that made them.

#![allow(clippy::print_stdout, reason = "the figures are what these tests are for")]

mod embeddings;
mod files;
mod logits;
mod tokens;
