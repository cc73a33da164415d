//! Which of a model's two templates makes the prompt, and what the model can do by its template.

use crate::{Go, Jinja};

/// The template that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Go,
    Jinja,
    /// The model has none: the prompt goes to it as it is.
    Plain,
}

/// What a template supports beside completion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub tools: bool,
    /// Fill in the middle.
    pub insert: bool,
    pub thinking: bool,
}

/// Ollama's preference: the Go template, unless the model file's own Jinja can do more, or can do the same and is
/// the only one of them that shows tool results to the model.
pub fn choose(go: Option<&Go>, jinja: Option<&Jinja>) -> Kind {
    match (go, jinja) {
        (None, None) => Kind::Plain,
        (Some(_), None) => Kind::Go,
        (None, Some(_)) => Kind::Jinja,
        (Some(go), Some(jinja)) if prefers_jinja(go, jinja) => Kind::Jinja,
        (Some(_), Some(_)) => Kind::Go,
    }
}

/// What the template that [`choose`] picks supports.
pub fn capabilities(go: Option<&Go>, jinja: Option<&Jinja>) -> Capabilities {
    match (choose(go, jinja), go, jinja) {
        (Kind::Go, Some(go), _) => go_capabilities(go),
        (Kind::Jinja, _, Some(jinja)) => jinja_capabilities(jinja),
        _ => Capabilities::default(),
    }
}

fn prefers_jinja(go: &Go, jinja: &Jinja) -> bool {
    let (mine, theirs) = (go_capabilities(go), jinja_capabilities(jinja));
    let (my_round_trip, their_round_trip) = (go_round_trip(go), jinja_round_trip(jinja));
    if theirs.count() > mine.count() {
        return their_round_trip || !my_round_trip;
    }
    mine == theirs && mine.tools && their_round_trip && !my_round_trip
}

fn go_capabilities(go: &Go) -> Capabilities {
    Capabilities {
        tools: go.mentions("tools"),
        insert: go.mentions("suffix"),
        thinking: go.thinking_tags().is_some(),
    }
}

fn jinja_capabilities(jinja: &Jinja) -> Capabilities {
    let source = jinja.source();
    let splits = source.contains("split('</think>')") || source.contains("split(\"</think>\")");
    Capabilities {
        tools: source.contains("tools") || source.contains("tool_call"),
        insert: false,
        thinking: source.contains("<think>") && source.contains("</think>")
            || splits && !source.contains("reasoning_content"),
    }
}

/// Whether a tool's result gets back to the model.
fn go_round_trip(go: &Go) -> bool {
    let results = ["eq .Role \"tool\"", "tool_response", "TOOL_RESULTS"];
    go.mentions("tools") && go.mentions("toolcalls") && contains_any(go.source(), &results)
}

fn jinja_round_trip(jinja: &Jinja) -> bool {
    let source = jinja.source();
    let calls = ["tool_calls", "assistant_tool_call"];
    let results =
        ["tool_response", "tool_results", "ipython", "== 'tool'", "== \"tool\"", "=='tool'", "==\"tool\""];
    jinja_capabilities(jinja).tools && contains_any(source, &calls) && contains_any(source, &results)
}

fn contains_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

// === impl Capabilities ===

impl Capabilities {
    fn count(self) -> u8 {
        u8::from(self.tools) + u8::from(self.insert) + u8::from(self.thinking)
    }
}
