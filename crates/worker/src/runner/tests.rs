//! The runner's thread over the scripted engine, each step of which waits for the test's permission.

use std::{sync::mpsc as std_mpsc, time::Duration};

use futures::StreamExt;

use super::*;
use crate::{
    outbox::Reader,
    reply::{Parser, Spec},
    scripted::{Config, Pace, Scripted},
};

/// Lets the engine make one step per permission; when it is dropped, as many as it likes.
struct Steps(std_mpsc::Sender<()>);

struct Gate(std_mpsc::Receiver<()>);

impl Pace for Gate {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep_until(&mut self, _: Duration) {
        let _ = self.0.recv();
    }
}

impl Steps {
    fn allow(&self, count: usize) {
        (0..count).for_each(|_| self.0.send(()).unwrap());
    }
}

fn runner(slots: usize) -> (Runner, Steps, Changes) {
    let (steps, gate) = std_mpsc::channel();
    let config = Config { tokens_per_second: 1.0 };
    let engine = Scripted::new(slots, 1_000, &config, Box::new(Gate(gate)));
    let changes = Changes::default();
    (Runner::start(Box::new(engine), changes.clone()).unwrap(), Steps(steps), changes)
}

fn request(prompt: &str, stops: &[&str], runner: &Runner) -> (Sequence, Answer, Reader) {
    let prompt = runner.tokenizer().encode(prompt, false, false);
    let spec = Spec { stops: stops.iter().map(|stop| stop.to_string()).collect(), ..Spec::default() };
    let (answer, reader) = Answer::new(Parser::new(runner.tokenizer().clone(), spec), Some(prompt.clone()));
    (Sequence { prompt, ..Sequence::default() }, answer, reader)
}

fn admit(runner: &Runner, prompt: &str) -> Reader {
    let (sequence, answer, reader) = request(prompt, &[], runner);
    runner.admit(runner.slots().take().expect("a slot is free"), sequence, answer);
    reader
}

async fn wait_for(changes: &Changes, mut is_so: impl FnMut() -> bool) {
    let mut watch = changes.watch();
    while !is_so() {
        watch.changed().await.unwrap();
    }
}

async fn text(reader: Reader) -> (String, Option<protocol::v1::Done>) {
    let chunks: Vec<_> = reader.map(Result::unwrap).collect().await;
    let text = chunks.iter().map(|chunk| chunk.content.as_str()).collect();
    (text, chunks.last().and_then(|chunk| chunk.done.clone()))
}

#[tokio::test]
async fn an_answer_arrives_with_its_counts() {
    let (runner, steps, _) = runner(1);
    drop(steps);
    let (text, done) = text(admit(&runner, "[[say hello]]")).await;
    let done = done.unwrap();
    assert_eq!(text, "hello");
    assert_eq!((done.reason(), done.prompt_tokens, done.eval_tokens), (Reason::Stop, 13, 5));
    assert_eq!(done.context, runner.tokenizer().encode("[[say hello]]hello", false, false));
}

#[tokio::test]
async fn a_new_sequence_joins_those_that_run() {
    let (runner, steps, _) = runner(2);
    let mut first = admit(&runner, "[[say abc]]");
    steps.allow(1);
    assert_eq!(first.next().await.unwrap().unwrap().content, "a");
    let mut second = admit(&runner, "[[say xyz]]");
    steps.allow(2);
    // The second one's first token comes before the first one's last.
    assert_eq!(second.next().await.unwrap().unwrap().content, "x");
    drop(steps);
    assert_eq!(text(first).await.0, "bc");
    assert_eq!(text(second).await.0, "yz");
}

#[tokio::test]
async fn a_reader_that_leaves_frees_its_slot_within_a_step() {
    let (runner, steps, changes) = runner(1);
    let mut reader = admit(&runner, "hello");
    steps.allow(1);
    reader.next().await.unwrap().unwrap();
    assert!(runner.slots().take().is_none());
    drop(reader);
    // The step that may have begun before the reader left.
    steps.allow(1);
    wait_for(&changes, || runner.slots().used() == 0).await;
    drop(steps);
    assert_eq!(text(admit(&runner, "[[say again]]")).await.0, "again");
}

#[tokio::test]
async fn a_reader_that_reads_nothing_stalls_nobody_and_gets_everything_later() {
    let (runner, steps, changes) = runner(2);
    drop(steps);
    let lazy = admit(&runner, "[[say lazy]]");
    let (text_of_other, _) = text(admit(&runner, "[[say busy]]")).await;
    assert_eq!(text_of_other, "busy");
    // Its answer is complete and its slot free, though nothing of it was read.
    wait_for(&changes, || runner.slots().used() == 0).await;
    assert_eq!(text(lazy).await.0, "lazy");
}

#[tokio::test]
async fn a_stop_string_ends_the_sequence_before_its_next_step() {
    let (runner, steps, changes) = runner(1);
    let (sequence, answer, reader) = request("[[say one two three]]", &[" tw"], &runner);
    runner.admit(runner.slots().take().unwrap(), sequence, answer);
    steps.allow(6);
    wait_for(&changes, || runner.slots().used() == 0).await;
    let (text, done) = text(reader).await;
    let done = done.unwrap();
    assert_eq!(text, "one");
    assert_eq!((done.reason(), done.eval_tokens), (Reason::Stop, 6));
}

#[tokio::test]
async fn what_the_engine_refuses_reaches_the_reader() {
    let (runner, _steps, changes) = runner(1);
    let mut reader = admit(&runner, "");
    let error = reader.next().await.unwrap().unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::Invalid, "the prompt is empty"));
    wait_for(&changes, || runner.slots().used() == 0).await;
}

#[tokio::test]
async fn embedding_takes_a_slot_and_goes_on_between_steps() {
    let (runner, steps, _) = runner(2);
    let mut reader = admit(&runner, "hello");
    steps.allow(1);
    reader.next().await.unwrap().unwrap();
    let inputs: Vec<Vec<u32>> = (0..5).map(|at| vec![at; 400]).collect();
    let embedding = runner.embed(runner.slots().take().unwrap(), inputs);
    assert!(runner.slots().take().is_none());
    steps.allow(8);
    let rows = embedding.await.unwrap();
    assert_eq!(rows.len(), 5);
    assert!(rows.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(runner.slots().used(), 1);
}

#[tokio::test]
async fn an_input_that_cannot_be_embedded_is_an_error() {
    let (runner, _steps, _) = runner(1);
    let slot = runner.slots().take().unwrap();
    assert_eq!(runner.embed(slot, vec![vec![1], vec![]]).await.unwrap_err().code, Code::Invalid);
    assert_eq!(runner.embed(runner.slots().take().unwrap(), Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_stop_breaks_off_what_runs() {
    let (runner, steps, _) = runner(1);
    let mut reader = admit(&runner, "hello");
    steps.allow(1);
    reader.next().await.unwrap().unwrap();
    // The step that may have begun before.
    steps.allow(1);
    runner.stop().await;
    assert!(runner.has_ended());
    let mut rest: Vec<_> = reader.collect().await;
    assert_eq!(rest.pop().unwrap().unwrap_err().code, Code::Unavailable);
    let (sequence, answer, mut late) = request("hello", &[], &runner);
    runner.admit(runner.slots().take().unwrap(), sequence, answer);
    assert_eq!(late.next().await.unwrap().unwrap_err().code, Code::Unavailable);
}

/// Works for one step.
struct Broken {
    inner: Scripted,
    panics: bool,
    steps: usize,
}

impl Engine for Broken {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    fn tokenizer(&self) -> Arc<Tokenizer> {
        self.inner.tokenizer()
    }

    fn admit(&mut self, sequence: Sequence) -> Result<(), engine::Error> {
        self.inner.admit(sequence)
    }

    fn step(&mut self) -> Result<Vec<Event>, engine::Error> {
        self.steps += 1;
        if self.steps == 1 {
            return self.inner.step();
        }
        assert!(!self.panics, "a bug in the engine");
        Err(engine::Error::Compute("the device is gone".into()))
    }

    fn cancel(&mut self, id: SequenceId) {
        self.inner.cancel(id);
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    fn untaken_bytes(&self) -> u64 {
        100 - self.steps as u64
    }

    fn embed(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, engine::Error> {
        self.inner.embed(inputs)
    }

    fn rank(&mut self, pairs: &[Vec<u32>]) -> Result<Vec<f32>, engine::Error> {
        self.inner.rank(pairs)
    }
}

#[tokio::test]
async fn an_engine_that_cannot_go_on_ends_its_answers_in_ollamas_words() {
    for (panics, cause) in [(false, ": compute: the device is gone"), (true, "")] {
        let inner =
            Scripted::new(1, 100, &Config { tokens_per_second: 0.0 }, Box::new(Gate(std_mpsc::channel().1)));
        let runner = Runner::start(Box::new(Broken { inner, panics, steps: 0 }), Changes::default()).unwrap();
        assert_eq!(runner.untaken_bytes(), 100);
        let mut reader = admit(&runner, "hello");
        assert!(reader.next().await.unwrap().is_ok());
        let error = reader.next().await.unwrap().unwrap_err();
        assert_eq!((error.code, error.message), (Code::Internal, format!("{STOPPED}{cause}")));
        runner.ended.cancelled().await;
        assert!(runner.has_ended());
        assert_eq!(runner.untaken_bytes(), 99, "after the step that worked");
    }
}
