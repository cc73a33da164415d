//! `OLLAMA_HOST` and `--listen`: where a server listens and where a client finds it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// `[scheme://][user:password@][host][:port][/path]`, with Ollama's defaults. Shown, it has no user and no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Host {
    scheme: String,
    /// As it stands in the URL; empty is nobody.
    user_info: String,
    /// A name or an address without brackets; empty is every address of this machine.
    name: String,
    port: u16,
    /// What clients put before every path, without slashes at its ends.
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a port must be a number from 0 to 65535, got {port:?}")]
pub struct InvalidPort {
    port: String,
    /// The same host with the default port.
    pub fallback: Box<Host>,
}

const DEFAULT_NAME: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 11434;

impl Default for Host {
    fn default() -> Host {
        Host {
            scheme: "http".into(),
            user_info: String::new(),
            name: DEFAULT_NAME.into(),
            port: DEFAULT_PORT,
            prefix: String::new(),
        }
    }
}

// === impl Host ===

impl Host {
    /// Reads what Ollama reads. The default port is 11434 without a scheme, and the scheme's own with one.
    pub fn parse(text: &str) -> Result<Host, InvalidPort> {
        let (scheme, rest) = match text.trim().split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if text.trim() == "ollama.com" => ("https", "ollama.com:443"),
            None => ("http", text.trim()),
        };
        let default_port = match (text.contains("://"), scheme) {
            (true, "http") => 80,
            (true, "https") => 443,
            _ => DEFAULT_PORT,
        };
        let (address, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let (user_info, address) = address.rsplit_once('@').unwrap_or(("", address));
        let (name, port) = split_port(address);
        let host = |port| Host {
            scheme: scheme.to_owned(),
            user_info: user_info.to_owned(),
            name: name.to_owned(),
            port,
            prefix: prefix.trim_matches('/').to_owned(),
        };
        match port.map(str::parse) {
            None => Ok(host(default_port)),
            Some(Ok(port)) => Ok(host(port)),
            Some(Err(_)) => {
                // A password with a slash in it looks like a port.
                let shown = port.filter(|_| !rest.contains('@') || !user_info.is_empty()).unwrap_or("***");
                Err(InvalidPort { port: shown.to_owned(), fallback: Box::new(host(default_port)) })
            }
        }
    }

    /// Whether this is the machine itself: `localhost`, or an address that never leaves it.
    pub fn is_loopback(&self) -> bool {
        let address = self.name.parse::<IpAddr>();
        // A server on every address is called on loopback.
        self.name.is_empty()
            || self.name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    }

    /// For `parse` of a [`crate::Setting`]: a bad port is an error.
    pub fn parse_strict(text: &str) -> Option<Host> {
        Host::parse(text).ok()
    }

    /// For `parse_ollama` of a [`crate::Setting`]: a bad port is warned about and the default taken.
    pub fn parse_ollama(text: &str) -> Option<Host> {
        Some(Host::parse(text).unwrap_or_else(|error| {
            tracing::warn!(port = error.port, default = error.fallback.port, "invalid port, using default");
            *error.fallback
        }))
    }

    /// `host:port` to bind; no name at all binds every IPv4 address.
    pub fn bind_address(&self) -> String {
        let name = if self.name.is_empty() { "0.0.0.0" } else { &self.name };
        join_port(name, self.port)
    }

    /// The address that a client on this machine calls, without a slash at its end: where the server listens on
    /// every address, that is loopback. To be shown.
    pub fn client_url(&self) -> String {
        self.url_of("")
    }

    /// The same with user and password. To be called, and to be shown to nobody.
    pub fn secret_client_url(&self) -> String {
        let sign = if self.user_info.is_empty() { "" } else { "@" };
        self.url_of(&format!("{}{sign}", self.user_info))
    }

    fn url_of(&self, user_info: &str) -> String {
        let name = match self.name.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1",
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => DEFAULT_NAME,
            Err(_) if self.name.is_empty() => DEFAULT_NAME,
            _ => &self.name,
        };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}://{user_info}{}{slash}{}", self.scheme, join_port(name, self.port), self.prefix)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `http://127.0.0.1:11434`, as it was configured.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{}{slash}{}", self.scheme, join_port(&self.name, self.port), self.prefix)
    }
}

/// The host without brackets, and the port if there is one. IPv6 needs no brackets as long as it has no port.
fn split_port(address: &str) -> (&str, Option<&str>) {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<Ipv6Addr>().is_ok() {
        return (bare, None);
    }
    let (name, port) = match address.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (address, None),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match (bare, port) {
        ("", None) => (DEFAULT_NAME, None),
        _ => (bare, port),
    }
}

fn join_port(name: &str, port: u16) -> String {
    if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ollama_reads_them() {
        for (text, url) in [
            ("", "http://127.0.0.1:11434"),
            ("1.2.3.4", "http://1.2.3.4:11434"),
            (":1234", "http://:1234"),
            ("1.2.3.4:1234", "http://1.2.3.4:1234"),
            ("example.com", "http://example.com:11434"),
            (":0", "http://:0"),
            ("[::1]", "http://[::1]:11434"),
            ("::1", "http://[::1]:11434"),
            ("[::]:1337", "http://[::]:1337"),
            (" 1.2.3.4 ", "http://1.2.3.4:11434"),
            ("http://1.2.3.4", "http://1.2.3.4:80"),
            ("https://1.2.3.4", "https://1.2.3.4:443"),
            ("https://1.2.3.4:4321", "https://1.2.3.4:4321"),
            ("https://example.com/ollama", "https://example.com:443/ollama"),
            ("example.com:8080/k/key/", "http://example.com:8080/k/key"),
            ("ollama.com", "https://ollama.com:443"),
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), url, "{text:?}");
        }
    }

    #[test]
    fn a_bad_port_falls_back_where_ollama_does() {
        for (text, url) in [
            ("1.2.3.4:66000", "http://1.2.3.4:11434"),
            (":-1", "http://:11434"),
            ("http://example.com:x", "http://example.com:80"),
            ("example.com:", "http://example.com:11434"),
        ] {
            assert_eq!(Host::parse_ollama(text).unwrap().to_string(), url, "{text:?}");
            assert_eq!(Host::parse_strict(text), None);
        }
        let error = Host::parse("a:66000").unwrap_err();
        assert_eq!(error.to_string(), "a port must be a number from 0 to 65535, got \"66000\"");
    }

    #[test]
    fn user_and_password_are_for_the_server_only() {
        for (text, shown, called) in [
            ("http://me:pass@h:1/p", "http://h:1/p", "http://me:pass@h:1/p"),
            ("me@h", "http://h:11434", "http://me@h:11434"),
            ("https://me:pa@ss@h", "https://h:443", "https://me:pa@ss@h:443"),
            ("http://me:pass@[::1]:1", "http://[::1]:1", "http://me:pass@[::1]:1"),
        ] {
            let host = Host::parse(text).unwrap();
            let all = [host.to_string(), format!("{host:?}"), host.client_url()];
            assert_eq!(all, [shown; 3], "{text}");
            assert_eq!(host.secret_client_url(), called);
            assert!(!host.bind_address().contains('@'), "{text}");
        }
        for text in ["http://me:secret/pass@h", "me:secret@h:pass"] {
            let error = Host::parse(text).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_by_address() {
        for (text, is_loopback) in [
            ("", true),
            ("localhost:80", true),
            ("http://127.1.2.3", true),
            ("[::1]:1", true),
            ("0.0.0.0", true),
            (":11434", true),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(Host::parse(text).unwrap().is_loopback(), is_loopback, "{text:?}");
        }
    }

    #[test]
    fn a_server_on_every_address_is_called_on_loopback() {
        for (text, bound, called) in [
            ("0.0.0.0:1", "0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "[::]:1", "http://[::1]:1"),
            (":1", "0.0.0.0:1", "http://127.0.0.1:1"),
            ("10.0.0.1:1/p", "10.0.0.1:1", "http://10.0.0.1:1/p"),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!((host.bind_address().as_str(), host.client_url().as_str()), (bound, called));
        }
    }
}
