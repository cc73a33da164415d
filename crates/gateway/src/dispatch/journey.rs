//! One request on its way to a worker: what it has met so far, and when it gives up.

use std::time::{Duration, Instant};

use api::{Code, Error, Result};

use crate::admission::Pass;
use crate::cluster::{Cluster, Link};

use super::Route;

/// How often a request may be sent back by workers that died or had nothing loaded. Each time has a cause that
/// somebody should see; a request that meets this many is better told.
const MAX_SETBACKS: u32 = 8;
/// A worker that failed is avoided by the same request until its connection is a new one, or for this long: when
/// only one stream broke, the connection stays.
const AVOID_FOR: Duration = Duration::from_secs(5);

pub struct Journey {
    pub(super) pass: Pass,
    pub(super) began: Instant,
    /// Spent in loads.
    pub(super) loaded: Duration,
    setbacks: u32,
    /// It had its turn and was sent back.
    pub(super) returns: bool,
    pub(super) standing: Standing,
    /// Since when no worker can be reached.
    pub(super) alone_since: Option<tokio::time::Instant>,
}

/// What a request has met, as far as placement asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    pub avoid: Avoided,
    /// A replica was loaded for its sake, so a context that is still too small is the most there is.
    pub has_loaded: bool,
    /// It has waited so long that busy replicas make room.
    pub is_overdue: bool,
    /// Models that others have waited for longer.
    pub elders: Vec<String>,
}

/// Workers that this request has failed on. Others find out for themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct Avoided {
    failures: Vec<(Link, tokio::time::Instant)>,
}

impl Journey {
    pub fn new() -> Journey {
        Journey {
            pass: Pass::None,
            began: Instant::now(),
            loaded: Duration::ZERO,
            setbacks: 0,
            returns: false,
            standing: Standing::default(),
            alone_since: None,
        }
    }

    /// Of a request whose worker was lost in the middle of the answer.
    pub fn interrupted(lost: Link) -> Journey {
        let mut journey = Journey { pass: Pass::Interrupted, returns: true, ..Journey::new() };
        journey.standing.avoid.add(lost);
        journey
    }

    pub(super) fn route(&self, worker: String) -> Route {
        let queued = self.began.elapsed().saturating_sub(self.loaded);
        Route { worker, queued, loaded: self.loaded, ..Route::default() }
    }

    /// Whether to go on after a worker, or the way to it, said no.
    pub(super) fn sent_back(&mut self, link: Option<Link>, error: Error) -> Result<()> {
        self.returns = true;
        match error.code {
            // Not counted: this is waiting, and waiting has its own bound.
            Code::Busy | Code::NoPermit => return Ok(()),
            Code::Unavailable | Code::NotLoaded => {}
            _ => return Err(error),
        }
        self.setbacks += 1;
        let worker = link.as_ref().map_or("none", |link| link.worker.as_str());
        if self.setbacks >= MAX_SETBACKS {
            let text =
                format!("gave up after {MAX_SETBACKS} attempts, the last on worker `{worker}`: {error}");
            return Err(Error::unavailable(text));
        }
        tracing::info!(worker, code = error.code.name(), %error, "sent back, trying again");
        if let Some(link) = link.filter(|_| error.code == Code::Unavailable) {
            self.standing.avoid.add(link);
        }
        Ok(())
    }
}

// === impl Avoided ===

impl Avoided {
    /// No more often than a request is sent back, which is bounded.
    fn add(&mut self, link: Link) {
        self.failures.push((link, tokio::time::Instant::now()));
    }

    /// Those that are still to be avoided.
    pub(super) fn active(&self, cluster: &Cluster) -> Vec<String> {
        let failed = self.failures.iter().filter(|(link, at)| {
            at.elapsed() < AVOID_FOR && cluster.link(&link.worker).as_ref() == Some(link)
        });
        failed.map(|(link, _)| link.worker.clone()).collect()
    }
}
