//! Where a name is on the network: which server, over which scheme, under which repository. Pure.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::Error;
use crate::Name;
use crate::name::DEFAULT_HOST;

/// What a client wants to pull or push.
#[derive(Clone, Debug)]
pub struct Wish {
    pub name: Name,
    /// `http` or `https` before the name; `https` if there was none.
    pub scheme: String,
    /// Speak plain HTTP.
    pub insecure: bool,
}

/// `CARAVAN_REGISTRY_MIRROR`: servers that stand for registries, as `URL` (for Ollama's own) or `HOST=URL`, separated
/// by commas. Names stay as they are; user and password in a URL are sent as basic authentication, and shown to nobody.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Mirrors(Vec<(String, Url)>);

/// A registry, and the repository in it. Not to be shown: it has a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Ends in a slash; has no user and password.
    pub(super) base: Url,
    pub(super) basic: Option<(String, String)>,
    pub(super) repository: String,
    pub(super) tag: String,
}

// === impl Wish ===

impl Wish {
    /// Reads `[scheme://][host/][namespace/]model[:tag]`.
    ///
    /// # Errors
    /// [`crate::Error::Name`].
    pub fn parse(text: &str, insecure: bool) -> crate::Result<Wish> {
        let text = text.trim();
        let (scheme, _) = Name::split_scheme(text);
        Ok(Wish { name: Name::parse(text)?, scheme: scheme.unwrap_or("https").to_owned(), insecure })
    }
}

// === impl Mirrors ===

impl Mirrors {
    fn of(&self, host: &str) -> Option<&Url> {
        let (_, url) = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(host))?;
        Some(url)
    }
}

impl fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(host, url)| (host, anonymous(url.clone()).to_string())))
            .finish()
    }
}

impl FromStr for Mirrors {
    type Err = ();

    fn from_str(text: &str) -> Result<Mirrors, ()> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let mirrors = entries.map(|entry| {
            let (host, url) = match entry.split_once('=') {
                Some((host, url)) if !host.contains("://") => (host.trim(), url.trim()),
                _ => (DEFAULT_HOST, entry),
            };
            let mut url = Url::parse(url).map_err(|_| ())?;
            let is_server = matches!(url.scheme(), "http" | "https") && url.has_host();
            if !is_server || host.is_empty() || url.query().is_some() || url.fragment().is_some() {
                return Err(());
            }
            let path = format!("{}/", url.path().trim_end_matches('/'));
            url.set_path(&path);
            Ok((host.to_owned(), url))
        });
        mirrors.collect::<Result<Vec<_>, ()>>().map(Mirrors)
    }
}

// === impl Origin ===

impl Origin {
    /// Where a pull goes: to a mirror, if the registry has one.
    pub(super) fn of_pull(wish: &Wish, mirrors: &Mirrors) -> Result<Origin, Error> {
        match mirrors.of(&wish.name.host) {
            Some(mirror) => Origin::at(mirror.clone(), wish),
            None => Origin::of_push(wish),
        }
    }

    /// Where a push goes: to the registry that the name says.
    pub(super) fn of_push(wish: &Wish) -> Result<Origin, Error> {
        let scheme = match wish.scheme.as_str() {
            "http" if !wish.insecure => return Err(Error::Insecure),
            "http" | "https" if wish.insecure => "http",
            "https" => "https",
            other => return Err(Error::Scheme(other.to_owned())),
        };
        let text = format!("{scheme}://{}/", wish.name.host);
        let base = Url::parse(&text)
            .map_err(|error| Error::Garbage { what: "the host of the name", reason: error.to_string() })?;
        Origin::at(base, wish)
    }

    fn at(base: Url, wish: &Wish) -> Result<Origin, Error> {
        let user = decoded(base.username());
        let basic = (!user.is_empty()).then(|| (user, decoded(base.password().unwrap_or_default())));
        let base = anonymous(base);
        let Name { namespace, model, tag, .. } = &wish.name;
        Ok(Origin { base, basic, repository: format!("{namespace}/{model}"), tag: tag.clone() })
    }

    pub(super) fn manifest(&self) -> Result<Url, Error> {
        self.url(&format!("manifests/{}", self.tag))
    }

    /// `what` below the repository.
    pub(super) fn url(&self, what: &str) -> Result<Url, Error> {
        let joined = self.base.join(&format!("v2/{}/{what}", self.repository));
        joined.map_err(|error| Error::Garbage { what: "the address", reason: error.to_string() })
    }

    /// Whether `url` is on the same server, so that it may see our credentials.
    pub(super) fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }
}

/// Without user and password.
pub(super) fn anonymous(mut url: Url) -> Url {
    // Neither can fail: the URL has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str, insecure: bool) -> Wish {
        Wish::parse(text, insecure).unwrap()
    }

    fn manifest(text: &str, insecure: bool) -> String {
        match Origin::of_push(&wish(text, insecure)) {
            Ok(origin) => origin.manifest().unwrap().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_name_says_where_its_manifest_is() {
        for (text, url) in [
            ("m", "https://registry.ollama.ai/v2/library/m/manifests/latest"),
            ("hf.co/user/repo:Q4_K_M", "https://hf.co/v2/user/repo/manifests/Q4_K_M"),
            ("https://localhost:5000/ns/m:t", "https://localhost:5000/v2/ns/m/manifests/t"),
        ] {
            assert_eq!(manifest(text, false), url);
        }
    }

    #[test]
    fn plain_http_is_for_who_says_insecure() {
        assert_eq!(manifest("http://h/n/m", false), "insecure protocol http");
        assert_eq!(manifest("http://h/n/m", true), "http://h/v2/n/m/manifests/latest");
        assert_eq!(manifest("h/n/m", true), "http://h/v2/n/m/manifests/latest");
        assert_eq!(manifest("ftp://h/n/m", true), "unsupported protocol scheme \"ftp\"");
    }

    #[test]
    fn a_mirror_stands_for_its_registry_and_for_no_other() {
        let mirrors: Mirrors =
            "http://me:p%40ss@mirror:5000/ollama, hf.co=https://mirror/hf/".parse().unwrap();
        let origin = |text| Origin::of_pull(&wish(text, false), &mirrors).unwrap();
        let own = origin("m:8b");
        assert_eq!(own.manifest().unwrap().as_str(), "http://mirror:5000/ollama/v2/library/m/manifests/8b");
        assert_eq!(own.basic, Some(("me".to_owned(), "p@ss".to_owned())));
        assert_eq!(
            origin("hf.co/a/b").manifest().unwrap().as_str(),
            "https://mirror/hf/v2/a/b/manifests/latest"
        );
        assert_eq!(origin("h/a/b").base.as_str(), "https://h/");
    }

    #[test]
    fn what_is_no_server_is_no_mirror() {
        for text in ["mirror", "ftp://mirror", "=http://m", "http://", "http://m?a=b", "a=b", "http://m#x"] {
            assert!(text.parse::<Mirrors>().is_err(), "{text} was accepted");
        }
        assert_eq!("".parse::<Mirrors>().unwrap(), Mirrors::default());
    }

    #[test]
    fn credentials_stay_at_home() {
        let origin = Origin::of_push(&wish("https://h:1/n/m", false)).unwrap();
        for (text, is_home) in [
            ("https://h:1/x", true),
            ("http://h:1/x", false),
            ("https://h:2/", false),
            ("https://g:1/", false),
        ] {
            assert_eq!(origin.is_home(&Url::parse(text).unwrap()), is_home, "{text}");
        }
    }
}
