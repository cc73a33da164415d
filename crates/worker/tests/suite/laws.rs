//! What the worker relies on in every engine, run on each that there is.

use std::{io::Write, ops::ControlFlow};

use engine::{CandleEngine, Engine, Error, Event, FinishReason, LoadOptions, Sampling, Sequence, SequenceId};
use worker::scripted::{Config, Scripted, SystemPace};

use crate::tiny;

type Make = fn(slots: usize, context_length: usize) -> Box<dyn Engine>;

fn scripted(slots: usize, context_length: usize) -> Box<dyn Engine> {
    let config = Config { tokens_per_second: 0.0 };
    Box::new(Scripted::new(slots, context_length, &config, Box::new(SystemPace::default())))
}

fn candle(slots: usize, context_length: usize) -> Box<dyn Engine> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tiny::gguf()).unwrap();
    let options = LoadOptions { slots, context_length, prefill_chunk: 16, ..LoadOptions::default() };
    let file = gguf::File::open(file.path()).unwrap();
    Box::new(CandleEngine::load(&file, options, &mut |_| ControlFlow::Continue(())).unwrap())
}

macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod scripted_engine {
            $(#[test] fn $law() { super::$law(super::scripted) })*
        }
        mod candle_engine {
            $(#[test] fn $law() { super::$law(super::candle) })*
        }
    };
}

laws! {
    it_is_idle_until_something_is_admitted_and_again_after_it,
    it_admits_as_many_sequences_as_it_has_slots_and_no_more,
    a_refused_sequence_changes_nothing,
    a_cancelled_sequence_frees_its_slot_at_once_and_is_not_heard_of_again,
    a_cancel_in_the_middle_of_a_prefill_frees_the_slot,
    cancelling_what_is_not_there_changes_nothing,
    events_come_in_their_order,
    a_full_context_is_the_end_unless_it_may_be_shifted,
    a_sequence_may_use_less_than_its_slot_has,
    the_same_sequence_gives_the_same_tokens_whatever_runs_beside_it,
    a_resumed_sequence_goes_on_as_if_it_had_never_stopped,
    a_shifted_sequence_can_be_resumed_too,
    log_probabilities_come_when_asked_for,
    every_input_becomes_one_vector,
    embedding_does_not_disturb_what_runs,
}

// === helpers ===

fn sequence(id: SequenceId, tokens: usize) -> Sequence {
    let sampling = Sampling { temperature: 1.5, seed: 11, ..Sampling::default() };
    Sequence {
        id,
        prompt: prompt(20),
        max_tokens: Some(tokens),
        sampling,
        ignore_eos: true,
        ..Sequence::default()
    }
}

/// Tokens that every vocabulary has, and no end among them.
fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|at| 40 + at * 7 % 60).collect()
}

/// Everything until the engine is idle.
fn run(engine: &mut dyn Engine) -> Vec<Event> {
    let mut events = Vec::new();
    // More steps than any of these sequences needs.
    for _ in 0..10_000 {
        if engine.is_idle() {
            return events;
        }
        events.extend(engine.step().unwrap());
    }
    panic!("the engine never becomes idle");
}

fn id_of(event: &Event) -> SequenceId {
    match event {
        Event::Token { id, .. } | Event::Prefilled { id, .. } | Event::Finished { id, .. } => *id,
        Event::Failed { id, error } => panic!("sequence {id} failed: {error}"),
    }
}

fn tokens(events: &[Event], of: SequenceId) -> Vec<u32> {
    let of_sequence = events.iter().filter(|event| id_of(event) == of);
    let token = |event: &Event| if let Event::Token { token, .. } = event { Some(*token) } else { None };
    of_sequence.filter_map(token).collect()
}

fn answer(make: Make, context_length: usize, sequence: Sequence) -> Vec<u32> {
    let mut engine = make(1, context_length);
    let id = sequence.id;
    engine.admit(sequence).unwrap();
    tokens(&run(&mut *engine), id)
}

// === laws ===

fn it_is_idle_until_something_is_admitted_and_again_after_it(make: Make) {
    let mut engine = make(2, 64);
    assert!(engine.is_idle());
    assert_eq!(engine.step().unwrap(), []);
    engine.admit(sequence(1, 3)).unwrap();
    assert!(!engine.is_idle());
    run(&mut *engine);
    assert_eq!(engine.step().unwrap(), []);
}

fn it_admits_as_many_sequences_as_it_has_slots_and_no_more(make: Make) {
    let mut engine = make(2, 64);
    assert_eq!((engine.info().slots, engine.info().context_length), (2, 64));
    engine.admit(sequence(1, 3)).unwrap();
    engine.admit(sequence(2, 9)).unwrap();
    assert_eq!(engine.admit(sequence(3, 3)), Err(Error::NoSlot { slots: 2 }));
    let mut events = Vec::new();
    while !events.iter().any(|event| matches!(event, Event::Finished { id: 1, .. })) {
        events = engine.step().unwrap();
    }
    engine.admit(sequence(3, 3)).unwrap();
    let events = run(&mut *engine);
    assert_eq!(tokens(&events, 3).len(), 3);
}

fn a_refused_sequence_changes_nothing(make: Make) {
    let mut engine = make(2, 64);
    engine.admit(sequence(1, 3)).unwrap();
    let vocab_size = engine.info().vocab_size;
    let with = |prompt: Vec<u32>| Sequence { prompt, ..sequence(2, 3) };
    let token = vocab_size as u32;
    let refused = [
        (with(Vec::new()), Error::EmptyPrompt),
        (Sequence { resume_at: 20, ..sequence(2, 3) }, Error::EmptyPrompt),
        (with(prompt(65)), Error::PromptTooLong { tokens: 65, context_length: 64 }),
        (with(vec![40, token]), Error::TokenOutOfRange { token, vocab_size }),
        (sequence(1, 3), Error::DuplicateId { id: 1 }),
    ];
    for (sequence, error) in refused {
        assert_eq!(engine.admit(sequence), Err(error));
    }
    engine.admit(sequence(2, 3)).unwrap();
    let events = run(&mut *engine);
    assert_eq!((tokens(&events, 1).len(), tokens(&events, 2).len()), (3, 3));
}

fn a_cancelled_sequence_frees_its_slot_at_once_and_is_not_heard_of_again(make: Make) {
    let mut engine = make(1, 64);
    engine.admit(sequence(1, 40)).unwrap();
    let mut events = Vec::new();
    while tokens(&events, 1).is_empty() {
        events.extend(engine.step().unwrap());
    }
    engine.cancel(1);
    assert!(engine.is_idle());
    engine.admit(sequence(2, 3)).unwrap();
    let events = run(&mut *engine);
    assert!(events.iter().all(|event| id_of(event) == 2));
    assert_eq!(tokens(&events, 2).len(), 3);
}

fn a_cancel_in_the_middle_of_a_prefill_frees_the_slot(make: Make) {
    let mut engine = make(1, 256);
    engine.admit(Sequence { prompt: prompt(200), ..sequence(1, 3) }).unwrap();
    engine.step().unwrap();
    engine.cancel(1);
    assert!(engine.is_idle());
    let fresh = answer(make, 256, sequence(2, 5));
    engine.admit(sequence(2, 5)).unwrap();
    assert_eq!(tokens(&run(&mut *engine), 2), fresh);
}

fn cancelling_what_is_not_there_changes_nothing(make: Make) {
    let mut engine = make(1, 64);
    engine.cancel(7);
    engine.admit(sequence(1, 3)).unwrap();
    engine.cancel(7);
    assert_eq!(tokens(&run(&mut *engine), 1).len(), 3);
    engine.cancel(1);
    assert!(engine.is_idle());
}

fn events_come_in_their_order(make: Make) {
    let mut engine = make(2, 64);
    engine.admit(sequence(1, 3)).unwrap();
    engine.admit(Sequence { prompt: prompt(30), ..sequence(2, 4) }).unwrap();
    let events = run(&mut *engine);
    for (id, prompt_tokens, count) in [(1, 20, 3), (2, 30, 4)] {
        let own: Vec<&Event> = events.iter().filter(|event| id_of(event) == id).collect();
        assert_eq!(own.len(), count + 2);
        assert!(
            matches!(own[0], Event::Prefilled { prompt_tokens: got, .. } if *got == prompt_tokens),
            "{:?}",
            own[0]
        );
        assert!(own[1..=count].iter().all(|event| matches!(event, Event::Token { .. })));
        assert_eq!(*own[count + 1], Event::Finished { id, reason: FinishReason::Length });
    }
}

fn a_full_context_is_the_end_unless_it_may_be_shifted(make: Make) {
    let until_full = Sequence { max_tokens: None, ..sequence(1, 0) };
    // The last token needs no position of its own.
    assert_eq!(answer(make, 64, until_full).len(), 64 - 20 + 1);
    let shifting = Sequence { shift: true, keep: 4, ..sequence(1, 200) };
    assert_eq!(answer(make, 64, shifting).len(), 200);
}

fn a_sequence_may_use_less_than_its_slot_has(make: Make) {
    let within = |context_length, sequence| Sequence { context_length: Some(context_length), ..sequence };
    let until_full = Sequence { max_tokens: None, ..sequence(1, 0) };
    assert_eq!(answer(make, 64, within(32, until_full.clone())), answer(make, 32, until_full.clone()));
    let shifting = Sequence { shift: true, keep: 4, ..sequence(1, 100) };
    assert_eq!(answer(make, 64, within(32, shifting.clone())), answer(make, 32, shifting));
    assert_eq!(answer(make, 64, within(1_000, until_full)).len(), 64 - 20 + 1, "and never more");
    let refused = make(1, 64).admit(within(8, sequence(1, 4)));
    assert!(
        matches!(refused, Err(engine::Error::PromptTooLong { tokens: 20, context_length: 8 })),
        "{refused:?}"
    );
}

fn the_same_sequence_gives_the_same_tokens_whatever_runs_beside_it(make: Make) {
    let alone = answer(make, 64, sequence(1, 30));
    let mut engine = make(3, 64);
    engine.admit(Sequence { prompt: prompt(40), ..sequence(2, 10) }).unwrap();
    engine.step().unwrap();
    engine.admit(sequence(1, 30)).unwrap();
    engine.admit(Sequence { prompt: prompt(7), ..sequence(3, 20) }).unwrap();
    assert_eq!(tokens(&run(&mut *engine), 1), alone);
    let other_seed = Sampling { seed: 12, ..sequence(1, 30).sampling };
    assert_ne!(answer(make, 64, Sequence { sampling: other_seed, ..sequence(1, 30) }), alone);
}

fn resumed(make: Make, sequence: &Sequence, whole: &[u32], cut: usize) -> Vec<u32> {
    let rest = Sequence {
        prompt: [&sequence.prompt[..], &whole[..cut]].concat(),
        resume_at: cut,
        max_tokens: Some(whole.len() - cut),
        ..sequence.clone()
    };
    [&whole[..cut], &answer(make, 64, rest)].concat()
}

fn a_resumed_sequence_goes_on_as_if_it_had_never_stopped(make: Make) {
    let sampling = Sampling { repeat_penalty: 1.3, repeat_last_n: 8, ..sequence(1, 0).sampling };
    let sequence = Sequence { sampling, ..sequence(1, 40) };
    let whole = answer(make, 64, sequence.clone());
    for cut in [1, 2, 17, 39] {
        assert_eq!(resumed(make, &sequence, &whole, cut), whole, "cut after {cut}");
    }
}

fn a_shifted_sequence_can_be_resumed_too(make: Make) {
    let sequence = Sequence { shift: true, keep: 4, ..sequence(1, 120) };
    let whole = answer(make, 64, sequence.clone());
    for cut in [30, 60, 100] {
        // What was dropped no longer shapes what is kept, so only the count is promised.
        assert_eq!(resumed(make, &sequence, &whole, cut).len(), whole.len(), "cut after {cut}");
    }
}

fn log_probabilities_come_when_asked_for(make: Make) {
    let mut engine = make(1, 64);
    engine.admit(Sequence { logprobs: Some(3), ..sequence(1, 4) }).unwrap();
    let mut count = 0;
    for event in run(&mut *engine) {
        if let Event::Token { logprob, .. } = event {
            let logprob = logprob.expect("asked for");
            assert!(logprob.logprob <= 0.0 && logprob.top.len() == 3);
            assert!(logprob.top.is_sorted_by(|a, b| a.1 >= b.1), "{:?}", logprob.top);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

fn every_input_becomes_one_vector(make: Make) {
    let mut engine = make(1, 64);
    let rows = engine.embed(&[prompt(3), prompt(40), prompt(3)]).unwrap();
    assert!(rows.iter().all(|row| row.len() == engine.info().embedding_length));
    assert_eq!(rows[0], rows[2]);
    assert_ne!(rows[0], rows[1]);
    assert_eq!(engine.embed(&[]).unwrap(), Vec::<Vec<f32>>::new());
    assert_eq!(engine.embed(&[prompt(3), Vec::new()]), Err(Error::EmptyPrompt));
    assert!(engine.is_idle());
}

fn embedding_does_not_disturb_what_runs(make: Make) {
    let alone = answer(make, 64, sequence(1, 10));
    let mut engine = make(2, 64);
    engine.admit(sequence(1, 10)).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        events.extend(engine.step().unwrap());
        engine.embed(&[prompt(50)]).unwrap();
    }
    assert_eq!(tokens(&events, 1), alone);
}
