//! API scenarios: a request and what must come back, as YAML, for any server that speaks Ollama's API.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::Value;

/// One file: scenarios that share a subject.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub scenarios: Vec<Scenario>,
}

/// One promise.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A sentence of behaviour.
    pub name: String,
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
    /// Sent as JSON.
    pub json: Option<Value>,
    /// Sent as it is.
    pub text: Option<String>,
    /// Sent: this many spaces, then `text`; for bodies above a bound.
    #[serde(default)]
    pub padding: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    pub status: u16,
    /// Exact values; an empty one means that the header must be absent.
    pub headers: BTreeMap<String, String>,
    /// The exact body.
    pub body: Option<String>,
    /// Parts of the body.
    pub contains: Vec<String>,
    /// Parts that must not be there.
    pub lacks: Vec<String>,
    /// The body (or each frame's JSON) must have these values at these JSON pointers. `~any` means anything but
    /// null, `~absent` that nothing is there.
    pub json: BTreeMap<String, Value>,
    /// The same for the last line of NDJSON.
    pub last: BTreeMap<String, Value>,
    /// The same for every line of NDJSON.
    pub every: BTreeMap<String, Value>,
    /// At least so many lines.
    pub lines: usize,
}

/// An answer above this breaks a scenario: none of ours is so long.
const MAX_WAIT: Duration = Duration::from_secs(120);

pub fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// Sends the request to `base` and checks the answer.
pub async fn play(client: &Client, base: &str, scenario: &Scenario) -> Result<()> {
    let request = &scenario.request;
    let (method, path) = request.line.split_once(' ').context("`line` must be a method and a path")?;
    let mut builder = client.request(Method::from_bytes(method.as_bytes())?, format!("{base}{path}"));
    builder = builder.timeout(MAX_WAIT);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some(json) = &request.json {
        builder = builder.header("content-type", "application/json").body(serde_json::to_vec(json)?);
    } else if request.text.is_some() || request.padding > 0 {
        let text = request.text.as_deref().unwrap_or_default();
        builder = builder.body(" ".repeat(request.padding) + text);
    }
    let response = builder.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await?;
    let expect = &scenario.expect;
    ensure!(status == expect.status, "status is {status}, not {}: {body}", expect.status);
    for (name, wanted) in &expect.headers {
        let found = headers.get(name).map(|value| value.to_str().unwrap_or("?")).unwrap_or_default();
        ensure!(found == wanted, "header {name} is {found:?}, not {wanted:?}");
    }
    check_body(expect, &body)
}

fn check_body(expect: &Expect, body: &str) -> Result<()> {
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
        check_values(&expect.json, &value)?;
    }
    if expect.lines == 0 && expect.last.is_empty() && expect.every.is_empty() {
        return Ok(());
    }
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line is no JSON: {line:?}")))
        .collect::<Result<_>>()?;
    ensure!(
        lines.len() >= expect.lines.max(1),
        "{} lines, not {} or more: {body}",
        lines.len(),
        expect.lines
    );
    for line in &lines {
        check_values(&expect.every, line)?;
    }
    check_values(&expect.last, lines.last().context("the body has no line")?)
}

fn check_values(wanted: &BTreeMap<String, Value>, value: &Value) -> Result<()> {
    for (pointer, wanted) in wanted {
        let found = value.pointer(pointer);
        let is_right = match wanted.as_str() {
            Some("~any") => found.is_some_and(|found| !found.is_null()),
            Some("~absent") => found.is_none(),
            _ => found == Some(wanted),
        };
        ensure!(is_right, "{pointer} is {found:?}, not {wanted}: {value}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_value_is_found() {
        let expect = |text: &str| serde_yaml_ng::from_str::<Expect>(text).unwrap();
        assert!(check_body(&expect("{status: 200, json: {/a: 1}}"), "{\"a\":1}").is_ok());
        assert!(check_body(&expect("{status: 200, json: {/a: 2}}"), "{\"a\":1}").is_err());
        assert!(check_body(&expect("{status: 200, json: {/b: ~absent}}"), "{\"a\":1}").is_ok());
        assert!(check_body(&expect("{status: 200, json: {/a: ~absent}}"), "{\"a\":1}").is_err());
        assert!(
            check_body(&expect("{status: 200, last: {/done: true}}"), "{\"done\":false}\n{\"done\":true}\n")
                .is_ok()
        );
        assert!(
            check_body(&expect("{status: 200, every: {/done: true}}"), "{\"done\":false}\n{\"done\":true}")
                .is_err()
        );
        assert!(check_body(&expect("{status: 200, lines: 3}"), "{}\n{}\n").is_err());
    }

    #[test]
    fn pointers_reach_into_arrays() {
        assert!(
            check_values(&[("/a/0/b".to_owned(), json!("~any"))].into(), &json!({"a": [{"b": 0}]})).is_ok()
        );
    }
}
