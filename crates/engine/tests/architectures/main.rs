//! Every row of the arch table on small models: against llama.cpp's figures, against itself in other batches, and
//! against files that lie.

mod devices;
mod engines;
mod families;
mod golden;
mod refusals;
mod runs;
mod synthetic;
