//! Which template makes the prompt, and what it tells about the answers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use api::{Code, Error};
use protocol::v1::GenerateRequest;
use template::{Go, Jinja, Kind, Values, choose};

use super::model_name;

/// The template of a model without one.
const DEFAULT: &str = "{{ .Prompt }}";

/// How many parsed Go templates a replica keeps: one per model that shares it, and some that requests bring.
const MAX_PARSED: usize = 8;

/// How models whose Jinja template does not say it otherwise begin a tool call, most telling first.
const JINJA_TOOL_TAGS: [&str; 4] = ["<tool_call>", "[TOOL_CALLS]", "<|tool_call|>", "<|python_tag|>"];

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
    tool_tag: String,
}

/// The template of one request.
#[derive(Debug)]
pub enum Chosen {
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
            return Ok(Chosen::Go(self.go(&request.template)?));
        }
        let go = match request.template.as_str() {
            "" => None,
            source => Some(self.go(source)?),
        };
        let chat = self.jinja.as_ref().and_then(|parsed| parsed.as_ref().ok());
        match (choose(go.as_deref(), chat.map(|chat| &chat.jinja)), go, chat) {
            (Kind::Go, Some(go), _) => Ok(Chosen::Go(go)),
            (Kind::Jinja, _, Some(chat)) => Ok(Chosen::Jinja(chat.clone())),
            _ => match &self.jinja {
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(Chosen::Go(self.go(DEFAULT)?)),
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
        go.map(Chosen::Go).ok_or_else(unsupported)
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
        let thinks = source.contains("<think>") && source.contains("</think>");
        let tool_tag = JINJA_TOOL_TAGS.into_iter().find(|tag| source.contains(tag)).unwrap_or("{");
        Ok(Arc::new(Chat {
            jinja,
            thinking_tags: thinks.then(|| ("<think>".to_owned(), "</think>".to_owned())),
            tool_tag: tool_tag.to_owned(),
        }))
    }
}

// === impl Chosen ===

impl Chosen {
    pub fn render(&self, values: &Values) -> Result<String, Error> {
        let rendered = match self {
            Chosen::Go(go) => go.render(values),
            Chosen::Jinja(chat) => chat.jinja.render(values),
        };
        rendered.map_err(|error| template_error(&error))
    }

    pub fn thinking_tags(&self) -> Option<(String, String)> {
        match self {
            Chosen::Go(go) => go.thinking_tags(),
            Chosen::Jinja(chat) => chat.thinking_tags.clone(),
        }
    }

    pub fn tool_tag(&self) -> String {
        match self {
            Chosen::Go(go) => go.tool_tag(),
            Chosen::Jinja(chat) => chat.tool_tag.clone(),
        }
    }
}

/// Ollama answers 500 to a template that does not work, whoever brought it.
fn template_error(error: &template::Error) -> Error {
    Error::internal(format!("template error: {error}"))
}
