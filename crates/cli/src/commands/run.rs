//! `run`: one answer to a prompt from the arguments or a pipe, or a conversation.

mod answer;
mod attach;
mod conversation;
mod editor;
mod help;
mod history;
mod save;
mod set;
mod wrap;

use std::{
    io::{IsTerminal, Read, stderr, stdin, stdout},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use api::{
    KeepAlive,
    ollama::{EmbedRequest, EmbedResponse, GenerateRequest, GenerateResponse, Input, ShowRequest, Think},
};
use futures::StreamExt;
use indicatif::ProgressBar;
use node::Sources;
use serde_json::{Map, Value};

use self::{
    answer::Answer,
    attach::{Attached, attach},
};
use super::{pull, show::Shown};
use crate::{
    args::{RunArgs, program},
    client::{Client, is_not_found},
    output::say,
};

/// A prompt longer than this is refused by every server of ours.
const MAX_PROMPT_BYTES: u64 = 64 << 20;
/// How often the sign of life turns while there is no answer yet.
const TICK: Duration = Duration::from_millis(100);

/// What is asked of every answer: set by the flags, and in a conversation by `/set`.
#[derive(Clone, Debug, Default)]
struct Wishes {
    model: String,
    keep_alive: Option<KeepAlive>,
    format: Option<Value>,
    think: Option<Think>,
    /// Whether somebody said so; else it follows what the model can do.
    think_is_chosen: bool,
    options: Map<String, Value>,
    verbose: bool,
    hide_thinking: bool,
    word_wrap: bool,
    /// Whether the files that a prompt names are sent along.
    takes_files: bool,
}

pub async fn run(client: &Client, arguments: RunArgs, sources: &Sources) -> Result<()> {
    let mut wishes = wishes(&arguments)?;
    let shown = show_or_pull(client, &arguments).await?;
    wishes.suit(&shown);
    let (prompt, interactive) = prompt(&arguments.prompt)?;
    if shown.can("embedding") && !shown.can("completion") {
        return embed(client, &arguments, prompt).await;
    }
    if interactive {
        return conversation::hold(client, wishes, shown, sources).await;
    }
    let mut answer = Answer::new(&wishes);
    tokio::select! {
        ended = generate(client, &wishes, prompt, &mut answer) => ended,
        // Dropping the stream closes the connection, which ends the sequence on the worker.
        _ = tokio::signal::ctrl_c() => answer.interrupt(),
    }
}

/// What the server knows of the model, which it pulls if it does not have it.
async fn show_or_pull(client: &Client, arguments: &RunArgs) -> Result<Shown> {
    match show(client, &arguments.model).await {
        Err(error) if is_not_found(&error) => {
            pull(client, &arguments.model, arguments.insecure).await?;
            show(client, &arguments.model).await
        }
        other => other,
    }
}

async fn show(client: &Client, model: &str) -> Result<Shown> {
    let request = ShowRequest { model: model.to_owned(), ..ShowRequest::default() };
    client.post("/api/show", &request).await
}

/// Has the model loaded before the first question, so that it waits for nothing.
async fn load(client: &Client, wishes: &Wishes) -> Result<()> {
    let request = GenerateRequest {
        model: wishes.model.clone(),
        keep_alive: wishes.keep_alive,
        options: Some(wishes.options.clone()).filter(|options| !options.is_empty()),
        stream: Some(false),
        ..GenerateRequest::default()
    };
    let sign = sign_of_life();
    let loaded = client.post::<GenerateResponse>("/api/generate", &request).await;
    sign.finish_and_clear();
    loaded.map(drop)
}

/// Turns on the terminal until it is cleared.
fn sign_of_life() -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let sign = ProgressBar::new_spinner();
    sign.enable_steady_tick(TICK);
    sign
}

fn wishes(arguments: &RunArgs) -> Result<Wishes> {
    let keep_alive = match &arguments.keepalive {
        None => None,
        Some(text) => Some(
            serde_json::from_value(Value::String(text.clone()))
                .with_context(|| format!("`--keepalive` must be a duration such as 5m, got {text}"))?,
        ),
    };
    let format = match arguments.format.as_deref() {
        None | Some("") => None,
        Some("json") => Some(Value::String("json".to_owned())),
        Some(schema) => {
            Some(serde_json::from_str(schema).context("`--format` must be json or a JSON schema")?)
        }
    };
    Ok(Wishes {
        model: arguments.model.clone(),
        keep_alive,
        format,
        think: arguments.think.as_deref().map(think).transpose()?,
        think_is_chosen: arguments.think.is_some(),
        verbose: arguments.verbose,
        hide_thinking: arguments.hidethinking,
        word_wrap: !arguments.nowordwrap,
        ..Wishes::default()
    })
}

fn think(text: &str) -> Result<Think> {
    match text {
        "true" => Ok(Think::Bool(true)),
        "false" => Ok(Think::Bool(false)),
        level if Think::LEVELS.contains(&level) => Ok(Think::Level(level.to_owned())),
        other => {
            bail!("invalid value for --think: \"{other}\" (must be true, false, high, medium, low, or max)")
        }
    }
}

impl Wishes {
    /// Follows what a model can do.
    fn suit(&mut self, shown: &Shown) {
        if !self.think_is_chosen {
            self.think = shown.can("thinking").then_some(Think::Bool(true));
        }
        // Older servers know no capabilities, but show the projector.
        let has_vision = |key: &String| key.contains(".vision.");
        self.takes_files = shown.can("vision")
            || shown.can("audio")
            || shown.response.projector_info.as_ref().is_some_and(|info| !info.is_empty())
            || shown.response.model_info.keys().any(has_vision);
    }

    fn attach(&self, prompt: String) -> Result<Attached> {
        if self.takes_files { attach(&prompt) } else { Ok(Attached { text: prompt, images: Vec::new() }) }
    }
}

/// The prompt from the pipe and the arguments, and whether somebody sits there to converse.
fn prompt(words: &[String]) -> Result<(String, bool)> {
    let mut parts = Vec::new();
    if !stdin().is_terminal() {
        let mut piped = Vec::new();
        let read = stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut piped);
        read.context("read the prompt from standard input")?;
        ensure!(
            piped.len() as u64 <= MAX_PROMPT_BYTES,
            "the prompt on standard input must have at most {MAX_PROMPT_BYTES} bytes"
        );
        parts.extend(Some(replaced(&piped)).filter(|text| !text.is_empty()));
    }
    parts.extend(words.iter().cloned());
    let interactive = words.is_empty() && stdin().is_terminal() && stdout().is_terminal();
    Ok((parts.join(" "), interactive))
}

/// As Go writes bytes that are no UTF-8 into JSON: a sign of its own stands for each of them.
fn replaced(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

async fn generate(client: &Client, wishes: &Wishes, prompt: String, answer: &mut Answer) -> Result<()> {
    let Attached { text: prompt, images } = wishes.attach(prompt)?;
    let request = GenerateRequest {
        model: wishes.model.clone(),
        prompt,
        images,
        format: wishes.format.clone(),
        keep_alive: wishes.keep_alive,
        think: wishes.think.clone(),
        ..GenerateRequest::default()
    };
    let is_load = request.prompt.is_empty();
    let sign = sign_of_life();
    let mut lines = std::pin::pin!(client.stream::<GenerateResponse, _>("/api/generate", &request).await?);
    while let Some(line) = lines.next().await {
        sign.finish_and_clear();
        let line = line?;
        answer.thinking(line.thinking.as_deref().unwrap_or_default())?;
        answer.content(&line.response)?;
        match line.done {
            true if is_load => answer.time(&line.metrics),
            true => answer.finish(&line.metrics)?,
            false => {}
        }
    }
    Ok(())
}

async fn embed(client: &Client, arguments: &RunArgs, prompt: String) -> Result<()> {
    let RunArgs { model, dimensions, truncate, .. } = arguments;
    if prompt.is_empty() {
        let program = program();
        bail!("embedding models require input text. Usage: {program} run {model} \"your text here\"");
    }
    let request = EmbedRequest {
        model: model.clone(),
        input: Input(vec![prompt]),
        dimensions: *dimensions,
        truncate: *truncate,
        ..EmbedRequest::default()
    };
    let response: EmbedResponse = client.post("/api/embed", &request).await?;
    let first = response.embeddings.first().context("the server sent no embedding")?;
    Ok(say(serde_json::to_string(first)?)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn suited(mut wishes: Wishes, shown: Value) -> Wishes {
        wishes.suit(&serde_json::from_value(shown).unwrap());
        wishes
    }

    #[test]
    fn a_model_that_can_think_does_unless_somebody_said_otherwise() {
        let thinker = json!({"capabilities": ["completion", "thinking"]});
        assert_eq!(suited(Wishes::default(), thinker.clone()).think, Some(Think::Bool(true)));
        assert_eq!(suited(Wishes::default(), json!({"capabilities": ["completion"]})).think, None);
        let silent = Wishes { think: Some(Think::Bool(false)), think_is_chosen: true, ..Wishes::default() };
        assert_eq!(suited(silent, thinker).think, Some(Think::Bool(false)));
    }

    #[test]
    fn files_are_sent_to_models_that_see_or_hear() {
        for (shown, takes_files) in [
            (json!({"capabilities": ["completion", "vision"]}), true),
            (json!({"capabilities": ["audio"]}), true),
            (json!({"projector_info": {"general.architecture": "clip"}}), true),
            (json!({"model_info": {"mllama.vision.block_count": 1}}), true),
            (json!({"capabilities": ["completion"]}), false),
        ] {
            assert_eq!(suited(Wishes::default(), shown.clone()).takes_files, takes_files, "{shown}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_one_by_one() {
        assert_eq!(replaced("a模".as_bytes()), "a模");
        assert_eq!(replaced(b"a\xffb\xe6\xa8c\xe6"), "a\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}");
    }

    #[test]
    fn thinking_has_levels() {
        assert_eq!(think("max").unwrap(), Think::Level("max".to_owned()));
        assert_eq!(
            think("hard").unwrap_err().to_string(),
            "invalid value for --think: \"hard\" (must be true, false, high, medium, low, or max)"
        );
    }
}
