//! From a request to the tokens that the engine reads, and to what must be known to read its answer.
//!
//! Which template is used is Ollama's rule: the request's own, else the model's Go template or the Jinja template in
//! its file, whichever serves the request better, else the bare prompt. Slow for a long conversation, so it runs on a
//! blocking thread.

mod conversation;
mod templates;
mod window;

use std::sync::Arc;

use api::Error;
use engine::{Info, Tokenizer};
use jiff::civil::Date;
use protocol::v1::{GenerateRequest, generate_request::Input};
use serde_json::Value;
use template::Values;

use self::{
    templates::{Chosen, Templates},
    window::Window,
};
use crate::{
    hash,
    reply::{self, Offer, Tags, ToolSpec},
};

/// Builds the prompts of one replica.
#[derive(Debug)]
pub struct Prompts {
    info: Info,
    tokenizer: Arc<Tokenizer>,
    templates: Templates,
}

/// A prompt that fits the context.
#[derive(Debug)]
pub struct Prompt {
    /// As it was rendered, before any cut of tokens.
    pub text: String,
    pub tokens: Vec<u32>,
    pub reply: reply::Spec,
    /// Made by a Jinja template.
    pub is_jinja: bool,
}

// === impl Prompts ===

impl Prompts {
    pub fn new(info: Info, tokenizer: Arc<Tokenizer>) -> Prompts {
        let templates = Templates::new(info.chat_template.as_deref());
        Prompts { info, tokenizer, templates }
    }

    /// Within `context_length` tokens. `today` is the local date; some templates put it into the system message.
    pub fn build(
        &self,
        request: &GenerateRequest,
        context_length: usize,
        today: Date,
    ) -> Result<Prompt, Error> {
        let window = Window::new(context_length, request);
        match &request.input {
            Some(Input::Raw(text)) => {
                self.finish(self.tokenize(text, request)?, window, Reading::plain(request))
            }
            Some(Input::Infill(infill)) => {
                let chosen = self.templates.for_infill(request)?;
                let values = Values {
                    prompt: infill.prefix.clone(),
                    suffix: infill.suffix.clone(),
                    ..self.values(request, today)?
                };
                let rendered = self.tokenize(&chosen.render(&values)?, request)?;
                self.finish(rendered, window, Reading::plain(request))
            }
            Some(Input::Conversation(conversation)) => {
                let chosen = self.templates.for_conversation(request)?;
                let mut values = self.values(request, today)?;
                values.tools = conversation::tools(&conversation.tools)?;
                let messages = conversation::messages(conversation, model_name(request))?;
                let render = |values: &Values| self.tokenize(&chosen.render(values)?, request);
                let rendered = window.fit_messages(messages, &mut values, render)?;
                self.finish(
                    rendered,
                    window,
                    Reading { request, chosen: Some(&chosen), tools: &values.tools },
                )
            }
            None => Err(Error::invalid("`input` is missing")),
        }
    }

    fn values(&self, request: &GenerateRequest, today: Date) -> Result<Values, Error> {
        let think = request.think.as_ref();
        Ok(Values {
            think: think.map(|think| template::Think { on: think.on, level: think.level.clone() }),
            bos_token: self.info.bos.clone(),
            eos_token: self.info.eos.clone(),
            add_generation_prompt: true,
            today,
            ..Values::default()
        })
    }

    /// The tokens of an earlier answer go before the text, and bring their own beginning of sequence.
    fn tokenize(&self, text: &str, request: &GenerateRequest) -> Result<Rendered, Error> {
        let vocab_size = self.info.vocab_size;
        if let Some(token) = request.context.iter().find(|token| **token as usize >= vocab_size) {
            let text = format!("`context` must hold tokens below {vocab_size}, got {token}");
            return Err(Error::invalid(text));
        }
        let mut tokens = request.context.clone();
        // A template may write the beginning of sequence itself; the tokenizer does not add a second.
        tokens.extend(self.tokenizer.encode(text, true, request.context.is_empty()));
        let mut whole = self.text_of(&request.context);
        whole.push_str(text);
        Ok(Rendered { text: whole, tokens })
    }

    fn text_of(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> =
            tokens.iter().flat_map(|token| self.tokenizer.piece_with_special(*token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn finish(&self, rendered: Rendered, window: Window, reading: Reading<'_>) -> Result<Prompt, Error> {
        let Rendered { text, tokens } = rendered;
        let begins_with_bos = self.info.add_bos && tokens.first().copied() == self.tokenizer.bos();
        let tokens = window.fit_tokens(tokens, usize::from(begins_with_bos))?;
        let reply = reading.spec(&text, &tokens);
        Ok(Prompt { text, tokens, reply, is_jinja: reading.chosen.is_some_and(Chosen::is_jinja) })
    }
}

#[derive(Debug)]
struct Rendered {
    text: String,
    tokens: Vec<u32>,
}

// === how the answer is to be read ===

struct Reading<'a> {
    request: &'a GenerateRequest,
    /// `None` = the answer is text and nothing else.
    chosen: Option<&'a Chosen>,
    tools: &'a [Value],
}

impl<'a> Reading<'a> {
    fn plain(request: &'a GenerateRequest) -> Reading<'a> {
        Reading { request, chosen: None, tools: &[] }
    }

    fn spec(&self, text: &str, tokens: &[u32]) -> reply::Spec {
        let options = self.request.options.as_ref();
        reply::Spec {
            stops: options.map(|options| options.stop.clone()).unwrap_or_default(),
            thinking: self.thinking(text),
            tools: self.tool_spec(hash::tokens(tokens) ^ options.map_or(0, |options| options.seed)),
        }
    }

    /// Told apart only when the request wants thinking; else its tags stay in the content.
    fn thinking(&self, text: &str) -> Option<Tags> {
        self.request.think.as_ref().filter(|think| think.on)?;
        let chosen = self.chosen?;
        let (open, close) = chosen.thinking_tags()?;
        let inside = chosen.begins_inside() || text.trim_end().ends_with(&open);
        Some(Tags { open, close, inside })
    }

    /// The prompt is part of the seed: a fixed seed must not give the calls of different turns the same ids.
    fn tool_spec(&self, id_seed: u64) -> Option<ToolSpec> {
        let offers: Vec<Offer> = self.tools.iter().filter_map(conversation::offer).collect();
        if offers.is_empty() {
            return None;
        }
        Some(ToolSpec { dress: self.chosen?.dress()?, offers, id_seed })
    }
}

fn model_name(request: &GenerateRequest) -> &str {
    request.model.as_ref().map_or("", |model| &model.name)
}

#[cfg(test)]
mod tests;
