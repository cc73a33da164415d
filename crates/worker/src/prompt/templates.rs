//! Which template makes the prompt, and what it tells about the answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use api::{Code, Error};
use protocol::v1::GenerateRequest;
use template::{
    Go, Jinja, Kind, Values,
    builtin::{self, Calls, Known},
    capabilities, choose,
};

use super::model_name;
use crate::reply::Dress;

/// The template of a model without one.
const DEFAULT: &str = "{{ .Prompt }}";

/// How many parsed Go templates a replica keeps: one per model that shares it, and some that requests bring.
const MAX_PARSED: usize = 8;

/// What a Jinja template mentions, and what its model then puts before a tool call; most telling first.
const JINJA_TOOL_TAGS: [(&str, &str); 7] = [
    ("<tool_call>", "<tool_call>"),
    ("[TOOL_CALLS]", "[TOOL_CALLS]"),
    ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>"),
    ("<|tool_call|>", "<|tool_call|>"),
    // Phi 4 mini is shown its tools in one tag and answers in another.
    ("<|tool|>", "<|tool_call|>"),
    ("<toolcall>", "<toolcall>"),
    ("functools[", "functools["),
];

/// Llama 3 writes bare JSON, and sometimes this before it.
const PYTHON_TAG: &str = "<|python_tag|>";

/// How a template shows that calls are tags with names in them.
const CODER: &str = "<parameter=";

/// How one shows that they are what Function Gemma writes.
const GEMMA: &str = "<start_function_call>";

/// The templates of one replica.
#[derive(Debug)]
pub struct Templates {
    /// Of the model file; an error when it does not parse, told only to requests that need it.
    jinja: Option<Result<Arc<Chat>, Error>>,
    parsed: Mutex<VecDeque<Arc<Go>>>,
}

#[derive(Debug)]
pub struct Chat {
    jinja: Jinja,
    thinking_tags: Option<(String, String)>,
    dress: Dress,
}

/// The template of one request.
#[derive(Debug)]
pub struct Chosen {
    template: Template,
    /// What reads the answers, where the model's config names it; else the template tells how.
    parser: Option<&'static builtin::Parser>,
}

#[derive(Debug)]
enum Template {
    Go(Arc<Go>),
    Jinja(Arc<Chat>),
}

// === impl Templates ===

impl Templates {
    pub fn new(jinja: Option<&str>) -> Templates {
        Templates { jinja: jinja.map(Chat::parse), parsed: Mutex::default() }
    }

    /// The request's own template wins over everything.
    pub fn for_conversation(&self, request: &GenerateRequest) -> Result<Chosen, Error> {
        if request.template_from_request {
            return Ok(Template::Go(self.go(&request.template)?).for_any());
        }
        let parser = match builtin::parser(&request.parser) {
            Known::Parser(parser) => Some(parser),
            Known::Elsewhere | Known::Nowhere => None,
        };
        Ok(Chosen { template: self.template(request)?, parser })
    }

    fn template(&self, request: &GenerateRequest) -> Result<Template, Error> {
        let go = match request.template.as_str() {
            "" => None,
            source => Some(self.go(source)?),
        };
        if let Some(go) = go.as_ref().filter(|_| !request.parser.is_empty()) {
            // A model whose answers are read by name has its prompts made by the template that it came with.
            return Ok(Template::Go(go.clone()));
        }
        let chat = self.jinja.as_ref().and_then(|parsed| parsed.as_ref().ok());
        match (choose(go.as_deref(), chat.map(|chat| &chat.jinja)), go, chat) {
            (Kind::Go, Some(go), _) => Ok(Template::Go(go)),
            (Kind::Jinja, _, Some(chat)) => Ok(Template::Jinja(chat.clone())),
            _ => match &self.jinja {
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(Template::Go(self.go(DEFAULT)?)),
            },
        }
    }

    /// Only a Go template can say where the middle goes.
    pub fn for_infill(&self, request: &GenerateRequest) -> Result<Chosen, Error> {
        let go = match request.template.as_str() {
            "" => None,
            source => Some(self.go(source)?).filter(|go| go.variables().contains("suffix")),
        };
        let unsupported =
            || Error::new(Code::Invalid, format!("{} does not support insert", model_name(request)));
        go.map(|go| Template::Go(go).for_any()).ok_or_else(unsupported)
    }

    /// Parsed now, or lately.
    fn go(&self, source: &str) -> Result<Arc<Go>, Error> {
        let lock = || self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(go) = lock().iter().find(|go| go.source() == source) {
            return Ok(go.clone());
        }
        let go = Arc::new(Go::parse(source).map_err(|error| template_error(&error))?);
        let mut parsed = lock();
        parsed.truncate(MAX_PARSED - 1);
        parsed.push_front(go.clone());
        Ok(go)
    }
}

// === impl Chat ===

impl Chat {
    fn parse(source: &str) -> Result<Arc<Chat>, Error> {
        let jinja = Jinja::parse(source).map_err(|error| template_error(&error))?;
        // Some only cut earlier thinking off at its end; their models write both tags all the same.
        let thinks = capabilities(None, Some(&jinja)).thinking;
        Ok(Arc::new(Chat { jinja, thinking_tags: thinks.then(think_tags), dress: jinja_dress(source) }))
    }
}

// === impl Chosen ===

impl Template {
    fn for_any(self) -> Chosen {
        Chosen { template: self, parser: None }
    }
}

impl Chosen {
    pub fn render(&self, values: &Values) -> Result<String, Error> {
        let rendered = match &self.template {
            Template::Go(go) => go.render(values),
            Template::Jinja(chat) => chat.jinja.render(values),
        };
        rendered.map_err(|error| template_error(&error))
    }

    /// What `num_predict` 0 means hangs on it.
    pub fn is_jinja(&self) -> bool {
        matches!(self.template, Template::Jinja(_))
    }

    pub fn thinking_tags(&self) -> Option<(String, String)> {
        match (self.parser, &self.template) {
            (Some(parser), _) => parser.thinks.then(think_tags),
            (None, Template::Go(go)) => go.thinking_tags(),
            (None, Template::Jinja(chat)) => chat.thinking_tags.clone(),
        }
    }

    /// Whether the answer begins with thinking, though the prompt does not say so.
    pub fn begins_inside(&self) -> bool {
        self.parser.is_some_and(|parser| parser.thinks)
    }

    /// How the model will write its tool calls; `None` = it writes none.
    pub fn dress(&self) -> Option<Dress> {
        Some(match (self.parser.map(|parser| parser.calls), &self.template) {
            (Some(Calls::Never), _) => return None,
            (Some(Calls::Json(tag)), _) => Dress::tagged(tag),
            (Some(Calls::Coder), _) => Dress::coder(),
            (Some(Calls::Gemma), _) => Dress::gemma(),
            (None, Template::Go(go)) if go.source().contains(CODER) => Dress::coder(),
            (None, Template::Go(go)) => with_python_tag(Dress::tagged(&go.tool_tag())),
            (None, Template::Jinja(chat)) => chat.dress.clone(),
        })
    }
}

fn think_tags() -> (String, String) {
    ("<think>".to_owned(), "</think>".to_owned())
}

fn jinja_dress(source: &str) -> Dress {
    if source.contains(CODER) {
        return Dress::coder();
    }
    if source.contains(GEMMA) {
        return Dress::gemma();
    }
    match JINJA_TOOL_TAGS.iter().find(|(mark, _)| source.contains(mark)) {
        Some((_, tag)) => Dress::tagged(tag),
        None => with_python_tag(Dress::tagged("{")),
    }
}

fn with_python_tag(dress: Dress) -> Dress {
    if dress.bare == Some('{') { Dress { tags: vec![PYTHON_TAG.to_owned()], ..dress } } else { dress }
}

/// Ollama answers 500 to a template that does not work, whoever brought it.
fn template_error(error: &template::Error) -> Error {
    Error::new(Code::Template, format!("template error: {error}"))
}
