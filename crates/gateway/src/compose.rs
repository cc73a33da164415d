//! From a client's request and a stored model to what a worker runs: options, capabilities, messages
//! (reference: api.md sections 1 to 3). Pure but for the seed that it draws.

use api::gojson::quote;
use api::ollama::{ChatRequest, GenerateRequest, Message, Think};
use api::options::RunOptions;
use api::{Error, KeepAlive, Options, Result};
use protocol::v1;
use protocol::v1::generate_request::Input;
use serde_json::{Map, Value};
use store::Model;

use crate::errand::Errand;

mod history;

/// Ollama's bound.
const MAX_TOP_LOGPROBS: i64 = 20;

/// A request in a worker's words, and what placement must know to find that worker.
#[derive(Clone, Debug)]
pub struct Composed {
    pub request: v1::GenerateRequest,
    pub errand: Errand,
}

/// Who asks, and what the operator has set; the same for every route.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    pub request_id: &'a str,
    /// `OLLAMA_CONTEXT_LENGTH`; 0 = automatic.
    pub context_length: u32,
    /// `OLLAMA_KEEP_ALIVE`; `None` = the worker's own default.
    pub keep_alive: Option<KeepAlive>,
}

/// What an errand needs, when there is nothing (yet) to generate.
pub fn errand(
    model: &Model,
    options: Option<&Map<String, Value>>,
    keep_alive: Option<KeepAlive>,
    circumstances: Circumstances,
) -> Result<Errand> {
    let options = effective_options(model, options)?;
    Ok(Errand::new(model, &options.load, keep_alive, circumstances))
}

/// The worker's request for `POST /api/generate` with a prompt.
pub fn generate(model: &Model, request: GenerateRequest, circumstances: Circumstances) -> Result<Composed> {
    check_generate(model, &request)?;
    let options = effective_options(model, request.options.as_ref())?;
    let think = think(model, &request.model, request.think.as_ref())?;
    let errand = Errand::new(model, &options.load, request.keep_alive, circumstances);
    let context = request.context.iter().map(|token| u32::try_from(*token));
    let context = context.collect::<Result<Vec<u32>, _>>().map_err(|_| {
        Error::invalid("`context` must be token ids between 0 and 4294967295, as an earlier answer gave them")
    })?;
    let template_from_request = !request.template.is_empty();
    let template = if template_from_request { request.template } else { template(model) };
    let input = if request.raw {
        Input::Raw(request.prompt)
    } else if !request.suffix.is_empty() {
        Input::Infill(v1::Infill { prefix: request.prompt, suffix: request.suffix })
    } else {
        let user = Message {
            role: "user".to_owned(),
            content: request.prompt,
            images: request.images,
            ..Message::default()
        };
        let messages = history::for_prompt(model, request.system, user, !context.is_empty());
        Input::Conversation(conversation(messages, &[]))
    };
    let request = v1::GenerateRequest {
        request_id: circumstances.request_id.to_owned(),
        model: Some(errand.model.clone()),
        input: Some(input),
        template,
        template_from_request,
        options: Some(run_options(&options.run)),
        format: format(request.format.as_ref())?,
        think,
        context,
        truncate: request.truncate.unwrap_or(true),
        shift: request.shift.unwrap_or(true),
        logprobs: request.logprobs,
        top_logprobs: top_logprobs(request.top_logprobs)?,
        render_only: request.debug_render_only,
        keep_alive_ns: request.keep_alive.map(keep_alive_ns),
        resume: None,
        context_length: errand.load.num_ctx,
        parser: model.config.parser.clone(),
    };
    Ok(Composed { request, errand })
}

/// The worker's request for `POST /api/chat` with messages.
pub fn chat(model: &Model, request: ChatRequest, circumstances: Circumstances) -> Result<Composed> {
    check_chat(model, &request)?;
    let options = effective_options(model, request.options.as_ref())?;
    let think = think(model, &request.model, request.think.as_ref())?;
    let errand = Errand::new(model, &options.load, request.keep_alive, circumstances);
    let messages = history::for_chat(model, request.messages);
    let request = v1::GenerateRequest {
        request_id: circumstances.request_id.to_owned(),
        model: Some(errand.model.clone()),
        input: Some(Input::Conversation(conversation(messages, &request.tools))),
        template: template(model),
        template_from_request: false,
        options: Some(run_options(&options.run)),
        format: format(request.format.as_ref())?,
        think,
        context: Vec::new(),
        truncate: request.truncate.unwrap_or(true),
        shift: request.shift.unwrap_or(true),
        logprobs: request.logprobs,
        top_logprobs: top_logprobs(request.top_logprobs)?,
        render_only: request.debug_render_only,
        keep_alive_ns: request.keep_alive.map(keep_alive_ns),
        resume: None,
        context_length: errand.load.num_ctx,
        parser: model.config.parser.clone(),
    };
    Ok(Composed { request, errand })
}

/// What a model must be able to do to be loaded by `/api/generate` at all.
pub fn check_generate(model: &Model, request: &GenerateRequest) -> Result<()> {
    top_logprobs(request.top_logprobs)?;
    model.check_builtins()?;
    if request.raw
        && !(request.template.is_empty() && request.system.is_empty() && request.context.is_empty())
    {
        return Err(Error::invalid("raw mode does not support template, system, or context"));
    }
    require(model, &[("insert", !request.suffix.is_empty())])?;
    if !model.can("completion") {
        return Err(Error::invalid(format!("{} does not support generate", quote(&request.model))));
    }
    require(model, &[("vision", !request.images.is_empty())])?;
    think(model, &request.model, request.think.as_ref()).map(drop)
}

/// What a model must be able to do to be loaded by `/api/chat` at all.
pub fn check_chat(model: &Model, request: &ChatRequest) -> Result<()> {
    top_logprobs(request.top_logprobs)?;
    model.check_builtins()?;
    if !model.can("completion") {
        return Err(Error::invalid(format!("{} does not support chat", quote(&request.model))));
    }
    let sees = request.messages.iter().any(|message| !message.images.is_empty());
    require(model, &[("tools", !request.tools.is_empty()), ("vision", sees)])?;
    think(model, &request.model, request.think.as_ref()).map(drop)
}

/// Empty where the file's own template makes the prompts.
fn template(model: &Model) -> String {
    model.prompt_template().unwrap_or_default().to_owned()
}

pub fn keep_alive_ns(keep_alive: KeepAlive) -> i64 {
    if keep_alive == KeepAlive::FOREVER { -1 } else { keep_alive.nanos() }
}

/// Each capability, and whether the request needs it. All that are missing are told at once, as Ollama does.
fn require(model: &Model, needs: &[(&str, bool)]) -> Result<()> {
    let missing = needs.iter().filter(|(capability, is_needed)| *is_needed && !model.can(capability));
    let missing: Vec<&str> = missing.map(|(capability, _)| *capability).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!("{} does not support {}", model.name.full(), missing.join("\n"))))
}

/// Defaults, then the Modelfile's parameters, then the request's options.
fn effective_options(model: &Model, request: Option<&Map<String, Value>>) -> Result<Options> {
    let mut options = Options::default();
    let mut unknown = options.merge(&model.parameters)?;
    if let Some(request) = request {
        unknown.extend(options.merge(request)?);
    }
    if !unknown.is_empty() {
        tracing::debug!(?unknown, "options that mean nothing here are ignored");
    }
    Ok(options)
}

/// A model that can think does so unless told not to.
fn think(model: &Model, asked: &str, think: Option<&Think>) -> Result<Option<v1::Think>> {
    match think {
        Some(think) if think.is_on() && !model.can("thinking") => {
            Err(Error::invalid(format!("{} does not support thinking", quote(asked))))
        }
        Some(Think::Level(level)) => Ok(Some(v1::Think { on: true, level: level.clone() })),
        Some(Think::Bool(on)) => Ok(Some(v1::Think { on: *on, level: String::new() })),
        None if model.can("thinking") => Ok(Some(v1::Think { on: true, level: String::new() })),
        None => Ok(None),
    }
}

fn top_logprobs(count: i64) -> Result<u32> {
    match u32::try_from(count) {
        Ok(top) if count <= MAX_TOP_LOGPROBS => Ok(top),
        _ => Err(Error::invalid(format!("top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}"))),
    }
}

/// LlamaIndex sends an empty string for "no format".
fn format(format: Option<&Value>) -> Result<String> {
    match format {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(String::new()),
        Some(value) if value.is_object() || value == "json" => Ok(value.to_string()),
        Some(value) => Err(Error::invalid(format!(
            "invalid format: {value}; expected \"json\" or a valid JSON Schema object"
        ))),
    }
}

fn run_options(run: &RunOptions) -> v1::Options {
    v1::Options {
        num_predict: run.num_predict,
        num_keep: run.num_keep,
        // Drawn here, so that another worker can continue what one began.
        seed: u64::try_from(run.seed).unwrap_or_else(|_| rand::random()),
        top_k: run.top_k,
        top_p: run.top_p,
        min_p: run.min_p,
        typical_p: run.typical_p,
        repeat_last_n: run.repeat_last_n,
        temperature: run.temperature,
        repeat_penalty: run.repeat_penalty,
        presence_penalty: run.presence_penalty,
        frequency_penalty: run.frequency_penalty,
        stop: run.stop.clone(),
    }
}

fn conversation(messages: Vec<Message>, tools: &[Value]) -> v1::Conversation {
    v1::Conversation {
        messages: messages.into_iter().map(message).collect(),
        tools: tools.iter().map(Value::to_string).collect(),
    }
}

fn message(message: Message) -> v1::Message {
    let call = |call: api::ollama::ToolCall| v1::ToolCall {
        id: call.id.unwrap_or_default(),
        index: call.function.index,
        name: call.function.name,
        arguments: Value::Object(call.function.arguments).to_string(),
    };
    v1::Message {
        role: message.role,
        content: message.content,
        thinking: message.thinking.unwrap_or_default(),
        images: message.images.into_iter().map(|image| image.0).collect(),
        tool_calls: message.tool_calls.into_iter().map(call).collect(),
        tool_name: message.tool_name.unwrap_or_default(),
        tool_call_id: message.tool_call_id.unwrap_or_default(),
    }
}
