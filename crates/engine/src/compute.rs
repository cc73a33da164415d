//! What every kernel is called with: the threads and the instructions of this engine.

use crate::{
    Error,
    kernels::{Cpu, Tier},
    pool::Pool,
};

#[derive(Debug)]
pub(crate) struct Compute {
    pub pool: Pool,
    pub cpu: Cpu,
}

impl Compute {
    pub fn new(threads: usize, tier: Option<Tier>) -> Result<Compute, Error> {
        let tier = tier.unwrap_or_else(Tier::detect);
        let cpu = Cpu::new(tier)
            .ok_or_else(|| Error::Compute(format!("this processor has no {} instructions", tier.name())))?;
        Ok(Compute { pool: Pool::new(threads)?, cpu })
    }
}
