//! `show`: an overview in sections, or one raw field.

use std::fmt::Write;

use anyhow::{Result, bail};
use api::ollama::{ShowRequest, ShowResponse};
use serde_json::{Map, Value};

use crate::{
    args::{ShowArgs, ShowPart},
    client::Client,
};

pub async fn show(client: &Client, arguments: &ShowArgs) -> Result<()> {
    let chosen = chosen_part(&arguments.part)?;
    let request =
        ShowRequest { model: arguments.model.clone(), verbose: arguments.verbose, ..ShowRequest::default() };
    let response: ShowResponse = client.post("/api/show", &request).await?;
    match chosen {
        Some(Part::License) => println!("{}", response.license),
        Some(Part::Modelfile) => println!("{}", response.modelfile),
        Some(Part::Parameters) => println!("{}", response.parameters),
        Some(Part::System) => print!("{}", response.system),
        Some(Part::Template) => print!("{}", response.template),
        None => print!("{}", overview(&response, arguments.verbose)),
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

fn overview(response: &ShowResponse, verbose: bool) -> String {
    let mut text = String::new();
    section(&mut text, "Model", &model_rows(response));
    let capabilities: Vec<_> = response.capabilities.iter().map(|word| vec![word.clone()]).collect();
    section(&mut text, "Capabilities", &capabilities);
    let parameters: Vec<_> = response.parameters.lines().map(two_columns).collect();
    section(&mut text, "Parameters", &parameters);
    if verbose {
        section(&mut text, "Metadata", &metadata_rows(&response.model_info));
        let tensors: Vec<_> = response
            .tensors
            .iter()
            .map(|tensor| vec![tensor.name.clone(), tensor.kind.clone(), format!("{:?}", tensor.shape)])
            .collect();
        section(&mut text, "Tensors", &tensors);
    }
    section(&mut text, "System", &head_rows(&response.system));
    section(&mut text, "License", &head_rows(&response.license));
    text
}

fn model_rows(response: &ShowResponse) -> Vec<Vec<String>> {
    let info = &response.model_info;
    let architecture =
        info.get("general.architecture").and_then(Value::as_str).unwrap_or(&response.details.family);
    let number = |key: &str| info.get(&format!("{architecture}.{key}")).and_then(Value::as_u64);
    let rows = [
        ("architecture", Some(architecture.to_owned())),
        ("parameters", Some(response.details.parameter_size.clone())),
        ("context length", number("context_length").map(|value| value.to_string())),
        ("embedding length", number("embedding_length").map(|value| value.to_string())),
        ("quantization", Some(response.details.quantization_level.clone())),
    ];
    rows.into_iter()
        .filter_map(|(key, value)| {
            value.filter(|value| !value.is_empty()).map(|value| vec![key.to_owned(), value])
        })
        .collect()
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

fn short_value(value: &Value) -> String {
    /// Enough of an array to recognise it; vocabularies have 200,000 entries.
    const SHOWN: usize = 3;
    match value {
        Value::Array(items) => {
            let shown: Vec<_> = items.iter().take(SHOWN).map(short_value).collect();
            let more = items.len().saturating_sub(SHOWN);
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
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let _ = writeln!(text, "  {title}");
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}    "));
        let _ = writeln!(text, "    {}", cells.collect::<String>());
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
        let text = overview(&response, false);
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
        assert_eq!(short_value(&json!([1, 2, 3, 4, 5])), "[1 2 3 ...+2 more]");
        assert_eq!(short_value(&json!(["a"])), "[a]");
    }
}
