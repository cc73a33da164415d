//! The admin port: `/livez`, `/readyz` and `/metrics`, apart from the API so that it needs no key and is never exposed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::get;
use percent_encoding::percent_decode_str;

use crate::http::{self, Bounds};
use crate::metrics::CONTENT_TYPE;
use crate::{Metrics, Shutdown};

/// Nobody but an orchestrator and a scraper or two comes here.
const CONNECTIONS: usize = 64;

/// What must hold before this process takes requests, by name; clones share it.
#[derive(Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<Conditions>>,
    models: Arc<OnceLock<Models>>,
}

/// Tells whether a model is loaded, and why not.
type Models = Box<dyn Fn(String) -> Asked + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = api::Result<()>> + Send>>;

/// Name to what is missing; `None` is met.
type Conditions = BTreeMap<&'static str, Option<String>>;

/// One thing that must hold. Whoever knows whether it does keeps this.
pub struct Condition {
    name: &'static str,
    readiness: Readiness,
}

#[derive(Clone)]
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

/// With `?model=NAME`: whether that model is loaded besides.
async fn readyz(State(admin): State<Admin>, uri: Uri) -> impl IntoResponse {
    if admin.shutdown.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    }
    if let Some(missing) = admin.readiness.missing() {
        return (StatusCode::SERVICE_UNAVAILABLE, missing);
    }
    let ready = match model(&uri) {
        Some(model) => admin.readiness.check_model(model).await,
        None => Ok(()),
    };
    match ready {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => {
            let status = StatusCode::from_u16(error.code.http_status()).unwrap_or_default();
            (status, format!("{error}\n"))
        }
    }
}

/// The first `model` of the query.
fn model(uri: &Uri) -> Option<String> {
    let value = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("model="))?;
    Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
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

    /// From now on `asked` is asked about single models. Once: the second one is nobody's.
    pub fn ask_about_models<F>(&self, asked: impl Fn(String) -> F + Send + Sync + 'static)
    where
        F: Future<Output = api::Result<()>> + Send + 'static,
    {
        let _ = self.models.set(Box::new(move |model| Box::pin(asked(model))));
    }

    async fn check_model(&self, model: String) -> api::Result<()> {
        match self.models.get() {
            Some(asked) => asked(model).await,
            None => Err(api::Error::invalid("a worker knows no model by its name, ask a gateway")),
        }
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
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn a_process_can_be_asked_about_one_model() {
        let fixture = started().await;
        let answer = fixture.get("/readyz?model=m").await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ")
                && answer.ends_with("\r\n\r\na worker knows no model by its name, ask a gateway\n"),
            "{answer}"
        );
        fixture.readiness.ask_about_models(async |model| match model.as_str() {
            "hf.co/a/b c:8b" => Ok(()),
            other => Err(api::Error::unavailable(format!("{other:?} is not loaded"))),
        });
        assert!(fixture.get("/readyz?a=b&model=hf.co/a%2Fb+c:8b").await.starts_with("HTTP/1.1 200 "));
        assert!(fixture.get("/readyz").await.starts_with("HTTP/1.1 200 "));
        let answer = fixture.get("/readyz?model=%ff").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("\"\u{fffd}\" is not loaded\n"),
            "{answer}"
        );
        // Who is not ready at all is not ready for any model.
        fixture.readiness.condition("worker").set_missing("none");
        assert!(fixture.get("/readyz?model=hf.co/a/b+c:8b").await.ends_with("worker: none\n"));
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
