//! One writer of a name at a time, within this process. The lock across processes is the registry's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::Name;

/// The names that somebody writes or waits to write.
#[derive(Default)]
pub(crate) struct Locks {
    held: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
}

impl Locks {
    /// Waits for the name, whatever its spelling.
    pub(crate) async fn lock(&self, name: &Name) -> OwnedMutexGuard<()> {
        let lock = self.entry(name.full().to_ascii_lowercase());
        lock.lock_owned().await
    }

    fn entry(&self, key: String) -> Arc<AsyncMutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        // Names come from requests: forget those that nobody holds, so that the map has a bound.
        held.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(AsyncMutex::new(()));
        held.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_has_one_holder_and_other_names_do_not_wait() {
        let locks = Locks::default();
        let held = locks.lock(&Name::parse("a").unwrap()).await;
        let _other = locks.lock(&Name::parse("b").unwrap()).await;
        let name = Name::parse("A:LATEST").unwrap();
        let mut waiting = std::pin::pin!(locks.lock(&name));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(held);
        drop(waiting.await);
        let _third = locks.lock(&Name::parse("c").unwrap()).await;
        assert_eq!(locks.held.lock().unwrap().len(), 2, "a lock that nobody holds was kept");
    }
}
