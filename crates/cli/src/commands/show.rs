//! `show`: an overview in sections, or one raw field.

use std::fmt::Write;

use anyhow::{Result, bail};
use api::ollama::{ShowRequest, ShowResponse, TensorSummary};
use serde::Deserialize;
use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr;

use crate::{
    args::{ShowArgs, ShowPart},
    client::Client,
    format,
    output::{print, say},
};

/// An answer to `/api/show`, and what another server may say beside what ours says.
#[derive(Debug, Default, Deserialize)]
pub struct Shown {
    #[serde(flatten)]
    pub response: ShowResponse,
    #[serde(flatten)]
    pub more: More,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct More {
    /// What a stub of a model elsewhere is called there, and where that is.
    remote_model: String,
    remote_host: String,
}

impl Shown {
    pub fn can(&self, capability: &str) -> bool {
        self.response.capabilities.iter().any(|word| word == capability)
    }
}

pub async fn show(client: &Client, arguments: &ShowArgs) -> Result<()> {
    let chosen = chosen_part(&arguments.part)?;
    let request =
        ShowRequest { model: arguments.model.clone(), verbose: arguments.verbose, ..ShowRequest::default() };
    let Shown { response, more } = client.post("/api/show", &request).await?;
    match chosen {
        Some(Part::License) => say(response.license)?,
        Some(Part::Modelfile) => say(response.modelfile)?,
        Some(Part::Parameters) => say(response.parameters)?,
        Some(Part::System) => print(response.system)?,
        Some(Part::Template) => print(response.template)?,
        None => print(overview(&response, &more, arguments.verbose))?,
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Part {
    License,
    Modelfile,
    Parameters,
    System,
    Template,
}

fn chosen_part(part: &ShowPart) -> Result<Option<Part>> {
    let flags = [
        (part.license, Part::License),
        (part.modelfile, Part::Modelfile),
        (part.parameters, Part::Parameters),
        (part.system, Part::System),
        (part.template, Part::Template),
    ];
    let mut chosen = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, part)| part);
    match (chosen.next(), chosen.next()) {
        (first, None) => Ok(first),
        _ => bail!(
            "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
        ),
    }
}

/// The sections that `ollama show` prints.
pub fn overview(response: &ShowResponse, more: &More, verbose: bool) -> String {
    let mut text = String::new();
    section(&mut text, "Model", &model_rows(response, more));
    let capabilities: Vec<_> = response.capabilities.iter().map(|word| vec![word.clone()]).collect();
    section(&mut text, "Capabilities", &capabilities);
    section(&mut text, "Projector", &projector_rows(response.projector_info.as_ref()));
    let parameters: Vec<_> = response.parameters.lines().map(two_columns).collect();
    section(&mut text, "Parameters", &parameters);
    if verbose {
        section(&mut text, "Metadata", &metadata_rows(&response.model_info));
        let tensors: Vec<_> = response.tensors.iter().map(tensor_row).collect();
        section(&mut text, "Tensors", &tensors);
    }
    section(&mut text, "System", &head_rows(&response.system));
    section(&mut text, "License", &head_rows(&response.license));
    text
}

fn model_rows(response: &ShowResponse, more: &More) -> Vec<Vec<String>> {
    let (info, details) = (&response.model_info, &response.details);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let architecture = architecture(info).unwrap_or(&details.family);
    let number = |key: &str| integer(info, &format!("{architecture}.{key}")).map(|count| count.to_string());
    let counted = || integer(info, "general.parameter_count").map(format::number);
    present([
        ("Remote model", text(&more.remote_model)),
        ("Remote URL", text(&more.remote_host)),
        ("architecture", text(architecture)),
        ("parameters", text(&details.parameter_size).or_else(counted)),
        ("context length", number("context_length")),
        ("embedding length", number("embedding_length")),
        ("quantization", text(&details.quantization_level)),
        ("requires", text(&response.requires)),
    ])
}

fn projector_rows(info: Option<&Map<String, Value>>) -> Vec<Vec<String>> {
    let Some((info, architecture)) = info.and_then(|info| Some((info, architecture(info)?))) else {
        return Vec::new();
    };
    let number = |key: &str| integer(info, &format!("{architecture}.{key}")).map(|count| count.to_string());
    present([
        ("architecture", Some(architecture.to_owned())),
        ("parameters", integer(info, "general.parameter_count").map(format::number)),
        ("embedding length", number("vision.embedding_length")),
        ("dimensions", number("vision.projection_dim")),
    ])
}

fn architecture(info: &Map<String, Value>) -> Option<&str> {
    info.get("general.architecture").and_then(Value::as_str)
}

fn integer(info: &Map<String, Value>, key: &str) -> Option<u64> {
    let value = info.get(key)?;
    value.as_u64().or_else(|| value.as_f64().map(|number| number as u64))
}

fn present<const N: usize>(rows: [(&str, Option<String>); N]) -> Vec<Vec<String>> {
    rows.into_iter().filter_map(|(key, value)| Some(vec![key.to_owned(), value?])).collect()
}

fn tensor_row(tensor: &TensorSummary) -> Vec<String> {
    let shape: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
    vec![tensor.name.clone(), tensor.kind.clone(), format!("[{}]", shape.join(" "))]
}

fn two_columns(line: &str) -> Vec<String> {
    let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    vec![key.to_owned(), value.trim().to_owned()]
}

fn metadata_rows(info: &Map<String, Value>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = info.iter().map(|(key, value)| vec![key.clone(), short_value(value)]).collect();
    rows.sort();
    rows
}

/// A value on one line. Vocabularies have 200,000 entries: of an array as many are shown as the column has room for,
/// one at least.
fn short_value(value: &Value) -> String {
    /// What Ollama allows an array, with the brackets and two places between items.
    const ROOM: usize = 10;
    match value {
        Value::Array(items) => {
            let mut width = 1;
            let mut shown = Vec::new();
            for item in items {
                let item = short_value(item);
                width += item.width() + if shown.is_empty() { 0 } else { 2 };
                if width > ROOM && !shown.is_empty() {
                    break;
                }
                shown.push(item);
            }
            let more = items.len() - shown.len();
            let tail = if more > 0 { format!(" ...+{more} more") } else { String::new() };
            format!("[{}{tail}]", shown.join(" "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first two lines that say something, and dots where there is more.
fn head_rows(text: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut rows: Vec<_> = lines.by_ref().take(2).map(|line| vec![line.to_owned()]).collect();
    if lines.next().is_some() {
        rows.push(vec!["...".to_owned()]);
    }
    rows
}

fn section(text: &mut String, title: &str, rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "  {title}");
    for line in format::columns(rows) {
        let _ = writeln!(text, "    {line}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_overview_has_a_section_for_what_is_there() {
        let Value::Object(model_info) =
            json!({"general.architecture": "llama", "llama.context_length": 2048})
        else {
            panic!("an object was written");
        };
        let response = ShowResponse {
            model_info,
            parameters: "stop                           \"<|im_end|>\"".to_owned(),
            system: "one\n\ntwo\nthree".to_owned(),
            ..ShowResponse::default()
        };
        let text = overview(&response, &More::default(), false);
        assert!(
            text.starts_with("  Model\n    architecture      llama    \n    context length    2048     \n\n")
        );
        assert!(text.contains("  Parameters\n    stop    \"<|im_end|>\"    \n\n"));
        assert!(text.contains("  System\n    one    \n    two    \n    ...    \n\n"));
        assert!(!text.contains("License") && !text.contains("Capabilities"));
    }

    #[test]
    fn two_parts_at_once_are_refused() {
        let part =
            ShowPart { license: true, modelfile: true, parameters: false, template: false, system: false };
        assert!(chosen_part(&part).is_err());
    }

    #[test]
    fn long_arrays_are_shortened() {
        for (value, text) in [
            (json!([1, 2, 3, 4, 5]), "[1 2 3 ...+2 more]"),
            (json!([1, 2, 3]), "[1 2 3]"),
            (json!(["a"]), "[a]"),
            (json!(["<unk>", "<s>"]), "[<unk> ...+1 more]"),
            (
                json!(["a token that is longer than the column", "b"]),
                "[a token that is longer than the column ...+1 more]",
            ),
            (json!([]), "[]"),
            (json!(1.5), "1.5"),
            (json!(true), "true"),
        ] {
            assert_eq!(short_value(&value), text);
        }
    }

    #[test]
    fn the_rarer_sections_are_those_of_ollama() {
        let Shown { response, more } = serde_json::from_value(json!({
            "remote_model": "far", "remote_host": "https://there", "requires": "0.20.0",
            "model_info": {"general.architecture": "x", "general.parameter_count": 7_241_732_096_u64, "a": [1]},
            "projector_info": {
                "general.architecture": "clip", "general.parameter_count": 600_000_000,
                "clip.vision.embedding_length": 1024, "clip.vision.projection_dim": 768
            },
            "tensors": [{"name": "output.weight", "type": "Q4_1", "shape": [576, 49152]}]
        }))
        .unwrap();
        let expected = "  Model
    Remote model    far
    Remote URL      https://there
    architecture    x
    parameters      7.2B
    requires        0.20.0

  Projector
    architecture        clip
    parameters          600M
    embedding length    1024
    dimensions          768

  Metadata
    a                          [1]
    general.architecture       x
    general.parameter_count    7241732096

  Tensors
    output.weight    Q4_1    [576 49152]

";
        let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        assert_eq!(trimmed(&overview(&response, &more, true)), trimmed(expected));
    }
}
