//! One call of `Generate`: a slot, a prompt, an answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use api::Error;
use engine::Sequence;
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use jiff::civil::Date;
use protocol::v1::{Done, GenerateChunk, GenerateRequest, done::Reason};

use crate::{
    answer::Answer,
    format::Format,
    keep_alive::KeepAlive,
    outbox::Reader,
    prompt::Prompt,
    replicas::{InUse, Loaded, Replicas},
    reply::Parser,
    sequence::{self, Given},
};

/// An answer and what it keeps: the replica is in use until the caller has the last chunk, or leaves.
struct Answering {
    reader: Reader,
    _in_use: InUse,
}

/// What the engine gets, and what comes out of it.
struct Prepared {
    sequence: Sequence,
    answer: Answer,
    reader: Reader,
    /// The other worker had sent all there is, and how that ended.
    ended: Option<Reason>,
}

/// Errors before the first chunk: [`Code::NotLoaded`] and [`Code::Busy`] at once, what is wrong with the request
/// after the prompt was built.
pub async fn generate(
    replicas: &Replicas,
    request: GenerateRequest,
    today: Date,
) -> Result<BoxStream<'static, Result<GenerateChunk, Error>>, Error> {
    sequence::check(&request)?;
    let model = request.model.clone().unwrap_or_default();
    let in_use = replicas.enter(&model, request.keep_alive_ns.map(KeepAlive::from_ns))?;
    let loaded = in_use.loaded().clone();
    if request.render_only {
        let build = move || {
            let context_length = loaded.context_length(request.context_length);
            loaded.prompts.build(&request, context_length, today)
        };
        let prompt = blocking(build).await?;
        return Ok(stream::iter([Ok(rendered(prompt))]).boxed());
    }
    let slot = in_use.take_slot()?;
    let prepared = {
        let loaded = loaded.clone();
        blocking(move || prepare(&loaded, &request, today)).await?
    };
    if let Some(reason) = prepared.ended {
        drop(slot);
        prepared.answer.finish(reason, Instant::now());
    } else {
        loaded.runner.admit(slot, prepared.sequence, prepared.answer);
    }
    Ok(Answering { reader: prepared.reader, _in_use: in_use }.boxed())
}

/// Rendering and tokenizing a long conversation takes a while. A caller that leaves meanwhile frees its slot at once.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::internal("building the prompt panicked")))
}

fn rendered(prompt: Prompt) -> GenerateChunk {
    let done = Done {
        reason: Reason::Rendered.into(),
        prompt_tokens: prompt.tokens.len() as u64,
        rendered: prompt.text,
        ..Done::default()
    };
    GenerateChunk { done: Some(done), ..GenerateChunk::default() }
}

fn prepare(loaded: &Arc<Loaded>, request: &GenerateRequest, today: Date) -> Result<Prepared, Error> {
    let runner = &loaded.runner;
    let context_length = loaded.context_length(request.context_length);
    let prompt = loaded.prompts.build(request, context_length, today)?;
    let is_raw = matches!(request.input, Some(protocol::v1::generate_request::Input::Raw(_)));
    let format = Format::parse(&request.format)?;
    let grammar = format.grammar(runner.grammars(), prompt.reply.thinking.as_ref())?;
    let parser = Parser::new(runner.tokenizer().clone(), prompt.reply);
    let (mut answer, reader) = Answer::new(parser, (!is_raw).then(|| prompt.tokens.clone()));

    let mut tokens = prompt.tokens;
    let mut ended = None;
    if let Some(resume) = &request.resume {
        check_tokens(&resume.emitted_ids, runner.info().vocab_size)?;
        ended = answer.resume(&resume.emitted_ids, resume.delivered).break_value();
        tokens.extend_from_slice(&resume.emitted_ids);
    }
    let given = Given { tokens, is_jinja: prompt.is_jinja };
    let sequence = sequence::sequence(request, given, context_length);
    let sequence = Sequence { grammar, ..sequence };
    Ok(Prepared { sequence, answer, reader, ended })
}

fn check_tokens(tokens: &[u32], vocab_size: usize) -> Result<(), Error> {
    match tokens.iter().find(|token| **token as usize >= vocab_size) {
        Some(token) => {
            let text = format!("`resume.emitted_ids` must hold tokens below {vocab_size}, got {token}");
            Err(Error::invalid(text))
        }
        None => Ok(()),
    }
}

impl Stream for Answering {
    type Item = Result<GenerateChunk, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.reader).poll_next(context)
    }
}
