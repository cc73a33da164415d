//! `run`: one answer to a prompt from the arguments or a pipe, or a conversation.

mod answer;
mod conversation;
mod wrap;

use std::io::{IsTerminal, Read, stdin, stdout};

use anyhow::{Context, Result, bail};
use api::{
    KeepAlive,
    ollama::{
        EmbedRequest, EmbedResponse, GenerateRequest, GenerateResponse, Input, ShowRequest, ShowResponse,
        Think,
    },
};
use futures::StreamExt;
use serde_json::Value;

use self::answer::Answer;
use crate::{
    args::RunArgs,
    client::{Client, is_not_found},
};

/// What the flags ask of every answer.
struct Wishes {
    model: String,
    keep_alive: Option<KeepAlive>,
    format: Option<Value>,
    think: Option<Think>,
    verbose: bool,
    hide_thinking: bool,
    word_wrap: bool,
}

pub async fn run(client: &Client, arguments: RunArgs) -> Result<()> {
    let shown = show(client, &arguments.model).await?;
    let has = |capability: &str| shown.capabilities.iter().any(|word| word == capability);
    let wishes = wishes(&arguments, has("thinking"))?;
    let (prompt, interactive) = prompt(&arguments.prompt)?;
    if has("embedding") && !has("completion") {
        return embed(client, &wishes.model, prompt, arguments.dimensions).await;
    }
    if interactive {
        conversation::hold(client, wishes).await
    } else {
        generate(client, &wishes, prompt).await
    }
}

async fn show(client: &Client, model: &str) -> Result<ShowResponse> {
    let request = ShowRequest { model: model.to_owned(), ..ShowRequest::default() };
    match client.post("/api/show", &request).await {
        Err(error) if is_not_found(&error) => Err(error.context(format!(
            "cannot run '{model}'; make it first: caravan create {model} -f Modelfile, with FROM and the path of a GGUF \
             file in the Modelfile"
        ))),
        other => other,
    }
}

fn wishes(arguments: &RunArgs, can_think: bool) -> Result<Wishes> {
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
    let think = match arguments.think.as_deref() {
        None => can_think.then_some(Think::Bool(true)),
        Some("true") => Some(Think::Bool(true)),
        Some("false") => Some(Think::Bool(false)),
        Some(level @ ("low" | "medium" | "high" | "max")) => Some(Think::Level(level.to_owned())),
        Some(other) => {
            bail!("invalid value for --think: \"{other}\" (must be true, false, high, medium, low, or max)")
        }
    };
    Ok(Wishes {
        model: arguments.model.clone(),
        keep_alive,
        format,
        think,
        verbose: arguments.verbose,
        hide_thinking: arguments.hidethinking,
        word_wrap: !arguments.nowordwrap && stdout().is_terminal(),
    })
}

/// The prompt from the pipe and the arguments, and whether somebody sits there to converse.
fn prompt(words: &[String]) -> Result<(String, bool)> {
    let mut parts = Vec::new();
    if !stdin().is_terminal() {
        let mut piped = String::new();
        stdin().read_to_string(&mut piped).context("read the prompt from standard input")?;
        parts.extend(Some(piped).filter(|text| !text.is_empty()));
    }
    parts.extend(words.iter().cloned());
    let interactive = words.is_empty() && stdin().is_terminal() && stdout().is_terminal();
    Ok((parts.join(" "), interactive))
}

async fn generate(client: &Client, wishes: &Wishes, prompt: String) -> Result<()> {
    let request = GenerateRequest {
        model: wishes.model.clone(),
        prompt,
        format: wishes.format.clone(),
        keep_alive: wishes.keep_alive,
        think: wishes.think.clone(),
        ..GenerateRequest::default()
    };
    let mut answer = Answer::new(wishes);
    let mut lines = std::pin::pin!(client.stream::<GenerateResponse, _>("/api/generate", &request).await?);
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Some(line) => {
                    let line = line?;
                    answer.thinking(line.thinking.as_deref().unwrap_or_default())?;
                    answer.content(&line.response)?;
                    if line.done {
                        answer.finish(&line.metrics)?;
                    }
                }
                None => return Ok(()),
            },
            // Dropping the stream closes the connection, which ends the sequence on the worker.
            _ = tokio::signal::ctrl_c() => return answer.interrupt(),
        }
    }
}

async fn embed(client: &Client, model: &str, prompt: String, dimensions: Option<i64>) -> Result<()> {
    if prompt.is_empty() {
        bail!("embedding models require input text. Usage: caravan run {model} \"your text here\"");
    }
    let request = EmbedRequest {
        model: model.to_owned(),
        input: Input(vec![prompt]),
        dimensions,
        ..EmbedRequest::default()
    };
    let response: EmbedResponse = client.post("/api/embed", &request).await?;
    let first = response.embeddings.first().context("the server sent no embedding")?;
    println!("{}", serde_json::to_string(first)?);
    Ok(())
}
