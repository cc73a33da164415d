//! `POST /v1/completions`, the elder of OpenAI's routes: a prompt and its continuation.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::SYSTEM_FINGERPRINT;
use super::chat::{StreamOptions, go_type};
use super::completion::{Usage, finish_reason};
use super::error::ErrorBody;
use super::stream::Header;
use crate::KeepAlive;
use crate::error::{Error, Result};
use crate::events::{Events, Translation};
use crate::ollama::{DebugInfo, DoneReason, GenerateRequest, GenerateResponse, Metrics};

/// `keep_alive` and `num_ctx` are Ollama's words, accepted here too. What is not named here (`best_of`, `echo`, `n`,
/// ..) is ignored, as Ollama does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename = "openai.CompletionRequest")]
pub struct CompletionRequest {
    pub model: String,
    pub prompt: String,
    pub frequency_penalty: f32,
    pub max_tokens: Option<i64>,
    pub presence_penalty: f32,
    pub seed: Option<i64>,
    /// A string or a list of them.
    pub stop: Value,
    pub stream: bool,
    pub stream_options: Option<StreamOptions>,
    pub temperature: Option<f32>,
    /// Zero is not given.
    pub top_p: f32,
    pub suffix: String,
    /// How many of the likeliest tokens are to be told; the answer has no room for them, as with Ollama.
    pub logprobs: Option<i64>,
    pub keep_alive: Option<KeepAlive>,
    pub num_ctx: Option<i64>,
    #[serde(rename = "_debug_render_only")]
    pub debug_render_only: bool,
}

/// The whole answer, or a part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Completion {
    pub id: String,
    pub object: &'static str,
    pub created: i64,
    pub model: String,
    pub system_fingerprint: &'static str,
    pub choices: Vec<TextChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    #[serde(rename = "_debug_info", skip_serializing_if = "Option::is_none")]
    pub debug_info: Option<DebugInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextChoice {
    pub text: String,
    pub index: u32,
    pub finish_reason: Option<&'static str>,
}

/// Ollama's stream of parts as chunks.
#[derive(Clone, Debug)]
pub struct CompletionStream {
    header: Header,
    is_over: bool,
}

// === impl CompletionRequest ===

impl CompletionRequest {
    /// The same request in Ollama's words.
    pub fn into_generate(self) -> Result<GenerateRequest> {
        let options = self.options()?;
        let top_logprobs = self.logprobs.unwrap_or(0).max(0);
        Ok(GenerateRequest {
            model: self.model,
            prompt: self.prompt,
            suffix: self.suffix,
            stream: Some(self.stream),
            keep_alive: self.keep_alive,
            options: Some(options),
            logprobs: top_logprobs > 0,
            top_logprobs,
            debug_render_only: self.debug_render_only,
            ..GenerateRequest::default()
        })
    }

    /// `temperature` and `top_p` are 1.0 unless given, whatever the Modelfile says: that is OpenAI's promise.
    fn options(&self) -> Result<Map<String, Value>> {
        let stop = match &self.stop {
            Value::String(text) => Some(json!([text])),
            Value::Array(items) => match items.iter().find(|item| !item.is_string()) {
                Some(other) => {
                    let kind = go_type(other);
                    return Err(Error::invalid(format!("invalid type for 'stop' field: {kind}")));
                }
                None => Some(json!(items)),
            },
            _ => None,
        };
        let top_p = if self.top_p == 0.0 { 1.0 } else { self.top_p };
        let given = [
            ("stop", stop),
            ("num_predict", self.max_tokens.map(Value::from)),
            ("num_ctx", self.num_ctx.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("frequency_penalty", Some(self.frequency_penalty.into())),
            ("presence_penalty", Some(self.presence_penalty.into())),
            ("temperature", Some(self.temperature.unwrap_or(1.0).into())),
            ("top_p", Some(top_p.into())),
        ];
        Ok(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }
}

// === impl Completion ===

impl Completion {
    /// The id of `header` is `cmpl-<number>`.
    pub fn new(header: &Header, response: GenerateResponse) -> Completion {
        let usage = Some(Usage::from(response.metrics));
        let debug_info = response.debug_info;
        let choice = TextChoice::new(response.response, response.done_reason);
        Completion { usage, debug_info, ..Completion::with(header, vec![choice]) }
    }

    fn with(header: &Header, choices: Vec<TextChoice>) -> Completion {
        Completion {
            id: header.id.clone(),
            object: "text_completion",
            created: header.created,
            model: header.model.clone(),
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage: None,
            debug_info: None,
        }
    }
}

impl TextChoice {
    fn new(text: String, reason: Option<DoneReason>) -> TextChoice {
        TextChoice { text, index: 0, finish_reason: finish_reason(reason, false) }
    }
}

// === impl CompletionStream ===

impl CompletionStream {
    pub fn new(header: Header) -> CompletionStream {
        CompletionStream { header, is_over: false }
    }

    /// Every chunk has a usage, of zeros, when one is wanted at the end.
    fn tell(&self, choices: Vec<TextChoice>, metrics: Metrics, events: &mut Events) {
        let usage = self.header.include_usage.then(|| Usage::from(metrics));
        events.data(&Completion { usage, ..Completion::with(&self.header, choices) });
    }

    fn finish(&mut self, metrics: Metrics, events: &mut Events) {
        self.is_over = true;
        if self.header.include_usage {
            self.tell(Vec::new(), metrics, events);
        }
        events.done();
    }
}

impl Translation for CompletionStream {
    type Part = GenerateResponse;

    fn push(&mut self, part: GenerateResponse, events: &mut Events) {
        if self.is_over {
            return;
        }
        let reason = match part.done {
            true => part.done_reason.or(Some(DoneReason::Stop)),
            false => None,
        };
        self.tell(vec![TextChoice::new(part.response, reason)], Metrics::default(), events);
        if part.done {
            self.finish(part.metrics, events);
        }
    }

    fn fail(&mut self, error: &Error, events: &mut Events) {
        if !self.is_over {
            self.is_over = true;
            events.data(&ErrorBody::from(error));
            events.done();
        }
    }

    fn end(&mut self, events: &mut Events) {
        if !self.is_over {
            let last = TextChoice::new(String::new(), Some(DoneReason::Stop));
            self.tell(vec![last], Metrics::default(), events);
            self.finish(Metrics::default(), events);
        }
    }
}
