//! API scenarios: a request and what must come back, as YAML, for any server that speaks Ollama's API.

mod values;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;

pub use self::values::Saved;

/// One file: scenarios that share a subject, played in their order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What computes the answers: a real engine, or the scripted one, which says what a prompt asks it to say
    /// (`[[say TEXT]]`). Only our own server has that one.
    #[serde(default)]
    pub engine: Engine,
    /// The lines of the file of API keys of the server; none = it asks for no key. Only our own server has keys.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Variables of the server's environment; then, too, only our own server is asked.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    pub scenarios: Vec<Scenario>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    #[default]
    Candle,
    Scripted,
}

impl File {
    /// Whether any server can be asked as it was started.
    pub fn is_for_all(&self) -> bool {
        self.engine == Engine::Candle && self.keys.is_empty() && self.environment.is_empty()
    }
}

/// One promise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A sentence of behaviour.
    pub name: String,
    /// Why this is not so at other servers; then they are not asked.
    pub ours: Option<String>,
    /// Asked again until it holds: for what follows an answer, such as an unload.
    #[serde(default)]
    pub eventually: bool,
    pub request: Request,
    pub expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Method and path: `POST /api/chat`.
    pub line: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sent as JSON; a text `~saved NAME` is what an earlier answer of the file had there.
    pub json: Option<Value>,
    /// Sent as it is, without a content type.
    pub text: Option<String>,
    /// The same for bytes that are no text.
    pub base64: Option<String>,
    /// Sent: this many spaces, then `text`; for bodies above a bound.
    #[serde(default)]
    pub padding: usize,
}

/// Where values are expected, a text that begins with `~` stands for more than itself; see [`Saved::check`].
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    pub status: u16,
    /// Exact values, or what `~like` stands for; an empty one means that the header must be absent.
    pub headers: BTreeMap<String, String>,
    /// The exact body.
    pub body: Option<String>,
    /// Parts of the body.
    pub contains: Vec<String>,
    /// Parts that must not be there.
    pub lacks: Vec<String>,
    /// The body's JSON must have these values at these JSON pointers.
    pub json: BTreeMap<String, Value>,
    /// The same for the list of all frames: lines of NDJSON, or the `data` of events but for `[DONE]`.
    pub frames: BTreeMap<String, Value>,
    /// The same for the last frame.
    pub last: BTreeMap<String, Value>,
    /// The same for every frame.
    pub every: BTreeMap<String, Value>,
    /// At least so many frames.
    pub lines: usize,
    /// Kept for later requests and answers of the file: a name, and a JSON pointer into the body or the last frame.
    pub save: BTreeMap<String, String>,
}

/// An answer above this breaks a scenario: none of ours is so long.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// What follows an answer follows at once, even on a busy machine.
const MAX_FOLLOW: Duration = Duration::from_secs(20);

pub fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// Sends the request to `base` and checks the answer.
pub async fn play(client: &Client, base: &str, scenario: &Scenario, saved: &mut Saved) -> Result<()> {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let played = ask(client, base, scenario, saved).await;
        if played.is_ok() || !scenario.eventually || began.elapsed() > MAX_FOLLOW {
            return played;
        }
    }
}

async fn ask(client: &Client, base: &str, scenario: &Scenario, saved: &mut Saved) -> Result<()> {
    let request = &scenario.request;
    let (method, path) = request.line.split_once(' ').context("`line` must be a method and a path")?;
    let mut builder = client.request(Method::from_bytes(method.as_bytes())?, format!("{base}{path}"));
    builder = builder.timeout(MAX_WAIT);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some(json) = &request.json {
        let body = serde_json::to_vec(&saved.fill(json)?)?;
        builder = builder.header("content-type", "application/json").body(body);
    } else if let Some(base64) = &request.base64 {
        builder = builder.body(STANDARD.decode(base64)?);
    } else if request.text.is_some() || request.padding > 0 {
        let text = request.text.as_deref().unwrap_or_default();
        builder = builder.body(" ".repeat(request.padding) + text);
    }
    let response = builder.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await?;
    let expect = &scenario.expect;
    ensure!(status == expect.status, "status is {status}, not {}: {body}", expect.status);
    let header =
        |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
    for (name, wanted) in &expect.headers {
        let found = header(name);
        let is_right = wanted.strip_prefix("~like ").map(|pattern| values::is_like(pattern, found));
        ensure!(is_right.unwrap_or(found == wanted), "header {name} is {found:?}, not {wanted:?}");
    }
    check_body(expect, &body, header("content-type").starts_with("text/event-stream"), saved)
}

fn check_body(expect: &Expect, body: &str, is_events: bool, saved: &mut Saved) -> Result<()> {
    if let Some(wanted) = &expect.body {
        ensure!(body == wanted, "body is {body:?}, not {wanted:?}");
    }
    for part in &expect.contains {
        ensure!(body.contains(part.as_str()), "body lacks {part:?}: {body}");
    }
    for part in &expect.lacks {
        ensure!(!body.contains(part.as_str()), "body has {part:?}: {body}");
    }
    if !expect.json.is_empty() {
        let value = serde_json::from_str(body).with_context(|| format!("the body is no JSON: {body}"))?;
        saved.check(&expect.json, &value)?;
    }
    let asks_frames = [&expect.frames, &expect.last, &expect.every].iter().any(|wanted| !wanted.is_empty());
    if expect.lines == 0 && !asks_frames && expect.save.is_empty() {
        return Ok(());
    }
    let frames = if is_events { events(body)? } else { lines(body)? };
    let (count, wanted) = (frames.len(), expect.lines.max(1));
    ensure!(count >= wanted, "{count} frames, not {wanted} or more: {body}");
    for frame in &frames {
        saved.check(&expect.every, frame)?;
    }
    let last = frames.last().context("there is no frame")?;
    saved.check(&expect.last, last)?;
    saved.keep(&expect.save, last)?;
    saved.check(&expect.frames, &Value::Array(frames))
}

/// Every line is JSON: an empty one would break clients.
fn lines(body: &str) -> Result<Vec<Value>> {
    let read = |line| serde_json::from_str(line).with_context(|| format!("a line is no JSON: {line:?}"));
    body.lines().map(read).collect()
}

/// Every line of a stream of events is empty, or names an event, or has data; nothing else is needed or sent.
fn events(body: &str) -> Result<Vec<Value>> {
    let mut frames = Vec::new();
    for line in body.lines().filter(|line| !line.is_empty() && !line.starts_with("event: ")) {
        let data = line.strip_prefix("data: ").with_context(|| format!("a line is no data: {line:?}"))?;
        if data != "[DONE]" {
            frames.push(serde_json::from_str(data).with_context(|| format!("data is no JSON: {line:?}"))?);
        }
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expect: &str, body: &str) -> Result<()> {
        let expect: Expect = serde_yaml_ng::from_str(expect).unwrap();
        check_body(
            &expect,
            body,
            body.starts_with("data") || body.starts_with("event"),
            &mut Saved::default(),
        )
    }

    #[test]
    fn a_wrong_value_is_found() {
        assert!(check("{status: 200, json: {/a: 1}}", "{\"a\":1}").is_ok());
        assert!(check("{status: 200, json: {/a: 2}}", "{\"a\":1}").is_err());
        assert!(check("{status: 200, last: {/done: true}}", "{\"done\":false}\n{\"done\":true}\n").is_ok());
        assert!(check("{status: 200, every: {/done: true}}", "{\"done\":false}\n{\"done\":true}").is_err());
        assert!(check("{status: 200, lines: 3}", "{}\n{}\n").is_err());
    }

    #[test]
    fn a_blank_line_is_no_frame() {
        assert!(check("{status: 200, lines: 1}", "{}\n\n{}\n").is_err());
    }

    #[test]
    fn events_are_frames_without_their_end_mark() {
        let body = "event: a\ndata: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: [DONE]\n\n";
        assert!(check("{status: 200, frames: {/0/n: 1, /1/n: 2, /2: ~absent}, last: {/n: 2}}", body).is_ok());
        assert!(check("{status: 200, last: {/n: 2}}", "data: {}\n: a comment\n\n").is_err());
    }
}
