//! The thread that owns one loaded engine. It steps while a sequence runs and parks while none does.
//!
//! Commands go in through a bounded channel, answers come out through one outbox per sequence. Nothing waits in here:
//! who brings no [`Slot`] cannot ask for a sequence. A sequence whose reader has left is cancelled before the next
//! step, in prefill too (C5).

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use api::{Code, Error};
use engine::{Engine, Event, FinishReason, Grammars, Info, Sequence, SequenceId, Tokenizer};
use protocol::v1::done::Reason;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::Answer,
    changes::Changes,
    slots::{Slot, Slots},
};

/// How much embedding is done between two steps: as much as a prefill chunk, so that it stalls running sequences no
/// longer than a long prompt does.
const EMBED_TOKENS: usize = 512;

/// What clients of Ollama read when the engine dies.
const STOPPED: &str = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal \
                       error, check ollama server logs for details";

/// The handle of a running engine. Dropped, the thread ends by itself.
#[derive(Debug)]
pub struct Runner {
    commands: mpsc::Sender<Command>,
    info: Info,
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    slots: Slots,
    /// [`Engine::untaken_bytes`] after the last step.
    untaken_bytes: Arc<AtomicU64>,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Command {
    /// Boxed, because an answer is ten times as large as the rest.
    Admit(Box<Admit>),
    Embed(Embed),
    Stop,
}

#[derive(Debug)]
struct Admit {
    sequence: Sequence,
    answer: Answer,
    slot: Slot,
}

#[derive(Debug)]
struct Embed {
    inputs: VecDeque<Vec<u32>>,
    wanted: Wanted,
    /// One for each input so far.
    rows: Vec<Vec<f32>>,
    reply: oneshot::Sender<Result<Vec<Vec<f32>>, Error>>,
    slot: Slot,
}

/// What an input becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Vector,
    /// A row of one logit.
    Rank,
}

// === impl Runner ===

impl Runner {
    /// Starts the thread. Every change of the slots, and the end of the thread, rings the bell.
    pub fn start(engine: Box<dyn Engine>, changes: Changes) -> std::io::Result<Runner> {
        let info = engine.info().clone();
        let tokenizer = engine.tokenizer();
        let grammars = Grammars::new(tokenizer.clone());
        // Who sends a command holds a slot until the thread has taken it; one more for the stop.
        let (commands, receiver) = mpsc::channel(info.slots + 1);
        let slots = Slots::new(info.slots, changes.clone());
        let untaken_bytes = Arc::new(AtomicU64::new(engine.untaken_bytes()));
        let ended = CancellationToken::new();
        let end = End { ended: ended.clone(), changes };
        let owner = Owner::new(engine, receiver, untaken_bytes.clone());
        thread::Builder::new().name("runner".into()).spawn(move || main(owner, end))?;
        Ok(Runner { commands, info, tokenizer, grammars, slots, untaken_bytes, ended })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// For the model's vocabulary.
    pub fn grammars(&self) -> &Grammars {
        &self.grammars
    }

    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Memory that the model was granted and has not taken yet.
    pub fn untaken_bytes(&self) -> u64 {
        self.untaken_bytes.load(Ordering::Relaxed)
    }

    /// Runs a sequence; its id is chosen here. Whatever goes wrong, the reader of the answer learns it.
    pub fn admit(&self, slot: Slot, sequence: Sequence, answer: Answer) {
        // When the thread has ended the answer is dropped in here, which tells its reader.
        let _ = self.commands.try_send(Command::Admit(Box::new(Admit { sequence, answer, slot })));
    }

    /// One row per input. Dropped, it is cancelled after at most one step.
    pub async fn embed(&self, slot: Slot, inputs: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, Error> {
        self.pool(slot, inputs, Wanted::Vector).await
    }

    /// One logit per pair; the rest is as with [`embed`](Runner::embed).
    pub async fn rank(&self, slot: Slot, pairs: Vec<Vec<u32>>) -> Result<Vec<f32>, Error> {
        Ok(self.pool(slot, pairs, Wanted::Rank).await?.concat())
    }

    async fn pool(&self, slot: Slot, inputs: Vec<Vec<u32>>, wanted: Wanted) -> Result<Vec<Vec<f32>>, Error> {
        let (reply, answer) = oneshot::channel();
        let rows = Vec::with_capacity(inputs.len());
        let embed = Embed { rows, inputs: inputs.into(), wanted, reply, slot };
        let _ = self.commands.try_send(Command::Embed(embed));
        answer
            .await
            .unwrap_or_else(|_| Err(Error::unavailable("the model runner ended before the answer did")))
    }

    /// Ends the thread after its step; what still runs breaks off. Back when the engine's memory is free.
    pub async fn stop(&self) {
        // A thread that has ended needs no command, and a second one changes nothing.
        let _ = self.commands.try_send(Command::Stop);
        self.ended.cancelled().await;
    }

    /// Whether the thread has ended, called for or not.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }
}

// === the thread ===

/// Tells the end of the thread, in whatever way it ends.
struct End {
    ended: CancellationToken,
    changes: Changes,
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.cancel();
        self.changes.notify();
    }
}

fn main(mut owner: Owner, end: End) {
    // A panic in the engine is an error of its own making: its sequences end, the process goes on.
    match catch_unwind(AssertUnwindSafe(|| owner.run())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, "the engine cannot go on");
            owner.fail_all(&Error::new(fatal_code(&error), format!("{STOPPED}: {error}")));
        }
        Err(_) => {
            tracing::error!("the engine panicked");
            owner.fail_all(&Error::internal(STOPPED));
        }
    }
    // The memory is free before anybody hears of the end.
    drop(owner);
    drop(end);
}

struct Owner {
    engine: Box<dyn Engine>,
    commands: mpsc::Receiver<Command>,
    running: HashMap<SequenceId, Running>,
    embeds: VecDeque<Embed>,
    next_id: SequenceId,
    untaken_bytes: Arc<AtomicU64>,
}

struct Running {
    answer: Answer,
    /// Free when the engine's slot is.
    slot: Slot,
}

impl Owner {
    fn new(
        engine: Box<dyn Engine>,
        commands: mpsc::Receiver<Command>,
        untaken_bytes: Arc<AtomicU64>,
    ) -> Owner {
        let (running, embeds) = (HashMap::new(), VecDeque::new());
        Owner { engine, commands, running, embeds, next_id: 0, untaken_bytes }
    }

    fn run(&mut self) -> Result<(), engine::Error> {
        while self.take_commands() {
            self.cancel_the_left();
            self.embed_some();
            let began = Instant::now();
            let events = self.engine.step()?;
            let now = Instant::now();
            self.engine.note_step(now.saturating_duration_since(began));
            self.untaken_bytes.store(self.engine.untaken_bytes(), Ordering::Relaxed);
            events.into_iter().for_each(|event| self.settle(event, now));
        }
        Ok(())
    }

    /// False when it is time to end. Waits only while there is nothing to do.
    fn take_commands(&mut self) -> bool {
        let is_idle = self.running.is_empty() && self.embeds.is_empty();
        let mut next = match is_idle {
            true => self.commands.blocking_recv().ok_or(TryRecvError::Disconnected),
            false => self.commands.try_recv(),
        };
        loop {
            match next {
                Ok(Command::Admit(admission)) => self.admit(*admission),
                Ok(Command::Embed(embed)) => self.embeds.push_back(embed),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
            next = self.commands.try_recv();
        }
    }

    fn admit(&mut self, Admit { sequence, mut answer, slot }: Admit) {
        let id = self.next_id;
        self.next_id += 1;
        match self.engine.admit(Sequence { id, ..sequence }) {
            Ok(()) => {
                answer.start(Instant::now());
                self.running.insert(id, Running { answer, slot });
            }
            Err(error) => answer.fail(error.into()),
        }
    }

    fn cancel_the_left(&mut self) {
        let engine = &mut self.engine;
        self.running.retain(|id, running| {
            let gone = running.answer.is_gone();
            if gone {
                engine.cancel(*id);
            }
            !gone
        });
        self.embeds.retain(|embed| !embed.reply.is_closed());
    }

    /// A bounded part of one call's inputs; the calls take turns.
    fn embed_some(&mut self) {
        let Some(mut embed) = self.embeds.pop_front() else { return };
        let mut inputs = Vec::new();
        let mut tokens = 0;
        while let Some(input) = embed.inputs.front()
            && (inputs.is_empty() || tokens + input.len() <= EMBED_TOKENS)
        {
            tokens += input.len();
            inputs.extend(embed.inputs.pop_front());
        }
        let made = match embed.wanted {
            Wanted::Vector => self.engine.embed(&inputs),
            Wanted::Rank => {
                self.engine.rank(&inputs).map(|logits| logits.into_iter().map(|logit| vec![logit]).collect())
            }
        };
        match made {
            Ok(rows) => embed.rows.extend(rows),
            Err(error) => return embed.finish(Some(error)),
        }
        if embed.inputs.is_empty() { embed.finish(None) } else { self.embeds.push_back(embed) }
    }

    fn settle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Prefilled { id, prompt_tokens, cached_tokens } => {
                if let Some(running) = self.running.get_mut(&id) {
                    running.answer.prefill(prompt_tokens, cached_tokens, now);
                }
            }
            Event::Token { id, token, logprob } => {
                let Some(running) = self.running.get_mut(&id) else { return };
                if let ControlFlow::Break(reason) = running.answer.push(token, logprob.as_ref()) {
                    self.engine.cancel(id);
                    self.finish(id, reason, now);
                }
            }
            Event::Finished { id, reason: FinishReason::Stop } => self.finish(id, Reason::Stop, now),
            Event::Finished { id, reason: FinishReason::Length } => self.finish(id, Reason::Length, now),
            Event::Failed { id, error } => {
                if let Some(running) = self.running.remove(&id) {
                    running.answer.fail(error.into());
                }
            }
        }
    }

    /// Unknown ids are those that a stop string ended in the same step.
    fn finish(&mut self, id: SequenceId, reason: Reason, now: Instant) {
        if let Some(Running { answer, slot }) = self.running.remove(&id) {
            // The slot first: who has read the last chunk may ask for the next sequence at once.
            drop(slot);
            answer.finish(reason, now);
        }
    }

    fn fail_all(&mut self, error: &Error) {
        for (_, running) in self.running.drain() {
            running.answer.fail(error.clone());
        }
        for embed in self.embeds.drain(..) {
            let _ = embed.reply.send(Err(error.clone()));
        }
    }
}

// === impl Embed ===

impl Embed {
    fn finish(self, error: Option<engine::Error>) {
        // The slot first: who has the vectors may ask for the next ones at once.
        drop(self.slot);
        let result = error.map_or(Ok(self.rows), |error| Err(error.into()));
        // A caller that has left needs no answer.
        let _ = self.reply.send(result);
    }
}

/// An engine that cannot go on is never the request's fault.
fn fatal_code(error: &engine::Error) -> Code {
    match error.code() {
        Code::OutOfMemory => Code::OutOfMemory,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests;
