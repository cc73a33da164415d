//! The engine against llama.cpp, on two real models: the vectors beside this file, and the scripts that made them.

#![allow(clippy::print_stdout, reason = "the figures are what these tests are for")]

mod files;
mod logits;
mod tokens;
