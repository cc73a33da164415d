//! What a registry answers to a stranger (`WWW-Authenticate: Bearer`, RFC 6750 and the distribution protocol's token
//! specification), and the request for a token that follows from it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Url;

use super::Error;
use crate::Digest;

/// Where to ask for a token, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: Url,
    service: String,
    scope: String,
}

impl Challenge {
    /// # Errors
    /// [`Error::Denied`] for any scheme but `Bearer`; [`Error::Realm`] when the realm is another host than the
    /// registry's, or the same over a line that is less safe.
    pub(super) fn parse(header: &str, registry: &Url) -> Result<Challenge, Error> {
        let (scheme, parameters) = header.trim().split_once(' ').ok_or(Error::Denied)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Error::Denied);
        }
        let mut challenge = (String::new(), String::new(), String::new());
        for (key, value) in Parameters(parameters) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => challenge.0 = value,
                "service" => challenge.1 = value,
                "scope" => challenge.2 = value,
                _ => {}
            }
        }
        let (realm, service, scope) = challenge;
        let realm = Url::parse(&realm)
            .map_err(|error| Error::Garbage { what: "the registry's realm", reason: error.to_string() })?;
        let is_safe = realm.scheme() == "https" || (realm.scheme() == "http" && registry.scheme() == "http");
        if host(&realm) != host(registry) || !is_safe {
            return Err(Error::Realm { realm: host(&realm), host: host(registry) });
        }
        Ok(Challenge { realm, service, scope })
    }

    /// The URL of the token, which is signed whole: `unix` seconds and `nonce` make every signature another one.
    pub(super) fn url(&self, unix: u64, nonce: &[u8; 16]) -> Url {
        let mut url = self.realm.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair("nonce", &URL_SAFE_NO_PAD.encode(nonce));
        for scope in self.scope.split(' ').filter(|scope| !scope.is_empty()) {
            query.append_pair("scope", scope);
        }
        query.append_pair("service", &self.service).append_pair("ts", &unix.to_string());
        drop(query);
        url
    }
}

/// What is signed of a request for a token: method, URL and the digest of a body that is empty.
pub(super) fn signed_text(url: &Url) -> String {
    format!("GET,{url},{}", STANDARD.encode(Digest::of(b"").hex()))
}

/// With the port, if it is not the scheme's own.
fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// `key="value", key=value`; ends at the first thing that is neither.
struct Parameters<'a>(&'a str);

impl Iterator for Parameters<'_> {
    type Item = (String, String);

    fn next(&mut self) -> Option<(String, String)> {
        let (key, rest) = self.0.trim_start_matches([' ', ',', '\t']).split_once('=')?;
        let value = match rest.strip_prefix('"') {
            None => {
                let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
                self.0 = after;
                value.trim().to_owned()
            }
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.char_indices();
                let end = loop {
                    match characters.next() {
                        // The quote is never closed.
                        None => break quoted.len(),
                        Some((at, '"')) => break at + 1,
                        Some((_, '\\')) => value.extend(characters.next().map(|(_, character)| character)),
                        Some((_, character)) => value.push(character),
                    }
                };
                self.0 = &quoted[end..];
                value
            }
        };
        Some((key.trim().to_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_url_of_a_token_has_every_scope_and_is_signed_whole() {
        let header = r#"Bearer realm="https://r.example/token",service="r.example",scope="repository:a/b:pull repository:a/b:push""#;
        let challenge = Challenge::parse(header, &url("https://r.example/v2/")).unwrap();
        let token = challenge.url(1_700_000_000, &[7; 16]);
        assert_eq!(
            token.as_str(),
            "https://r.example/token?nonce=BwcHBwcHBwcHBwcHBwcHBw&scope=repository%3Aa%2Fb%3Apull\
             &scope=repository%3Aa%2Fb%3Apush&service=r.example&ts=1700000000"
        );
        // base64 of the hex digest of nothing.
        assert_eq!(
            signed_text(&token),
            format!(
                "GET,{token},ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
            )
        );
    }

    #[test]
    fn parameters_may_be_bare_quoted_or_escaped() {
        let parse = |text: &'static str| Parameters(text).collect::<Vec<_>>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parse(r#"a=b, C="d,\"e", f="#), [pair("a", "b"), pair("C", "d,\"e"), pair("f", "")]);
        assert_eq!(parse(r#"a="never closed"#), [pair("a", "never closed")]);
        assert_eq!(parse("nothing"), []);
    }

    #[test]
    fn only_the_registry_itself_is_asked_for_a_token() {
        let registry = url("https://r.example:444/v2/");
        let told = |header: &str| Challenge::parse(header, &registry).unwrap_err().to_string();
        assert_eq!(
            told(r#"Bearer realm="https://evil.example/token""#),
            r#"realm host "evil.example" does not match original host "r.example:444""#
        );
        assert!(told(r#"Bearer realm="http://r.example:444/token""#).starts_with("realm host"));
        assert_eq!(told(r#"Basic realm="r""#), "unauthorized: access denied");
        assert_eq!(told("Bearer"), "unauthorized: access denied");
        assert!(told("Bearer realm=x").contains("realm cannot be read"));
        assert!(Challenge::parse(r#"bearer realm="https://r.example:444/t""#, &registry).is_ok());
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(text in any::<String>(), tail in r#"[a-z="\\, ]{0,40}"#) {
            let registry = url("https://r.example/");
            let _ = Challenge::parse(&text, &registry);
            let _ = Challenge::parse(&format!("Bearer {tail}"), &registry);
        }
    }
}
