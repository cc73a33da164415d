//! What only the scripted engine promises; what every engine promises is in `tests/laws.rs`.

use std::sync::{
    Arc as StdArc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use engine::Sampling;

use super::*;

/// A clock that only moves when somebody sleeps, or is told to, and notes each wake-up.
#[derive(Clone, Default)]
struct Manual {
    now_ms: StdArc<AtomicU64>,
    woken_ms: StdArc<Mutex<Vec<u64>>>,
}

impl Pace for Manual {
    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn sleep_until(&mut self, at: Duration) {
        let at = at.as_millis() as u64;
        // A sleeper is always late.
        self.now_ms.fetch_max(at + 3, Ordering::SeqCst);
        self.woken_ms.lock().unwrap().push(at);
    }
}

fn engine(tokens_per_second: f64, pace: Manual) -> Scripted {
    Scripted::new(2, 1_000, &Config { tokens_per_second }, Box::new(pace))
}

fn sequence(id: SequenceId, prompt: &str, seed: u64) -> Sequence {
    let prompt = Tokenizer::bytes().encode(prompt, false, false);
    Sequence { id, prompt, sampling: Sampling { seed, ..Sampling::default() }, ..Sequence::default() }
}

fn answer(sequence: Sequence) -> String {
    let mut engine = engine(0.0, Manual::default());
    engine.admit(sequence).unwrap();
    let mut bytes = Vec::new();
    while !engine.is_idle() {
        for event in engine.step().unwrap() {
            if let Event::Token { token, .. } = event {
                bytes.extend_from_slice(engine.tokenizer().piece(token));
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_answer_derives_from_prompt_and_seed() {
    let hello = answer(sequence(1, "hello", 1));
    assert_eq!(hello, answer(sequence(9, "hello", 1)));
    assert_ne!(hello, answer(sequence(1, "hello", 2)));
    assert_ne!(hello, answer(sequence(1, "hallo", 1)));
    assert!(hello.len() > 200 && hello.ends_with('.'), "{hello}");
}

#[test]
fn a_prompt_can_ask_for_its_answer() {
    assert_eq!(answer(sequence(1, "user: [[say {\"a\":[[1]]} é]] assistant:", 1)), "{\"a\":[[1]]} é");
}

#[test]
fn steps_are_due_at_fixed_times_however_late_the_sleeper_is() {
    let clock = Manual::default();
    let mut engine = engine(100.0, clock.clone());
    clock.now_ms.store(500, Ordering::SeqCst);
    engine.admit(sequence(1, "hello", 1)).unwrap();
    for _ in 0..4 {
        engine.step().unwrap();
    }
    assert_eq!(*clock.woken_ms.lock().unwrap(), [510, 520, 530, 540]);
}

#[test]
fn idle_time_is_not_made_up_for() {
    let clock = Manual::default();
    let mut engine = engine(100.0, clock.clone());
    engine.admit(sequence(1, "hello", 1)).unwrap();
    engine.step().unwrap();
    engine.cancel(1);
    clock.now_ms.store(300, Ordering::SeqCst);
    engine.admit(sequence(2, "hello", 1)).unwrap();
    engine.step().unwrap();
    assert_eq!(*clock.woken_ms.lock().unwrap(), [10, 310]);
}

#[test]
fn a_process_that_was_suspended_does_not_catch_up_in_a_burst() {
    let clock = Manual::default();
    let mut engine = engine(100.0, clock.clone());
    engine.admit(sequence(1, "hello", 1)).unwrap();
    engine.step().unwrap();
    clock.now_ms.store(60_000, Ordering::SeqCst);
    engine.step().unwrap();
    assert_eq!(*clock.woken_ms.lock().unwrap(), [10, 60_010]);
}

#[test]
fn without_a_rate_nobody_sleeps() {
    let clock = Manual::default();
    let mut engine = engine(0.0, clock.clone());
    engine.admit(sequence(1, "hello", 1)).unwrap();
    engine.step().unwrap();
    assert!(clock.woken_ms.lock().unwrap().is_empty());
}

#[test]
fn every_sequence_gets_a_token_at_each_step() {
    let mut engine = engine(0.0, Manual::default());
    engine.admit(sequence(1, "a", 1)).unwrap();
    engine.admit(sequence(2, "b", 1)).unwrap();
    let tokens = engine.step().unwrap().into_iter().filter(|event| matches!(event, Event::Token { .. }));
    assert_eq!(tokens.count(), 2);
}

#[test]
fn the_same_text_has_the_same_vector_and_another_text_another() {
    let mut engine = engine(0.0, Manual::default());
    let rows = engine.embed(&[vec![1, 2], vec![1, 2], vec![2, 1]]).unwrap();
    assert_eq!(rows[0], rows[1]);
    assert_ne!(rows[0], rows[2]);
    assert_eq!(rows[0].len(), engine.info().embedding_length);
    assert!(rows.iter().flatten().all(|value| (-0.5..0.5).contains(value)));
}
