//! The admin port: `/livez`, `/readyz` and `/metrics`, apart from the API so that it needs no key and is never exposed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::CONTENT_TYPE;
use crate::{Metrics, Shutdown};
use crate::http::{self, Bounds};

/// What must hold before this process takes requests, by name; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Conditions>>);

/// Name to what is missing; `None` is met.
type Conditions = BTreeMap<&'static str, Option<String>>;

/// One thing that must hold. Whoever knows whether it does keeps this.
#[derive(Debug)]
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

#[derive(Clone, Debug)]
struct Admin {
    readiness: Readiness,
    shutdown: Shutdown,
    metrics: Metrics,
}

/// Serve it until [`Shutdown::stop_token`], not just until the drain: what watches this process wants to see it drain.
pub fn router(readiness: Readiness, shutdown: Shutdown, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { readiness, shutdown, metrics })
}

/// Serves [`router`] as a task of `shutdown` on a listener that the caller has bound.
pub fn serve(listener: tokio::net::TcpListener, readiness: Readiness, shutdown: &Shutdown, metrics: Metrics) {
    let router = router(readiness, shutdown.clone(), metrics);
    let stop = shutdown.stop_token();
    shutdown.support("admin port", async move {
        http::serve(listener, router, Bounds { connections: CONNECTIONS, ..Bounds::default() }, stop).await;
    });
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.shutdown.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    match admin.readiness.missing() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing),
    }
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.text())
}

// === impl Readiness ===

impl Readiness {
    /// Adds a condition, not met yet. Add them all before the port opens: without any, a process is ready.
    pub fn condition(&self, name: &'static str) -> Condition {
        let condition = Condition { name, readiness: self.clone() };
        condition.set_missing("starting");
        condition
    }

    /// One line for each condition that is not met.
    pub fn missing(&self) -> Option<String> {
        let conditions = self.lock();
        let missing = conditions.iter().filter_map(|(name, missing)| Some((name, missing.as_ref()?)));
        let lines: String = missing.map(|(name, missing)| format!("{name}: {missing}\n")).collect();
        (!lines.is_empty()).then_some(lines)
    }

    /// No lock is held while anything could panic.
    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Condition ===

impl Condition {
    pub fn set_met(&self) {
        self.readiness.lock().insert(self.name, None);
    }

    pub fn set_missing(&self, reason: impl Into<String>) {
        self.readiness.lock().insert(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::shutdown::Limits;

    /// A running admin port.
    struct Fixture {
        address: std::net::SocketAddr,
        readiness: Readiness,
        shutdown: Shutdown,
    }

    async fn started() -> Fixture {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
        let address = listener.local_addr().unwrap();
        serve(listener, readiness.clone(), &shutdown, Metrics::new("test", "0"));
        Fixture { address, readiness, shutdown }
    }

    impl Fixture {
        /// Status line, headers and body.
        async fn get(&self, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn a_process_is_ready_when_every_condition_is_met() {
        let fixture = started().await;
        let registry = fixture.readiness.condition("registry");
        let store = fixture.readiness.condition("store");
        store.set_met();
        let answer = fixture.get("/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\nregistry: starting\n"),
            "{answer}"
        );
        registry.set_met();
        assert!(fixture.get("/readyz").await.starts_with("HTTP/1.1 200 "));
        registry.set_missing("no view for 30 s");
        assert!(fixture.get("/readyz").await.ends_with("registry: no view for 30 s\n"));
    }

    #[tokio::test]
    async fn a_draining_process_is_alive_and_not_ready_until_it_stops() {
        let fixture = started().await;
        let request = fixture.shutdown.serve("request", std::future::pending::<()>());
        fixture.shutdown.begin();
        let answer = fixture.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
        assert!(fixture.get("/livez").await.starts_with("HTTP/1.1 200 "));
        request.abort();
        let limits = Limits { drain: Duration::from_secs(5), stop: Duration::from_secs(5) };
        assert_eq!(fixture.shutdown.ended(limits).await, Ok(()));
        assert!(TcpStream::connect(fixture.address).await.is_err());
    }

    #[tokio::test]
    async fn metrics_are_told_in_the_format_of_prometheus() {
        let answer = started().await.get("/metrics").await;
        assert!(answer.contains(&format!("content-type: {CONTENT_TYPE}\r\n")), "{answer}");
        assert!(answer.contains("caravan_build_info{role=\"test\",version=\"0\"} 1\n"), "{answer}");
    }
}
