//! How large a replica becomes: as wished, where the memory allows it.

use api::Error;
use protocol::v1::{LoadOptions, LoadRequest};

use super::{Life, Replicas};
use crate::{
    loader::{Opened, Shape},
    memory::Memory,
};

/// Ollama's floor.
const MIN_CONTEXT: usize = 4;

/// What may be tried, largest first, and what each would take.
type Sizes = Vec<(Shape, u64)>;

/// Opens the model and chooses its shape; the memory is promised to it until it is ready. Blocks.
pub fn plan(
    replicas: &Replicas,
    request: &LoadRequest,
    life: &Life,
) -> Result<(Box<dyn Opened>, Shape), Error> {
    let inner = &replicas.0;
    let (opened, sizes) = open(replicas, request)?;
    let memory = inner.config.gauge.measure();
    // Choosing and promising is one step, or two loads would count on the same memory.
    let mut table = replicas.table();
    let promised = table.reserved_by_others(life.id);
    let (shape, bytes) = choose(&sizes, memory, promised)?;
    if let Some(replica) = table.get_mut(&life.key, life.id) {
        replica.reserved_bytes = bytes;
    }
    Ok((opened, shape))
}

/// Whether a larger twin of a replica would fit into what is free now and what the replica itself takes. Blocks.
pub fn check_reload(replicas: &Replicas, request: &LoadRequest, present_bytes: u64) -> Result<(), Error> {
    let (_, sizes) = open(replicas, request)?;
    let mut memory = replicas.0.config.gauge.measure();
    memory.available_bytes = memory.available_bytes.saturating_add(present_bytes);
    choose(&sizes, memory, replicas.table().reserved_by_others(u64::MAX)).map(drop)
}

/// The model, and the shapes that it may be given.
fn open(replicas: &Replicas, request: &LoadRequest) -> Result<(Box<dyn Opened>, Sizes), Error> {
    let inner = &replicas.0;
    let options = request.options.unwrap_or_default();
    let opened = inner.loader.open(&request.model.clone().unwrap_or_default(), &options)?;
    let wished = wished_context(&options, inner.config.context_length);
    let context_length = wished.min(opened.train_context_length());
    let shapes = shapes(request.num_parallel, inner.loader.automatic_slots(), context_length);
    let sizes = shapes.map(|shape| (shape, opened.size_bytes(shape))).collect();
    Ok((opened, sizes))
}

/// Positions of a slot that a request wants; zero = the worker's default.
pub fn wished_context(options: &LoadOptions, default: usize) -> usize {
    match options.num_ctx {
        0 => default,
        wished => usize::try_from(wished).unwrap_or(usize::MAX),
    }
    .max(MIN_CONTEXT)
}

/// What may be tried, largest first. A number of slots that somebody has set is exact (C2).
fn shapes(num_parallel: u32, automatic: usize, context_length: usize) -> impl Iterator<Item = Shape> {
    let slots = match num_parallel {
        0 => 1..=automatic.max(1),
        wished => wished as usize..=wished as usize,
    };
    slots.rev().map(move |slots| Shape { slots, context_length })
}

/// The first that fits beside what others were promised.
fn choose(sizes: &[(Shape, u64)], memory: Memory, promised: u64) -> Result<(Shape, u64), Error> {
    let available = memory.available_bytes.saturating_sub(promised);
    // On a machine that does not tell, nothing is refused.
    let fits = |bytes: u64| memory.total_bytes == 0 || bytes <= available;
    let smallest = sizes.iter().map(|(_, bytes)| *bytes).min().unwrap_or(0);
    let first = sizes.iter().find(|(_, bytes)| fits(*bytes)).copied();
    first.ok_or_else(|| Error::out_of_memory(smallest, available))
}

#[cfg(test)]
mod tests {
    use api::Code;

    use super::*;

    fn sizes(num_parallel: u32) -> Vec<(Shape, u64)> {
        shapes(num_parallel, 4, 100).map(|shape| (shape, 10 * shape.slots as u64)).collect()
    }

    fn memory(available_bytes: u64) -> Memory {
        Memory { total_bytes: 1_000, available_bytes }
    }

    fn slots(num_parallel: u32, available: u64, promised: u64) -> Result<usize, Code> {
        let chosen = choose(&sizes(num_parallel), memory(available), promised);
        chosen.map(|(shape, _)| shape.slots).map_err(|error| error.code)
    }

    #[test]
    fn the_automatic_number_of_slots_is_as_large_as_memory_allows() {
        assert_eq!(slots(0, 100, 0), Ok(4));
        assert_eq!(slots(0, 39, 0), Ok(3));
        assert_eq!(slots(0, 10, 0), Ok(1));
        assert_eq!(slots(0, 9, 0), Err(Code::OutOfMemory));
    }

    #[test]
    fn a_number_of_slots_that_was_set_is_exact() {
        assert_eq!(slots(7, 70, 0), Ok(7));
        assert_eq!(slots(7, 69, 0), Err(Code::OutOfMemory));
    }

    #[test]
    fn memory_that_others_were_promised_does_not_count() {
        assert_eq!(slots(0, 100, 61), Ok(3));
        assert_eq!(slots(0, 100, u64::MAX), Err(Code::OutOfMemory));
    }

    #[test]
    fn where_nothing_is_known_nothing_is_refused() {
        assert!(choose(&sizes(9), Memory::default(), 0).is_ok());
    }

    #[test]
    fn no_wish_is_the_default_and_a_tiny_wish_the_floor() {
        let options = |num_ctx| LoadOptions { num_ctx, ..LoadOptions::default() };
        assert_eq!(wished_context(&options(0), 4096), 4096);
        assert_eq!(wished_context(&options(1), 4096), 4);
        assert_eq!(wished_context(&options(8192), 4096), 8192);
    }
}
