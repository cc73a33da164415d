//! The route table: which paths there are, with which methods, and what surrounds every request.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter};
use http::Uri;
use tower::Layer;
use tower::util::MapRequestLayer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::guard::{self, Guard};
use crate::keys;
use crate::routes::{
    anthropic, audio, blobs, bundle, chat, cloud, create, embed, generate, manage, openai, rerank, status,
    transfer,
};
use crate::{call, respond};

type Methods = MethodRouter<Arc<App>>;

const GET: MethodFilter = MethodFilter::GET;
const HEAD: MethodFilter = MethodFilter::HEAD;
const POST: MethodFilter = MethodFilter::POST;
const DELETE: MethodFilter = MethodFilter::DELETE;

/// All routes, ready to serve. The paths are forgiving: `//api/tags/` is `/api/tags`, and so is `/k/KEY/api/tags`.
pub fn router(app: Arc<App>, guard: Guard) -> Router {
    let mut routes = native(cloud_routes(openai_routes(rerank_routes(Router::new()))))
        .fallback(|| async { respond::not_found() });
    if let Some(keys) = app.config.keys.clone() {
        routes = routes.layer(middleware::from_fn_with_state(keys, keys::check));
    }
    let routes = routes
        .layer(CatchPanicLayer::custom(respond::panicked))
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
        .layer(middleware::from_fn(call::begin))
        .with_state(app);
    // A layer of the inner router would come after routing, too late to change the path.
    Router::new().fallback_service(
        MapRequestLayer::new(|request| keys::take_from_path(forgive(request))).layer(routes),
    )
}

fn native(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .route("/", only("GET, HEAD", Methods::new().on(GET, status::running).on(HEAD, status::running)))
        .route(
            "/api/version",
            only("GET, HEAD", Methods::new().on(GET, status::version).on(HEAD, status::version)),
        )
        .route("/api/tags", only("GET, HEAD", Methods::new().on(GET, manage::tags).on(HEAD, manage::tags)))
        .route("/api/ps", only("GET", without_head(Methods::new().on(GET, manage::ps), "GET")))
        .route("/api/show", only("POST", Methods::new().on(POST, manage::show)))
        .route("/api/copy", only("POST", Methods::new().on(POST, manage::copy)))
        .route("/api/delete", only("DELETE", Methods::new().on(DELETE, manage::delete)))
        .route("/api/create", only("POST", Methods::new().on(POST, create::create)))
        .route("/api/save", only("POST", Methods::new().on(POST, bundle::save)))
        .route("/api/load", only("POST", Methods::new().on(POST, bundle::load)))
        .route("/api/pull", only("POST", Methods::new().on(POST, transfer::pull)))
        .route("/api/push", only("POST", Methods::new().on(POST, transfer::push)))
        .route(
            "/api/blobs/{digest}",
            only("HEAD, POST", Methods::new().on(POST, blobs::upload).on(HEAD, blobs::exists)),
        )
        .route("/api/generate", only("POST", Methods::new().on(POST, generate::generate)))
        .route("/api/chat", only("POST", Methods::new().on(POST, chat::chat)))
        .route("/api/embed", only("POST", Methods::new().on(POST, embed::embed)))
        .route("/api/embeddings", only("POST", Methods::new().on(POST, embed::embeddings)))
}

/// What Ollama has for ollama.com.
fn cloud_routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .route("/api/status", only("GET", without_head(Methods::new().on(GET, cloud::status), "GET")))
        .route("/api/me", only("POST", Methods::new().on(POST, cloud::me)))
        .route("/api/signout", only("POST", Methods::new().on(POST, cloud::sign_out)))
        .route("/api/user/keys/{key}", only("DELETE", Methods::new().on(DELETE, cloud::sign_out)))
        .route("/api/experimental/web_search", only("POST", Methods::new().on(POST, cloud::web_search)))
        .route("/api/experimental/web_fetch", only("POST", Methods::new().on(POST, cloud::web_fetch)))
        .route(
            "/api/experimental/model-recommendations",
            only("GET", without_head(Methods::new().on(GET, cloud::recommendations), "GET")),
        )
}

/// The routes of other APIs.
fn openai_routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .route("/v1/responses", only("POST", Methods::new().on(POST, openai::responses)))
        .route("/v1/audio/transcriptions", only("POST", Methods::new().on(POST, audio::transcriptions)))
        .route("/v1/messages", only("POST", Methods::new().on(POST, anthropic::messages)))
        .route("/v1/chat/completions", only("POST", Methods::new().on(POST, openai::chat_completions)))
        .route("/v1/completions", only("POST", Methods::new().on(POST, openai::completions)))
        .route("/v1/embeddings", only("POST", Methods::new().on(POST, openai::embeddings)))
        .route("/v1/models", only("GET", without_head(Methods::new().on(GET, openai::models), "GET")))
        .route("/v1/models/{model}", only("GET", without_head(Methods::new().on(GET, openai::model), "GET")))
}

/// Ollama has none. Clients join their base addresses, with and without a version, and one of these paths.
fn rerank_routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .route("/rerank", only("POST", Methods::new().on(POST, rerank::first)))
        .route("/v1/rerank", only("POST", Methods::new().on(POST, rerank::first)))
        .route("/v2/rerank", only("POST", Methods::new().on(POST, rerank::second)))
        .route("/v1/v2/rerank", only("POST", Methods::new().on(POST, rerank::second)))
        .route("/api/rerank", only("POST", Methods::new().on(POST, rerank::native)))
}

/// Any other method is answered as Ollama's router answers it.
fn only(allow: &'static str, methods: Methods) -> Methods {
    methods.fallback(move || async move { respond::method_not_allowed(allow) })
}

/// axum serves HEAD with the handler of GET unless told otherwise.
fn without_head(methods: Methods, allow: &'static str) -> Methods {
    methods.on(HEAD, move || async move { respond::method_not_allowed(allow) })
}

/// Collapses double slashes and drops the one at the end, for clients join base addresses and paths carelessly, and takes
/// a letter that is written as its number for what it is, as Ollama's router does.
fn forgive(mut request: Request) -> Request {
    let path = request.uri().path();
    if !path.contains("//") && !path.contains('%') && (path.len() < 2 || !path.ends_with('/')) {
        return request;
    }
    let mut clean = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(&plain(segment));
    }
    if clean.is_empty() {
        clean.push('/');
    }
    if let Some(query) = request.uri().query() {
        clean.push('?');
        clean.push_str(query);
    }
    if let Some(uri) = with_path(request.uri(), &clean) {
        *request.uri_mut() = uri;
    }
    request
}

/// The same address with another path and query; `None` when that is none.
pub fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// `%61` is `a`, but only what needs no such number (RFC 3986, section 2.3) loses it: `%2F` is no slash.
fn plain(segment: &str) -> String {
    let mut parts = segment.split('%');
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                clean.push(char::from(byte));
                clean.push_str(&part[2..]);
            }
            None => {
                clean.push('%');
                clean.push_str(part);
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn careless_paths_are_forgiven_and_careful_ones_kept() {
        for (given, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/api/tags", "/api/tags"),
            ("/api/tags/", "/api/tags"),
            ("//api///tags//?a=b//c", "/api/tags?a=b//c"),
            ("/api/blobs/sha256:aa/", "/api/blobs/sha256:aa"),
            ("/%61pi/t%61g%73?a=%61", "/api/tags?a=%61"),
            ("/v1/models/a%2Fb%2f%20c%7E", "/v1/models/a%2Fb%2f%20c~"),
            ("/a%2", "/a%2"),
            ("/a%+1b%%61%é", "/a%+1b%a%é"),
            ("http://a.example//api/%74ags/", "http://a.example/api/tags"),
        ] {
            let request = Request::builder().uri(given).body(axum::body::Body::empty()).unwrap();
            assert_eq!(forgive(request).uri(), expected, "{given}");
        }
    }
}
