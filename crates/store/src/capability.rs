//! What a model can do, judged by everything that we know about it, and which of its templates makes the prompts.

use template::builtin::Calls;
use template::{Go, Jinja, Kind};

use crate::weights::Weights;
use crate::{Config, Error, Name, Result, builtin};

/// Where capabilities show.
pub(crate) struct Evidence<'a> {
    pub(crate) name: &'a Name,
    pub(crate) config: &'a Config,
    pub(crate) weights: Option<&'a Weights>,
    pub(crate) projector: Option<&'a Weights>,
    pub(crate) has_projector: bool,
    pub(crate) template: Option<&'a str>,
}

/// The capabilities in Ollama's order. An embedder has no `completion`, so chat and generate refuse it.
pub(crate) fn detect(evidence: &Evidence<'_>) -> Vec<String> {
    let chat_template = evidence.weights.and_then(|weights| weights.chat_template.as_deref());
    // A renderer stands for the template in the file.
    let template = evidence.template.filter(|_| evidence.config.renderer.is_empty());
    let (go, jinja) = parse(evidence.name, template, chat_template);
    let parser = builtin::parser(&evidence.config.parser);
    let by_template = template::capabilities(go.as_ref(), jinja.as_ref());
    let mut found = Found(evidence.config.capabilities.clone());
    if let Some(weights) = evidence.weights {
        found.add(if weights.pools { "embedding" } else { "completion" }, true);
        found.add("rerank", weights.ranks);
        found.add("vision", weights.vision);
        found.add("audio", weights.audio);
    }
    found.add("vision", evidence.has_projector);
    found.add("audio", evidence.projector.is_some_and(|projector| projector.audio));
    found.add("tools", parser.map_or(by_template.tools, |parser| parser.calls != Calls::Never));
    found.add("insert", by_template.insert);
    found.add("thinking", parser.map_or(by_template.thinking, |parser| parser.thinks));
    found.add("thinking", matches!(evidence.config.model_family.as_str(), "gptoss" | "gpt-oss"));
    found.0
}

/// Which of two templates makes prompts.
pub(crate) fn choose(name: &Name, template: Option<&str>, chat_template: Option<&str>) -> Kind {
    let (go, jinja) = parse(name, template, chat_template);
    template::choose(go.as_ref(), jinja.as_ref())
}

/// Checks the template of a create request.
///
/// # Errors
/// [`Error::Template`] with the line and the reason.
pub(crate) fn check_template(text: &str) -> Result<()> {
    Go::parse(text).map(drop).map_err(Error::Template)
}

/// A template that a model came with may be too new for us; the model is still good for raw prompts.
fn parse(name: &Name, template: Option<&str>, chat_template: Option<&str>) -> (Option<Go>, Option<Jinja>) {
    let warn = |error: &template::Error| tracing::warn!(%name, %error, "template cannot be parsed");
    (
        template.and_then(|text| Go::parse(text).inspect_err(warn).ok()),
        chat_template.and_then(|text| Jinja::parse(text).inspect_err(warn).ok()),
    )
}

struct Found(Vec<String>);

impl Found {
    fn add(&mut self, capability: &str, seen: bool) {
        if seen && !self.0.iter().any(|known| known == capability) {
            self.0.push(capability.to_owned());
        }
    }
}
