//! The scheduler on a model that needs no weights: who runs when, and that every story is the one told alone.

mod grammars;
mod guessing;
mod pacing;
mod scarcity;
mod sharing;

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::Sampling;
use crate::pages::pages_for;
use crate::scheduler::parrot::{Parrot, VOCAB_SIZE};

const END: u32 = 257;

/// A parrot with so many slots, positions and prompt tokens per step.
fn parrot(slots: usize, context_length: usize, chunk: usize) -> Scheduler<Parrot> {
    let pages = slots * pages_for(context_length);
    let limits = Limits { slots, context_length, chunk, pages, page_bytes: 0, guesses: 0 };
    Scheduler::new(Parrot::default(), Arc::new(Tokenizer::bytes()), limits)
}

/// A prompt of different tokens, which the parrot goes on counting.
fn count(from: u32, len: usize) -> Vec<u32> {
    (from..).take(len).map(|token| token % 251).collect()
}

fn sequence(id: SequenceId, prompt: Vec<u32>, max_tokens: usize) -> Sequence {
    Sequence { id, prompt, max_tokens: Some(max_tokens), ..Sequence::default() }
}

/// What one sequence said, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Story {
    prefilled: Option<usize>,
    tokens: Vec<u32>,
    end: Option<Event>,
}

impl Story {
    fn finished(&self, reason: FinishReason) -> bool {
        matches!(self.end, Some(Event::Finished { reason: found, .. }) if found == reason)
    }
}

/// Notes events, in the order that they may come in.
fn note(stories: &mut HashMap<SequenceId, Story>, events: Vec<Event>) {
    for event in events {
        let (Event::Prefilled { id, .. }
        | Event::Token { id, .. }
        | Event::Finished { id, .. }
        | Event::Failed { id, .. }) = &event;
        let story = stories.entry(*id).or_default();
        assert!(story.end.is_none(), "{event:?} after the end");
        match event {
            Event::Prefilled { prompt_tokens, .. } => {
                assert!(story.prefilled.replace(prompt_tokens).is_none())
            }
            Event::Token { token, .. } => {
                assert!(story.prefilled.is_some(), "a token before the prompt was read");
                story.tokens.push(token);
            }
            end => story.end = Some(end),
        }
    }
}

/// Steps until nothing runs; then nobody holds a page.
fn finish(scheduler: &mut Scheduler<Parrot>, stories: &mut HashMap<SequenceId, Story>) {
    while !scheduler.is_idle() {
        note(stories, scheduler.step().unwrap());
    }
    assert_eq!(scheduler.pages.available(), scheduler.pages.total(), "nobody holds a page when idle");
}

/// The stories of what has been admitted and not yet stepped.
fn run(scheduler: &mut Scheduler<Parrot>) -> HashMap<SequenceId, Story> {
    let mut stories = HashMap::new();
    finish(scheduler, &mut stories);
    stories
}

fn run_one(scheduler: &mut Scheduler<Parrot>, sequence: Sequence) -> Story {
    let id = sequence.id;
    scheduler.admit(sequence).unwrap();
    run(scheduler).remove(&id).unwrap()
}

/// What the parrot says after `prompt` while everything fits its context.
fn spoken(prompt: &[u32], len: usize) -> Vec<u32> {
    let mut all = prompt.to_vec();
    for _ in 0..len {
        all.push(Parrot::next(&all));
    }
    all.split_off(prompt.len())
}

#[test]
fn an_idle_scheduler_has_no_events_and_asks_the_model_nothing() {
    let mut scheduler = parrot(2, 64, 16);
    assert_eq!(scheduler.step().unwrap(), []);
    assert!(scheduler.model.steps.is_empty());
}

#[test]
fn a_sequence_tells_its_prompt_its_tokens_and_its_end() {
    let mut scheduler = parrot(1, 64, 16);
    let prompt = vec![1, 2, 3, 1];
    let story = run_one(&mut scheduler, sequence(7, prompt.clone(), 5));
    assert_eq!(story.prefilled, Some(4));
    assert_eq!(story.tokens, [2, 3, 1, 2, 3]);
    assert_eq!(story.tokens, spoken(&prompt, 5));
    assert!(story.finished(FinishReason::Length));
}

#[test]
fn an_end_token_stops_and_is_not_told() {
    let mut scheduler = parrot(1, 64, 16);
    let story = run_one(&mut scheduler, sequence(1, vec![5, END, 9, 5], 8));
    assert!(story.tokens.is_empty() && story.finished(FinishReason::Stop));
    let ignoring = Sequence { ignore_eos: true, ..sequence(2, vec![5, END, 9, 5], 3) };
    assert_eq!(run_one(&mut scheduler, ignoring).tokens, [END, 9, 5]);
}

#[test]
fn no_tokens_asked_for_reads_the_prompt_and_ends() {
    let story = run_one(&mut parrot(1, 64, 4), sequence(1, count(0, 10), 0));
    assert_eq!((story.prefilled, story.tokens.len()), (Some(10), 0));
    assert!(story.finished(FinishReason::Length));
}

#[test]
fn a_sequence_joins_a_running_batch_without_changing_it() {
    let mut scheduler = parrot(2, 256, 16);
    scheduler.admit(sequence(1, count(0, 20), 40)).unwrap();
    let mut stories = HashMap::new();
    for _ in 0..10 {
        note(&mut stories, scheduler.step().unwrap());
    }
    scheduler.admit(sequence(2, count(100, 30), 20)).unwrap();
    note(&mut stories, scheduler.step().unwrap());
    let step = scheduler.model.steps.last().unwrap();
    assert!(matches!(step[..], [1, chunk] if chunk > 1), "a decode and a chunk share a step: {step:?}");
    finish(&mut scheduler, &mut stories);
    assert_eq!(stories[&1].tokens, spoken(&count(0, 20), 40));
    assert_eq!(stories[&2].tokens, spoken(&count(100, 30), 20));
}

#[test]
fn a_long_prompt_never_holds_a_decode_up_for_more_than_a_chunk() {
    let mut scheduler = parrot(3, 1024, 16);
    scheduler.admit(sequence(1, count(0, 3), 200)).unwrap();
    scheduler.step().unwrap();
    scheduler.admit(sequence(2, count(0, 500), 4)).unwrap();
    scheduler.admit(sequence(3, count(50, 400), 4)).unwrap();
    for _ in 0..40 {
        let events = scheduler.step().unwrap();
        assert!(events.iter().any(|event| matches!(event, Event::Token { id: 1, .. })), "one token per step");
        let step = scheduler.model.steps.last().unwrap();
        assert!(step.iter().filter(|tokens| **tokens > 1).sum::<usize>() <= 16, "{step:?}");
    }
}

/// The steps in which prompts were through, by id.
fn prefills(scheduler: &mut Scheduler<Parrot>, steps: usize) -> Vec<(SequenceId, usize)> {
    let mut done = Vec::new();
    for step in 1..=steps {
        for event in scheduler.step().unwrap() {
            if let Event::Prefilled { id, .. } = event {
                done.push((id, step));
            }
        }
    }
    done
}

#[test]
fn eight_prompts_that_arrive_together_are_answered_one_after_another() {
    let mut scheduler = parrot(8, 1024, 32);
    for id in 0..8 {
        scheduler.admit(sequence(id, count(17 * id as u32, 320), 1)).unwrap();
    }
    let expected: Vec<(SequenceId, usize)> = (0..8).map(|id| (id, 10 * (id as usize + 1))).collect();
    assert_eq!(prefills(&mut scheduler, 100), expected, "the first after an eighth of the work");
}

#[test]
fn a_long_prompt_is_overtaken_only_by_so_much_work_as_its_own() {
    let mut scheduler = parrot(2, 1024, 32);
    scheduler.admit(sequence(0, count(0, 640), 1)).unwrap();
    let mut steps = 0;
    let mut shorts = 0;
    while scheduler.running.iter().any(|running| running.id == 0) {
        if scheduler.running.len() == 1 {
            shorts += 1;
            scheduler.admit(sequence(shorts, count(40 * shorts as u32, 32), 1)).unwrap();
        }
        scheduler.step().unwrap();
        steps += 1;
    }
    assert!(steps <= 2 * 640 / 32, "{steps} steps for 20 of its own");
    assert!(shorts >= 640 / 32, "{shorts} short ones overtook it");
}

#[test]
fn a_short_prompt_behind_a_long_one_waits_for_one_chunk() {
    let mut scheduler = parrot(2, 4096, 64);
    scheduler.admit(sequence(1, count(0, 2000), 1)).unwrap();
    scheduler.step().unwrap();
    scheduler.admit(sequence(2, count(0, 30), 1)).unwrap();
    let events = scheduler.step().unwrap();
    assert!(events.contains(&Event::Prefilled { id: 2, prompt_tokens: 30, cached_tokens: 0 }), "{events:?}");
    assert_eq!(scheduler.model.steps.last(), Some(&vec![30, 34]), "what it leaves goes to the other");
}

#[test]
fn a_full_scheduler_has_no_slot_and_a_finished_or_cancelled_sequence_frees_one() {
    let mut scheduler = parrot(2, 64, 16);
    scheduler.admit(sequence(1, count(0, 4), 1)).unwrap();
    scheduler.admit(sequence(2, count(0, 4), 50)).unwrap();
    assert_eq!(scheduler.admit(sequence(3, count(0, 4), 1)), Err(Error::NoSlot { slots: 2 }));
    scheduler.step().unwrap();
    scheduler.admit(sequence(3, count(0, 4), 50)).unwrap();
    scheduler.cancel(2);
    scheduler.admit(sequence(4, count(0, 4), 1)).unwrap();
    scheduler.cancel(3);
    assert!(run(&mut scheduler).contains_key(&4));
}

#[test]
fn a_cancel_in_mid_prefill_frees_slot_and_pages_at_once() {
    let mut scheduler = parrot(1, 512, 16);
    scheduler.admit(sequence(1, count(0, 400), 5)).unwrap();
    for _ in 0..5 {
        assert_eq!(scheduler.step().unwrap(), []);
    }
    assert!(scheduler.pages.available() < scheduler.pages.total());
    scheduler.cancel(1);
    scheduler.cancel(99);
    assert!(scheduler.is_idle());
    assert_eq!(scheduler.pages.available(), scheduler.pages.total());
    assert_eq!(scheduler.step().unwrap(), []);
    let story = run_one(&mut scheduler, sequence(1, count(0, 40), 3));
    assert_eq!(story.tokens, spoken(&count(0, 40), 3), "stale pages do not show");
}

#[test]
fn what_is_wrong_with_a_prompt_is_said_with_its_numbers() {
    let mut scheduler = parrot(1, 16, 4);
    let error = scheduler.admit(sequence(1, count(0, 17), 1)).unwrap_err();
    assert_eq!(error, Error::PromptTooLong { tokens: 17, context_length: 16 });
    assert_eq!(error.to_string(), "the prompt has 17 tokens, the context has room for 16");
    assert_eq!(scheduler.admit(sequence(1, vec![], 1)), Err(Error::EmptyPrompt));
    let range = Error::TokenOutOfRange { token: 258, vocab_size: VOCAB_SIZE };
    assert_eq!(scheduler.admit(sequence(1, vec![1, 258], 1)), Err(range));
    let resumed = Sequence { resume_at: 3, ..sequence(1, count(0, 3), 1) };
    assert_eq!(scheduler.admit(resumed), Err(Error::EmptyPrompt));
    let hot = Sampling { temperature: f32::NAN, ..Sampling::default() };
    let refused = scheduler.admit(Sequence { sampling: hot, ..sequence(1, count(0, 3), 1) });
    assert!(matches!(refused, Err(Error::InvalidSampling { option: "temperature", .. })), "{refused:?}");
    assert!(scheduler.is_idle());
    scheduler.admit(sequence(1, count(0, 16), 1)).unwrap();
    assert_eq!(scheduler.admit(sequence(1, count(0, 3), 1)), Err(Error::NoSlot { slots: 1 }));
    assert_eq!(run(&mut scheduler)[&1].tokens.len(), 1, "a prompt may fill the context");
}

#[test]
fn an_id_may_run_only_once() {
    let mut scheduler = parrot(2, 16, 4);
    scheduler.admit(sequence(1, count(0, 3), 1)).unwrap();
    assert_eq!(scheduler.admit(sequence(1, count(0, 3), 1)), Err(Error::DuplicateId { id: 1 }));
}

#[test]
fn without_shift_a_full_context_ends_the_sequence() {
    let prompt = count(0, 10);
    let story = run_one(&mut parrot(1, 16, 4), Sequence { prompt: prompt.clone(), ..Sequence::default() });
    assert_eq!(story.tokens, spoken(&prompt, 7), "the last token needs no room");
    assert!(story.finished(FinishReason::Length));
}

/// What the parrot says when its context is shifted whenever a token does not fit any more.
fn spoken_shifting(prompt: &[u32], keep: usize, context_length: usize, len: usize) -> Vec<u32> {
    let mut window = prompt.to_vec();
    let mut tokens = Vec::new();
    for _ in 0..len {
        let token = Parrot::next(&window);
        tokens.push(token);
        window.push(token);
        if window.len() > context_length {
            window.drain(keep..keep + ((context_length - keep) / 2).max(1));
        }
    }
    tokens
}

#[test]
fn a_shifted_context_goes_on_as_if_it_had_only_seen_what_is_left() {
    // It repeats 22 tokens until the shift makes it forget that it has said them before.
    let prompt: Vec<u32> = [vec![256, 3, 4, 5], count(9, 22), vec![9]].concat();
    let shifting = Sequence { shift: true, keep: 3, ..sequence(1, prompt.clone(), 100) };
    let mut scheduler = parrot(2, 40, 7);
    scheduler.admit(sequence(2, count(0, 5), 30)).unwrap();
    let story = run_one(&mut scheduler, shifting);
    assert_eq!(story.tokens, spoken_shifting(&prompt, 4, 40, 100), "bos is kept beside the 3");
    assert_ne!(story.tokens, spoken(&prompt, 100), "the test shifts at all");
    assert!(story.finished(FinishReason::Length));
    assert_eq!(story.prefilled, Some(prompt.len()), "told once");
}

#[test]
fn a_fault_ends_its_own_sequence_and_no_other() {
    let mut scheduler = parrot(2, 64, 32);
    scheduler.model.poison = Some(255);
    scheduler.admit(sequence(1, count(0, 4), 6)).unwrap();
    scheduler.admit(sequence(2, vec![1, 255, 3], 6)).unwrap();
    let stories = run(&mut scheduler);
    let error = Error::NotFinite { what: "what block 3 computed".to_owned() };
    assert_eq!(stories[&2], Story { end: Some(Event::Failed { id: 2, error }), ..Story::default() });
    assert_eq!(stories[&1].tokens, spoken(&count(0, 4), 6));
}

fn hot(id: SequenceId, prompt: Vec<u32>, max_tokens: usize) -> Sequence {
    let sampling = Sampling { temperature: 5.0, seed: 11, repeat_penalty: 1.3, ..Sampling::default() };
    Sequence { sampling, ignore_eos: true, ..sequence(id, prompt, max_tokens) }
}

#[test]
fn a_resumed_sequence_goes_on_as_if_nothing_had_happened() {
    for (shift, context_length) in [(false, 128), (true, 20)] {
        let start = |prompt, len| Sequence { shift, keep: 2, ..hot(1, prompt, len) };
        let prompt = count(30, 12);
        let whole = run_one(&mut parrot(1, context_length, 5), start(prompt.clone(), 40)).tokens;
        assert_ne!(whole, spoken(&prompt, 40), "the sampler has a say");
        for told in [1, 7, 25, 39] {
            let replayed = [&prompt, &whole[..told]].concat();
            let resumed = Sequence { resume_at: told, ..start(replayed, 40 - told) };
            let mut scheduler = parrot(3, context_length, 9);
            scheduler.admit(hot(2, count(0, 8), 20)).unwrap();
            assert_eq!(run_one(&mut scheduler, resumed).tokens, whole[told..], "after {told}, shift {shift}");
        }
    }
}

#[test]
fn log_probabilities_come_with_the_tokens_when_asked_for() {
    let mut scheduler = parrot(1, 64, 16);
    scheduler.admit(Sequence { logprobs: Some(2), ..sequence(1, count(0, 4), 1) }).unwrap();
    let events = scheduler.step().unwrap();
    let Some(Event::Token { token: 4, logprob: Some(logprobs), .. }) = events.get(1) else {
        panic!("{events:?}")
    };
    assert_eq!((logprobs.top.len(), logprobs.top[0]), (2, (4, logprobs.logprob)));
}

#[test]
fn borrowed_pages_come_back_and_too_many_are_refused() {
    let mut scheduler = parrot(1, 64, 16);
    scheduler.admit(sequence(1, count(0, 40), 5)).unwrap();
    scheduler.step().unwrap();
    for positions in [20, 64] {
        let pages = scheduler.borrow(positions, |_, pages| Ok(pages.len())).unwrap();
        assert_eq!(pages, pages_for(positions), "what runs makes room");
    }
    assert_eq!(scheduler.borrow(65, |_, _| Ok(())), Err(Error::TooFewPages { needed: 3, found: 2 }));
    assert_eq!(run(&mut scheduler)[&1].tokens.len(), 5);
}

#[derive(Clone, Debug)]
enum Act {
    Admit { prompt: usize, max_tokens: usize, shift: bool },
    Step(usize),
    Cancel(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1usize..90, 0usize..60, any::<bool>()).prop_map(|(prompt, max_tokens, shift)| Act::Admit {
            prompt,
            max_tokens,
            shift
        }),
        (1usize..12).prop_map(Act::Step),
        (0usize..8).prop_map(Act::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_happens_every_story_is_the_one_told_alone(acts in prop::collection::vec(act(), 1..40), chunk in 1usize..40) {
        const CONTEXT: usize = 70;
        let mut scheduler = parrot(3, CONTEXT, chunk);
        let mut stories = HashMap::new();
        let mut admitted = Vec::new();
        for act in acts {
            match act {
                Act::Admit { prompt, max_tokens, shift } => {
                    let id = admitted.len() as SequenceId;
                    // Few beginnings, so that some are shared.
                    let given = count(id as u32 % 3 * 17, prompt);
                    let asked = Sequence { shift, keep: 1, ..sequence(id, given.clone(), max_tokens) };
                    let busy = scheduler.running.len() == 3;
                    match scheduler.admit(asked) {
                        Ok(()) => admitted.push((given, max_tokens, shift)),
                        Err(Error::NoSlot { .. }) => prop_assert!(busy),
                        Err(error) => prop_assert_eq!(error, Error::PromptTooLong { tokens: prompt, context_length: CONTEXT }),
                    }
                }
                Act::Step(steps) => for _ in 0..steps {
                    note(&mut stories, scheduler.step().unwrap());
                },
                Act::Cancel(id) => scheduler.cancel(id as SequenceId),
            }
        }
        finish(&mut scheduler, &mut stories);
        prop_assert!(scheduler.model.steps.iter().all(|step| step.iter().sum::<usize>() <= chunk + 3));
        for (id, story) in stories {
            let (prompt, max_tokens, shift) = &admitted[id as usize];
            let said = match shift {
                true => spoken_shifting(prompt, 1, CONTEXT, *max_tokens),
                false => spoken(prompt, (*max_tokens).min(CONTEXT + 1 - prompt.len())),
            };
            match story.end {
                Some(_) => prop_assert_eq!(story.tokens, said),
                None => prop_assert_eq!(&story.tokens[..], &said[..story.tokens.len()]),
            }
        }
    }
}
