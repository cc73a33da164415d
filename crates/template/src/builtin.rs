//! The renderers and parsers that a model's config may name (`RENDERER`, `PARSER`): what Ollama has in code instead of in
//! templates.
//!
//! A renderer writes what the public chat template of its models writes, so here the Jinja template in the model's file
//! does its work. A parser tells how the model's answers are read; those for architectures that are not run here are
//! known by name only.

/// How a model writes its tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// It writes none.
    Never,
    /// JSON behind a tag, with the name in it or before it.
    Json(&'static str),
    /// Tags with names in them: `<function=NAME><parameter=KEY>VALUE`.
    Coder,
    /// `call:NAME{key:<escape>text<escape>}` between two tags.
    Gemma,
}

/// How the answers of a model are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parser {
    pub name: &'static str,
    pub calls: Calls,
    /// It thinks between `<think>` and `</think>`, unless told not to, and begins with it.
    pub thinks: bool,
}

/// What a name of a parser stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Parser(&'static Parser),
    /// Ollama has it; its models are of architectures that are not run here.
    Elsewhere,
    /// Nobody has it. Ollama then reads answers as the template says.
    Nowhere,
}

const fn row(name: &'static str, calls: Calls, thinks: bool) -> Parser {
    Parser { name, calls, thinks }
}

const QWEN: Calls = Calls::Json("<tool_call>");
const DEEPSEEK: Calls = Calls::Json("<｜tool▁calls▁begin｜>");

const PARSERS: [Parser; 15] = [
    row("qwen3", QWEN, false),
    row("qwen3-thinking", QWEN, true),
    row("qwen3-vl-instruct", QWEN, false),
    row("qwen3-vl-thinking", QWEN, true),
    row("qwen3-coder", Calls::Coder, false),
    row("qwen3.5", Calls::Coder, true),
    row("ornith", Calls::Coder, true),
    row("nemotron-3-nano", Calls::Coder, true),
    row("nemotron-3.5-nano", Calls::Coder, true),
    row("cogito", DEEPSEEK, true),
    row("deepseek3", DEEPSEEK, true),
    row("ministral", Calls::Json("[TOOL_CALLS]"), false),
    row("functiongemma", Calls::Gemma, false),
    row("olmo3-think", Calls::Never, true),
    row("passthrough", Calls::Never, false),
];

const PARSERS_ELSEWHERE: [&str; 12] = [
    "cohere",
    "gemma4",
    "gemma4-no-thinking",
    "glimmer",
    "glm-4.7",
    "glm-ocr",
    "harmony",
    "laguna",
    "lfm2",
    "lfm2-thinking",
    "olmo3",
    "poolside-v1",
];

const RENDERERS: [&str; 26] = [
    "cogito",
    "cohere",
    "deepseek3.1",
    "functiongemma",
    "gemma4",
    "gemma4-large",
    "gemma4-small",
    "glimmer",
    "glm-4.7",
    "glm-ocr",
    "laguna",
    "lfm2",
    "lfm2-thinking",
    "nemotron-3-nano",
    "nemotron-3.5-nano",
    "olmo3",
    "olmo3-32b-think",
    "olmo3-think",
    "olmo3.1",
    "ornith",
    "poolside-v1",
    "qwen3-coder",
    "qwen3-vl-instruct",
    "qwen3-vl-thinking",
    "qwen3.5",
    "qwen3.8",
];

/// Whether Ollama has a renderer of that name.
pub fn is_renderer(name: &str) -> bool {
    RENDERERS.contains(&name)
}

/// What the name of a parser stands for.
pub fn parser(name: &str) -> Known {
    match PARSERS.iter().find(|parser| parser.name == name) {
        Some(parser) => Known::Parser(parser),
        None if PARSERS_ELSEWHERE.contains(&name) => Known::Elsewhere,
        None => Known::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_one_thing() {
        let mut names: Vec<&str> =
            PARSERS.iter().map(|parser| parser.name).chain(PARSERS_ELSEWHERE).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(RENDERERS.is_sorted() && is_renderer("qwen3-coder") && !is_renderer("qwen3"));
    }

    #[test]
    fn a_parser_is_ours_of_others_or_nobodys() {
        assert!(matches!(
            parser("qwen3-coder"),
            Known::Parser(Parser { calls: Calls::Coder, thinks: false, .. })
        ));
        assert_eq!(
            (parser("harmony"), parser("qwen9"), parser("")),
            (Known::Elsewhere, Known::Nowhere, Known::Nowhere)
        );
    }
}
