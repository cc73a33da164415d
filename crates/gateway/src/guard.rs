//! Who may talk to this gateway from a browser: Ollama's `Host` check against DNS rebinding, and CORS.
//!
//! Programs that are no browsers send no `Origin` and pass. API keys are another matter and live elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

const METHODS: HeaderValue = HeaderValue::from_static("GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS");
/// Seconds: twelve hours, as Ollama says.
const MAX_AGE: HeaderValue = HeaderValue::from_static("43200");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,x-stainless-arch,\
     x-stainless-async,x-stainless-custom-poll-interval,x-stainless-helper-method,x-stainless-lang,\
     x-stainless-os,x-stainless-package-version,x-stainless-poll-helper,x-stainless-retry-count,\
     x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout",
);
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// The rules, parsed.
#[derive(Clone, Debug)]
pub struct Guard {
    origins: Vec<Rule>,
    /// Only a loopback listener checks `Host`: others are meant to be reached by name.
    check_host: bool,
    host_name: String,
}

/// One allowed origin; `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Any,
    Exact(String),
    Around { prefix: String, suffix: String },
}

/// Why an `OLLAMA_ORIGINS` entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("origin `{0}` must have at most one `*`")]
    Wildcards(String),
    #[error(
        "bad origin `{0}`: origins must contain '*' or start with http://, https:// or an extension scheme"
    )]
    Scheme(String),
}

impl Guard {
    /// `extra` are the entries of `OLLAMA_ORIGINS`, which come before Ollama's own list.
    pub fn new(extra: &[String], listen: SocketAddr, host_name: String) -> Result<Guard, Error> {
        let mut origins = extra.iter().map(|text| Rule::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for host in ["localhost", "127.0.0.1", "0.0.0.0"] {
            for scheme in ["http", "https"] {
                origins.push(Rule::Exact(format!("{scheme}://{host}")));
                origins.push(Rule::Around { prefix: format!("{scheme}://{host}:"), suffix: String::new() });
            }
        }
        for scheme in ["app", "file", "tauri", "vscode-webview", "vscode-file"] {
            origins.push(Rule::Around { prefix: format!("{scheme}://"), suffix: String::new() });
        }
        Ok(Guard { origins, check_host: listen.ip().is_loopback(), host_name })
    }

    /// What the address itself says, on HTTP/2 and before a proxy, goes before the header, which then means nothing.
    fn allows_target(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        match authority(uri) {
            Some(host) => !self.check_host || self.allows(host),
            None => self.allows_host(headers),
        }
    }

    fn allows_host(&self, headers: &HeaderMap) -> bool {
        // Who sends several could have the one checked and another believed.
        !self.check_host || headers.get_all(HOST).iter().all(|host| self.allows(host.to_str().unwrap_or("?")))
    }

    fn allows(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        if name.is_empty() {
            return true;
        }
        if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return is_near(address) || is_own(address);
        }
        let local = [".localhost", ".local", ".internal"];
        name == "localhost"
            || name == self.host_name.to_ascii_lowercase()
            || local.iter().any(|suffix| name.ends_with(suffix))
    }

    /// The value of `Access-Control-Allow-Origin`, or `None` for an origin that is not allowed.
    fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.origins.contains(&Rule::Any) {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|rule| rule.matches(text)).then(|| origin.clone())
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Rule, Error> {
        const SCHEMES: [&str; 6] = [
            "http://",
            "https://",
            "chrome-extension://",
            "safari-extension://",
            "moz-extension://",
            "ms-browser-extension://",
        ];
        if text == "*" {
            return Ok(Rule::Any);
        }
        match text.split_once('*') {
            Some((_, suffix)) if suffix.contains('*') => Err(Error::Wildcards(text.to_owned())),
            Some((prefix, suffix)) => {
                Ok(Rule::Around { prefix: prefix.to_lowercase(), suffix: suffix.to_lowercase() })
            }
            None if SCHEMES.iter().any(|scheme| text.starts_with(scheme)) => {
                Ok(Rule::Exact(text.to_lowercase()))
            }
            None => Err(Error::Scheme(text.to_owned())),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        let origin = origin.to_lowercase();
        match self {
            Rule::Any => true,
            Rule::Exact(text) => *text == origin,
            Rule::Around { prefix, suffix } => {
                origin.len() >= prefix.len() + suffix.len()
                    && origin.starts_with(prefix.as_str())
                    && origin.ends_with(suffix.as_str())
            }
        }
    }
}

/// The layer: 403 without a body for what is not allowed, 204 for questions of browsers, headers on the rest.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let (uri, headers) = (request.uri(), request.headers());
    if !guard.allows_target(uri, headers) {
        tracing::debug!(%uri, host = ?headers.get(HOST), "refused a host name that is not ours");
        return StatusCode::FORBIDDEN.into_response();
    }
    let is_question = request.method() == Method::OPTIONS;
    let Some(origin) = headers.get(ORIGIN).filter(|origin| !is_same(origin, uri, headers)) else {
        // Bound to loopback, Ollama answers a bare OPTIONS itself; elsewhere its router does.
        if is_question && guard.check_host {
            return StatusCode::NO_CONTENT.into_response();
        }
        return next.run(request).await;
    };
    let Some(allowed) = guard.allowed_origin(origin) else {
        tracing::debug!(?origin, "refused an origin that is not allowed");
        return StatusCode::FORBIDDEN.into_response();
    };
    if is_question {
        let headers: [(HeaderName, HeaderValue); 5] = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, allowed),
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            (VARY, VARY_PREFLIGHT),
        ];
        return (StatusCode::NO_CONTENT, headers).into_response();
    }
    let mut response = next.run(request).await;
    if allowed != "*" {
        response.headers_mut().append(VARY, VARY_ORIGIN);
    }
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    response
}

/// The name in the address, without what some put before it.
fn authority(uri: &Uri) -> Option<&str> {
    let authority = uri.authority()?.as_str();
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

fn is_same(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let host = authority(uri).or_else(|| headers.get(HOST)?.to_str().ok());
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else { return false };
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            // `::1` has colons and no port; `[::1]:80` has both.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Addresses that no stranger's DNS name can make a browser trust: this machine's and its network's.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unspecified(),
    }
}

/// Whether the address is one of this machine's, which is what can be bound. Asked each time: interfaces come and go.
fn is_own(address: IpAddr) -> bool {
    // Anybody may bind these.
    let is_for_many = address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !is_for_many && UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(extra: &[&str]) -> Guard {
        let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        Guard::new(&extra, "127.0.0.1:0".parse().unwrap(), "Box".into()).unwrap()
    }

    fn host(name: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, name.parse().unwrap())])
    }

    #[test]
    fn a_loopback_listener_answers_only_to_names_of_its_own() {
        let guard = guard(&[]);
        for name in
            ["localhost:11434", "127.0.0.1", "[::1]:80", "::1", "10.1.2.3:5", "0.0.0.0", "box", "a.local", ""]
        {
            assert!(guard.allows_host(&host(name)), "{name}");
        }
        for name in ["example.com", "8.8.8.8:80", "localhost.example.com", "evil", "[2001:db8::1]:80"] {
            assert!(!guard.allows_host(&host(name)), "{name}");
        }
        let mut two = host("localhost");
        two.append(HOST, "example.com".parse().unwrap());
        assert!(!guard.allows_host(&two));
        let open = Guard::new(&[], "0.0.0.0:0".parse().unwrap(), String::new()).unwrap();
        assert!(open.allows_host(&host("example.com")));
    }

    /// The address from which this machine would speak to the world, where it could.
    fn outward() -> Option<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        // Nothing is sent: the system only chooses a route.
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    #[test]
    fn a_loopback_listener_answers_to_every_address_of_the_machine() {
        for own in ["127.0.0.1", "127.9.9.9"].map(|text| text.parse().unwrap()).into_iter().chain(outward()) {
            assert!(is_own(own), "{own}");
            assert!(guard(&[]).allows_host(&host(&format!("{own}:11434"))), "{own}");
        }
        // Two kept for documentation, which nobody has, and three that everybody has.
        for other in ["192.0.2.1", "2001:db8::1", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
        for name in ["box", "BOX:11434"] {
            assert!(guard(&[]).allows_host(&host(name)), "{name}");
        }
    }

    #[test]
    fn the_address_goes_before_the_header() {
        let (guard, ours, origin) = (guard(&[]), host("localhost"), |text| HeaderValue::from_static(text));
        for (uri, is_ours) in [
            ("/api/tags", true),
            ("http://localhost:80/api/tags", true),
            ("http://evil.example/api/tags", false),
            ("https://localhost@evil.example:80/", false),
        ] {
            assert_eq!(guard.allows_target(&uri.parse().unwrap(), &ours), is_ours, "{uri}");
        }
        assert!(guard.allows_target(&"http://localhost/".parse().unwrap(), &host("evil.example")));
        assert!(!guard.allows_target(&Uri::default(), &host("evil.example")));
        let there = "http://a.b:1/".parse().unwrap();
        assert!(
            is_same(&origin("https://a.b:1"), &there, &ours)
                && !is_same(&origin("https://a.b"), &there, &ours)
        );
        assert!(is_same(&origin("http://localhost"), &Uri::default(), &ours));
        assert!(!is_same(&origin("http://localhost"), &there, &ours));
    }

    #[test]
    fn origins_are_ollamas_and_the_configured_ones() {
        let guard = guard(&["https://*.corp.example", "chrome-extension://abc"]);
        let allows = |text: &str| guard.allowed_origin(&text.parse().unwrap()).is_some();
        for origin in [
            "http://localhost",
            "https://127.0.0.1:3000",
            "app://anything",
            "https://chat.corp.example",
            "chrome-extension://abc",
        ] {
            assert!(allows(origin), "{origin}");
        }
        for origin in ["https://example.com", "http://localhost.example.com", "https://.corp.exampl", "null"]
        {
            assert!(!allows(origin), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_everybody_and_bad_rules_are_named() {
        let open = guard(&["*"]);
        assert_eq!(open.allowed_origin(&"https://x.y".parse().unwrap()).unwrap(), "*");
        assert_eq!(Rule::parse("http://*.*"), Err(Error::Wildcards("http://*.*".into())));
        assert_eq!(Rule::parse("ftp://x"), Err(Error::Scheme("ftp://x".into())));
    }
}
