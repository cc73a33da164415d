//! The engine against llama.cpp, on two real models: the vectors beside this file, and the scripts that made them.

mod files;
mod tokens;
