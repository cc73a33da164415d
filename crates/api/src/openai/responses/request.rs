//! The request, but for its items.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::chat::think_of_effort;
use super::{WEB_SEARCH, items};
use crate::KeepAlive;
use crate::error::{Error, Result};
use crate::ollama;

/// `keep_alive` and `num_ctx` are Ollama's words, accepted here too. Nothing is kept between requests, so
/// `previous_response_id`, `conversation`, `store` and the like mean nothing, as with Ollama.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.ResponsesRequest")]
pub struct ResponsesRequest {
    pub model: String,
    /// A string, or a list of items.
    pub input: Value,
    pub instructions: String,
    pub max_output_tokens: Option<i64>,
    pub reasoning: ReasoningConfig,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub text: Option<TextConfig>,
    pub truncation: Option<String>,
    pub tools: Vec<ResponsesTool>,
    pub stream: bool,
    pub background: bool,
    /// Told back if it is an object.
    pub metadata: Value,
    pub keep_alive: Option<KeepAlive>,
    pub num_ctx: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "openai.ResponsesReasoning")]
pub struct ReasoningConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub effort: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "openai.ResponsesText")]
pub struct TextConfig {
    pub format: TextFormat,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "openai.ResponsesTextFormat")]
pub struct TextFormat {
    /// `text`, `json_schema` or `json_object`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub schema: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Told back as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename = "openai.ResponsesTool")]
pub struct ResponsesTool {
    /// `function`; `namespace` for a group of them; `web_search` for the one that the server would run.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub description: Option<String>,
    pub strict: Option<bool>,
    pub parameters: Option<Map<String, Value>>,
    /// The members of a namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ResponsesTool>,
}

impl Default for TextFormat {
    fn default() -> TextFormat {
        TextFormat { kind: "text".to_owned(), name: String::new(), schema: Value::Null, strict: None }
    }
}

// === impl ResponsesRequest ===

impl ResponsesRequest {
    /// Whether the request has the tool that only a server with a search engine could run.
    pub fn wants_web_search(&self) -> bool {
        self.tools.iter().any(ResponsesTool::is_web_search)
    }

    /// The same request in Ollama's words.
    pub fn to_chat(&self) -> Result<ollama::ChatRequest> {
        let mut messages = Vec::new();
        if !self.instructions.is_empty() {
            messages.push(ollama::Message {
                role: "system".to_owned(),
                content: self.instructions.clone(),
                ..ollama::Message::default()
            });
        }
        items::translate(&self.input, &mut messages)?;
        Ok(ollama::ChatRequest {
            model: self.model.clone(),
            messages,
            tools: self.functions()?,
            stream: Some(self.stream),
            format: self.format(),
            keep_alive: self.keep_alive,
            options: Some(self.options()),
            think: think_of_effort(&self.reasoning.effort)?,
            ..ollama::ChatRequest::default()
        })
    }

    /// Unlike `temperature`, `top_p` is left to the Modelfile, as Ollama does here.
    fn options(&self) -> Map<String, Value> {
        let given = [
            ("temperature", Some(self.temperature.unwrap_or(1.0).into())),
            ("top_p", self.top_p.map(Value::from)),
            ("num_predict", self.max_output_tokens.map(Value::from)),
            ("num_ctx", self.num_ctx.map(Value::from)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    fn format(&self) -> Option<Value> {
        let format = &self.text.as_ref()?.format;
        match format.kind.as_str() {
            "json_object" => Some("json".into()),
            "json_schema" => Some(format.schema.clone()).filter(|schema| !schema.is_null()),
            _ => None,
        }
    }

    fn functions(&self) -> Result<Vec<ollama::Tool>> {
        let mut functions = Vec::new();
        for tool in &self.tools {
            tool.expand("", &mut functions)?;
        }
        if self.wants_web_search() {
            // A tool of the client's that has the name of the built-in one could not be told from it.
            functions.retain(|tool| tool["function"]["name"] != WEB_SEARCH);
            functions.push(json!({"type": "function", "function": {
                "name": WEB_SEARCH,
                "description": "Looks for current information on the web.",
                "parameters": {"type": "object", "required": ["query"], "properties": {
                    "query": {"type": "string", "description": "What to look for"}}}
            }}));
        }
        Ok(functions)
    }
}

// === impl ResponsesTool ===

impl ResponsesTool {
    fn is_web_search(&self) -> bool {
        self.kind == WEB_SEARCH
    }

    /// Appends what a model can call: this tool, or the members of a namespace under its name. A tool without a name
    /// is one that only OpenAI's own servers can run.
    fn expand(&self, namespace: &str, out: &mut Vec<ollama::Tool>) -> Result<()> {
        let is_within = namespace.is_empty() || self.name.starts_with(&format!("{namespace}."));
        let name = if is_within { self.name.clone() } else { format!("{namespace}.{}", self.name) };
        if self.kind == "namespace" {
            let namespace = if self.name.is_empty() { namespace } else { &name };
            return self.tools.iter().try_for_each(|member| member.expand(namespace, out));
        }
        if !self.name.is_empty() && !self.is_web_search() {
            let mut function = Map::new();
            function.insert("name".to_owned(), name.into());
            if let Some(description) = self.description.as_ref().filter(|text| !text.is_empty()) {
                function.insert("description".to_owned(), description.clone().into());
            }
            let parameters = match self.parameters.clone() {
                Some(parameters) => ollama::check_parameters(parameters.into()).map_err(|error| {
                    Error::invalid(format!("failed to unmarshal tool parameters: {error}"))
                })?,
                None => json!({"type": "object", "properties": {}}),
            };
            function.insert("parameters".to_owned(), parameters);
            out.push(json!({"type": "function", "function": function}));
        }
        Ok(())
    }
}
