//! The answer to `POST /api/show`.

use api::ollama::{ShowRequest, ShowResponse, TensorSummary};
use gguf::{Array, Gguf};
use serde_json::{Map, Number, Value, json};
use template::Kind;

use crate::home::{Home, Place};
use crate::modelfile::{Command, Modelfile};
use crate::{Digest, LayerKind, Model, Result, golang};

/// Metadata that has a field of its own in the response.
const SHOWN_ELSEWHERE: [&str; 2] = ["general.name", "tokenizer.chat_template"];

/// What a model without a template does: the prompt goes in as it is. Ollama shows it like this.
const NO_TEMPLATE: &str = "{{ .Prompt }}";

pub(crate) fn show(home: &dyn Home, model: &Model, request: &ShowRequest) -> Result<ShowResponse> {
    let system = if request.system.is_empty() { model.system.clone() } else { Some(request.system.clone()) };
    let file = model.weights.as_ref().and_then(|digest| header(home, model, digest));
    let projector = model.projector.as_ref().and_then(|digest| header(home, model, digest));
    Ok(ShowResponse {
        license: model.licenses.join("\n"),
        modelfile: modelfile(home, model, system.as_deref(), request.options.as_ref()),
        parameters: parameters(&model.parameters),
        template: template(model),
        system: system.unwrap_or_default(),
        details: model.details.clone(),
        messages: model.messages.clone(),
        model_info: file.as_ref().map(|gguf| model_info(gguf, request.verbose)).unwrap_or_default(),
        projector_info: projector.map(|gguf| metadata(&gguf, request.verbose)),
        tensors: file.as_ref().map(tensors).unwrap_or_default(),
        capabilities: model.capabilities.clone(),
        modified_at: model.modified_at_text(),
        requires: model.config.requires.clone(),
    })
}

/// The text of the template that makes prompts.
fn template(model: &Model) -> String {
    let text = match model.template_kind() {
        Kind::Jinja => &model.chat_template,
        Kind::Go | Kind::Plain => &model.template,
    };
    text.as_deref().unwrap_or(NO_TEMPLATE).to_owned()
}

/// A model whose weights are damaged can still be looked at.
fn header(home: &dyn Home, model: &Model, digest: &Digest) -> Option<Gguf> {
    let header = home.header(digest);
    let warn =
        |error: &gguf::Error| tracing::warn!(name = %model.name, %digest, %error, "weights cannot be read");
    header.inspect_err(warn).ok().map(|header| header.gguf)
}

/// One line per value; the key's column is as wide as Ollama's.
fn parameters(parameters: &Map<String, Value>) -> String {
    let lines = parameters.iter().flat_map(|(key, value)| {
        each(value).into_iter().map(move |value| format!("{key:<30} {}", golang::syntax(value)))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The members of a list, or the value itself.
fn each(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        other => vec![other],
    }
}

/// What would make this model again, with the request's system and options over the stored ones.
fn modelfile(
    home: &dyn Home,
    model: &Model,
    system: Option<&str>,
    options: Option<&Map<String, Value>>,
) -> String {
    let path = |digest: &Digest| home.place(Place::Blob(digest)).display().to_string();
    let mut commands = Vec::new();
    commands.extend(model.weights.iter().map(|digest| Command::From(path(digest))));
    commands.extend(model.adapters.iter().map(|digest| Command::Adapter(path(digest))));
    commands.extend(model.projector.iter().map(|digest| Command::From(path(digest))));
    let drafts = model.manifest.of_kind(LayerKind::Draft);
    commands.extend(drafts.map(|layer| Command::Draft(path(&layer.digest))));
    // A Jinja text is no Go template: with nothing else, the new model finds it in the weights as this one did.
    let without = model.chat_template.is_none().then(|| NO_TEMPLATE.to_owned());
    commands.extend(model.template.clone().or(without).map(Command::Template));
    commands.extend(system.map(|text| Command::System(text.to_owned())));
    let config = &model.config;
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    commands.extend(given(&config.renderer).map(Command::Renderer));
    commands.extend(given(&config.parser).map(Command::Parser));
    commands.extend(given(&config.requires).map(Command::Requires));
    let mut parameters = model.parameters.clone();
    parameters.extend(options.cloned().unwrap_or_default());
    for (name, value) in &parameters {
        commands.extend(
            each(value)
                .into_iter()
                .map(|value| Command::Parameter { name: name.clone(), value: golang::plain(value) }),
        );
    }
    commands.extend(model.licenses.iter().cloned().map(Command::License));
    commands.extend(
        model
            .messages
            .iter()
            .map(|message| Command::Message { role: message.role.clone(), content: message.content.clone() }),
    );
    format!(
        "# Modelfile generated by \"ollama show\"\n\
         # To build a new Modelfile based on this, replace FROM with:\n\
         # FROM {}\n\n{}",
        model.name.shortest(),
        Modelfile { commands }
    )
}

/// The metadata, sorted by key. Arrays, which may hold a whole vocabulary, are `null` unless asked for.
fn model_info(gguf: &Gguf, is_verbose: bool) -> Map<String, Value> {
    let mut info = metadata(gguf, is_verbose);
    SHOWN_ELSEWHERE.iter().for_each(|key| drop(info.remove(*key)));
    info.insert("general.parameter_count".to_owned(), gguf.parameter_count().into());
    info.sort_keys();
    info
}

fn metadata(gguf: &Gguf, is_verbose: bool) -> Map<String, Value> {
    let entries = gguf.metadata.iter();
    let mut info: Map<String, Value> =
        entries.map(|(key, value)| (key.to_owned(), metadata_value(value, is_verbose))).collect();
    info.sort_keys();
    info
}

fn metadata_value(value: &gguf::Value, is_verbose: bool) -> Value {
    use gguf::Value as From;
    match value {
        From::F32(number) => float32(*number),
        From::F64(number) => float64(*number),
        From::Bool(flag) => (*flag).into(),
        From::String(text) => text.clone().into(),
        From::Bytes(bytes) => String::from_utf8_lossy(bytes).into(),
        From::Array(array) if !is_verbose && !array.is_empty() => Value::Null,
        From::Array(array) => metadata_array(array),
        integer => integer
            .as_i64()
            .map(Value::from)
            .or_else(|| integer.as_u64().map(Value::from))
            .unwrap_or_default(),
    }
}

fn metadata_array(array: &Array) -> Value {
    match array {
        Array::U8(items) => json!(items),
        Array::I8(items) => json!(items),
        Array::U16(items) => json!(items),
        Array::I16(items) => json!(items),
        Array::U32(items) => json!(items),
        Array::I32(items) => json!(items),
        Array::F32(items) => items.iter().map(|number| float32(*number)).collect(),
        Array::Bool(items) => json!(items),
        Array::String(items) => json!(items),
        Array::Bytes(items) => items.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect(),
        Array::Nested(items) => items.iter().map(metadata_array).collect(),
        Array::U64(items) => json!(items),
        Array::I64(items) => json!(items),
        Array::F64(items) => items.iter().map(|number| float64(*number)).collect(),
    }
}

/// The digits that single precision needs and no more: `1e-05`, not `0.000009999999747378752`.
fn float32(number: f32) -> Value {
    float64(number.to_string().parse().unwrap_or_default())
}

/// Go writes a whole float without its fraction. JSON has no infinity; `null` says that there is no number.
fn float64(number: f64) -> Value {
    // Up to here every whole number has an exact `f64`.
    const EXACT: f64 = (1u64 << 53) as f64;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn tensors(gguf: &Gguf) -> Vec<TensorSummary> {
    let summary = |tensor: &gguf::Tensor| TensorSummary {
        name: tensor.name.clone(),
        kind: tensor.kind.name().to_owned(),
        shape: tensor.shape.clone(),
    };
    gguf.tensors.iter().map(summary).collect()
}
