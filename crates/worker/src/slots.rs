//! The slots of a replica: exactly as many sequences as its engine has room for, and nobody waits for one here (C2).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::changes::Changes;

/// Counts the slots of one replica. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Shared>);

/// One running sequence. It goes with the sequence to the runner's thread, and is dropped there when the engine's own
/// slot is free again.
#[derive(Debug)]
pub struct Slot(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    used: AtomicUsize,
    changes: Changes,
}

// === impl Slots ===

impl Slots {
    pub fn new(total: usize, changes: Changes) -> Slots {
        Slots(Arc::new(Shared { total, used: AtomicUsize::new(0), changes }))
    }

    /// `None` when every slot is taken.
    pub fn take(&self) -> Option<Slot> {
        let more = |used: usize| (used < self.0.total).then_some(used + 1);
        self.0.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        self.0.changes.notify();
        Some(Slot(self.0.clone()))
    }

    pub fn total(&self) -> usize {
        self.0.total
    }

    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        self.0.changes.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_slots_are_given_than_there_are_and_a_dropped_one_is_free_at_once() {
        let slots = Slots::new(2, Changes::default());
        let first = slots.take().unwrap();
        let _second = slots.take().unwrap();
        assert!(slots.take().is_none());
        assert_eq!(slots.used(), 2);
        drop(first);
        assert!(slots.take().is_some());
    }

    #[test]
    fn many_threads_never_get_more_slots_than_there_are() {
        let slots = Slots::new(3, Changes::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let slot = slots.take();
                        assert!(slots.used() <= 3);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(slots.used(), 0);
    }
}
