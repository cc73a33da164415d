//! From the name in a request to a model of the store (reference: api.md section 0.9).
//!
//! Names are resolved here and nowhere else: workers know digests.

use std::sync::Arc;

use api::{Code, Error, Result};
use store::{Model, Name};

use crate::app::App;
use crate::scripted;

/// What a server without ollama.com answers to a cloud model.
pub const NO_CLOUD: &str = "ollama cloud is disabled: remote model is unavailable";
pub const NO_CLOUD_DETAILS: &str = "ollama cloud is disabled: remote model details are unavailable";
const REQUIRED: &str = "model is required";

/// Where a model is wanted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Local,
    Cloud,
}

/// How a route words what is wrong with a name; all else is the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// `model is required`, `model 'x' not found`.
    Usual,
    /// `/api/generate` finds no model without a name.
    Generate,
    /// `/api/embeddings` suggests to pull.
    Legacy,
    /// `/api/show` names the model in full.
    Show,
}

/// The stored model that `asked` means.
pub async fn model(app: &App, asked: &str, wording: Wording) -> Result<Arc<Model>> {
    let asked = asked.trim();
    if asked.is_empty() {
        return Err(match wording {
            Wording::Generate => Error::not_found("model '' not found"),
            _ => Error::invalid(REQUIRED),
        });
    }
    let no_cloud = if wording == Wording::Show { NO_CLOUD_DETAILS } else { NO_CLOUD };
    let name = name(asked).map_err(|error| match error.code {
        Code::Forbidden => Error::forbidden(no_cloud),
        _ => error,
    })?;
    match app.store.get(&name).await {
        Err(store::Error::NotFound(_)) => {}
        // A stub: its weights are in the cloud.
        Ok(model) if model.config.remote().is_some() => return Err(Error::forbidden(no_cloud)),
        outcome => return Ok(outcome?),
    }
    if wording != Wording::Show && scripted::is_there(&app.registry.view()) {
        return Ok(Arc::new(scripted::model(name)));
    }
    Err(Error::not_found(match wording {
        Wording::Usual | Wording::Generate => format!("model '{asked}' not found"),
        Wording::Legacy => format!("model \"{asked}\" not found, try pulling it first"),
        Wording::Show => format!("model '{}' not found", name.shortest()),
    }))
}

/// Reads a name that may end in `:local` or `:cloud`.
pub fn name(asked: &str) -> Result<Name> {
    let (base, source) = split_source(asked)?;
    if source == Some(Source::Cloud) {
        return Err(Error::forbidden(NO_CLOUD));
    }
    Ok(Name::parse(base)?)
}

/// A name of this store, for what changes it: `:local` says nothing new here, and stubs of the cloud can be copied
/// and deleted like any other.
pub fn stored(asked: &str) -> store::Result<Name> {
    let (base, source) = strip_source(asked.trim());
    Name::parse(if source == Some(Source::Local) { base } else { asked.trim() })
}

/// Whether the name means a model of ollama.com.
pub fn is_cloud(asked: &str) -> bool {
    strip_source(asked.trim()).1 == Some(Source::Cloud)
}

/// The name under which a registry knows what is asked for: a cloud model has a tag of its own there.
pub fn pulled_name(asked: &str) -> Result<String> {
    let (base, source) = split_source(asked.trim())?;
    Ok(match source {
        Some(Source::Cloud) if has_tag(base) => format!("{base}-cloud"),
        Some(Source::Cloud) => format!("{base}:cloud"),
        _ => base.to_owned(),
    })
}

fn has_tag(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'))
}

fn split_source(asked: &str) -> Result<(&str, Option<Source>)> {
    let (base, source) = strip_source(asked);
    if source.is_some() && strip_source(base).1.is_some() {
        return Err(Error::invalid(format!("use either :local or :cloud, not both: \"{asked}\"")));
    }
    Ok((base, source))
}

/// Takes off one suffix. A tag such as `8b-cloud` means the cloud too.
fn strip_source(asked: &str) -> (&str, Option<Source>) {
    let Some((base, tag)) = asked.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
        return (asked, None);
    };
    let tag = tag.to_ascii_lowercase();
    match tag.as_str() {
        "local" => (base, Some(Source::Local)),
        "cloud" => (base, Some(Source::Cloud)),
        _ if tag.ends_with("-cloud") => (&asked[..asked.len() - "-cloud".len()], Some(Source::Cloud)),
        _ => (asked, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_model_has_a_tag_of_its_own_in_the_registry() {
        for (asked, pulled) in [
            (" m ", "m"),
            ("m:local", "m"),
            ("m:cloud", "m:cloud"),
            ("m:8b:cloud", "m:8b-cloud"),
            ("m:8b-cloud", "m:8b-cloud"),
            ("http://localhost:5000/ns/m", "http://localhost:5000/ns/m"),
            ("localhost:5000/ns/m:CLOUD", "localhost:5000/ns/m:cloud"),
        ] {
            assert_eq!(pulled_name(asked).unwrap(), pulled);
        }
        assert!(pulled_name("m:local:cloud").is_err());
    }

    #[test]
    fn a_local_suffix_is_no_part_of_the_name() {
        assert_eq!(name("llama3:8b:LOCAL").unwrap().shortest(), "llama3:8b");
        assert_eq!(name("llama3:local").unwrap().shortest(), "llama3:latest");
        assert_eq!(name("llama3").unwrap().shortest(), "llama3:latest");
    }

    #[test]
    fn a_cloud_model_is_refused_in_the_words_of_a_server_without_cloud() {
        for asked in ["glm:cloud", "glm:8b:Cloud", "glm:8b-cloud"] {
            let error = name(asked).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (Code::Forbidden, NO_CLOUD), "{asked}");
        }
    }

    #[test]
    fn two_sources_are_one_too_many() {
        let error = name("m:local:cloud").unwrap_err();
        assert_eq!(error.message, "use either :local or :cloud, not both: \"m:local:cloud\"");
    }

    #[test]
    fn a_bad_name_is_named_so() {
        for asked in ["m:", "a/b/c/d/e", "-x", "ü"] {
            assert_eq!(name(asked).unwrap_err().message, "invalid model name", "{asked}");
        }
    }
}
