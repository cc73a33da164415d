//! Sequences with a grammar on the parrot: it alone decides what may come, and when the answer may end.

use super::*;
use crate::grammar::{Begin, Constraint, Grammar};
use crate::sampler::Mask;

/// After `n` tokens a few may come that depend on `n`, and the end after every `length` tokens. It keeps count of what
/// it was told, so that a token told twice or not at all is an error.
#[derive(Clone, Debug)]
struct Counter {
    told: Vec<u32>,
    length: usize,
    /// After so many tokens nothing may come; or it panics.
    last: Option<usize>,
    panics_at: Option<usize>,
}

const COUNTER: Counter = Counter { told: Vec::new(), length: 10, last: None, panics_at: None };

impl Counter {
    fn may_come(&self) -> Vec<u32> {
        let at = self.told.len() as u32;
        if self.last == Some(self.told.len()) {
            return Vec::new();
        }
        let mut tokens = vec![at * 7 % 90, at * 13 % 90, at * at % 90];
        tokens.extend((self.told.len() % self.length == self.length - 1).then_some(END));
        tokens
    }
}

impl Begin for Counter {
    fn begin(&self) -> Result<Box<dyn Constraint>, Error> {
        Ok(Box::new(self.clone()))
    }
}

impl Constraint for Counter {
    fn allowed(&mut self) -> Result<Mask, Error> {
        assert_ne!(self.panics_at, Some(self.told.len()), "a broken constraint");
        Ok(self.may_come().into_iter().collect())
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        if !self.may_come().contains(&token) {
            return Err(Error::Grammar(format!("{token} may not come after {:?}", self.told)));
        }
        self.told.push(token);
        Ok(())
    }

    fn rewind(&mut self, tokens: usize) -> Result<(), Error> {
        self.told.truncate(self.told.len() - tokens);
        Ok(())
    }
}

fn constrained(counter: Counter, sequence: Sequence) -> Sequence {
    Sequence { grammar: Some(Grammar::new(counter)), ..sequence }
}

fn warm(id: SequenceId, prompt: Vec<u32>, max_tokens: usize) -> Sequence {
    Sequence { ignore_eos: false, ..hot(id, prompt, max_tokens) }
}

#[test]
fn every_token_is_one_that_may_come_and_the_end_comes_where_it_may() {
    let mut scheduler = parrot(6, 256, 16);
    for id in 0..6 {
        let mut asked = warm(id, count(id as u32, 20), 200);
        asked.sampling.seed = id;
        scheduler.admit(constrained(COUNTER, asked)).unwrap();
    }
    for story in run(&mut scheduler).values() {
        let mut counter = COUNTER;
        story.tokens.iter().for_each(|&token| counter.accept(token).unwrap());
        assert!(story.finished(FinishReason::Stop) && story.tokens.len() % 10 == 9, "{story:?}");
    }
}

#[test]
fn cold_sequences_pick_the_best_that_may_come() {
    let story = run_one(&mut parrot(1, 256, 16), constrained(COUNTER, sequence(1, count(0, 20), 8)));
    let mut counter = COUNTER;
    story.tokens.iter().for_each(|&token| counter.accept(token).unwrap());
    assert_eq!(story.tokens.len(), 8);
    assert!(story.finished(FinishReason::Length), "no end may come before the tenth");
}

#[test]
fn where_nothing_may_come_the_answer_ends() {
    let short = Counter { last: Some(5), ..COUNTER };
    let story = run_one(&mut parrot(1, 256, 16), constrained(short, sequence(1, count(0, 20), 50)));
    assert_eq!(story.tokens.len(), 5);
    assert!(story.finished(FinishReason::Stop));
}

#[test]
fn a_grammar_that_breaks_down_ends_its_own_sequence_and_no_other() {
    let broken = Counter { panics_at: Some(3), ..COUNTER };
    let mut scheduler = parrot(3, 256, 16);
    scheduler.admit(constrained(broken, sequence(1, count(0, 20), 50))).unwrap();
    scheduler.admit(sequence(2, count(0, 20), 50)).unwrap();
    scheduler.admit(constrained(COUNTER, sequence(3, count(0, 20), 8))).unwrap();
    let stories = run(&mut scheduler);
    assert_eq!(stories[&1].tokens.len(), 3);
    assert!(matches!(stories[&1].end, Some(Event::Failed { error: Error::Grammar(_), .. })));
    assert_eq!((stories[&2].tokens.len(), stories[&3].tokens.len()), (50, 8));
}

#[test]
fn a_resume_that_does_not_fit_its_grammar_fails_in_words() {
    let resumed = Sequence { resume_at: 2, ..sequence(1, [count(0, 20), vec![0, 99]].concat(), 5) };
    let story = run_one(&mut parrot(1, 64, 16), constrained(COUNTER, resumed));
    let Some(Event::Failed { error, .. }) = story.end else { panic!("{story:?}") };
    assert_eq!(error.to_string(), "invalid format: 99 may not come after [0]");
}

#[test]
fn a_sequence_may_be_cancelled_while_its_grammar_is_asked() {
    let mut scheduler = parrot(2, 256, 16);
    for id in 0..20 {
        scheduler.admit(constrained(COUNTER, sequence(id, count(0, 5), 50))).unwrap();
        scheduler.step().unwrap();
        scheduler.cancel(id);
    }
    assert!(scheduler.is_idle());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn guesses_pages_and_resumes_change_nothing_that_a_grammar_lets_through(
        seeds in prop::collection::vec((0u64..9, 1usize..40, 0usize..3), 1..6),
        guesses in 1usize..12,
        pages in 4usize..9,
        told in 0usize..30,
    ) {
        let sequence = |id: u64, &(seed, len, heat): &(u64, usize, usize)| {
            let sampling = Sampling { temperature: [0.0, 1.0, 5.0][heat], seed, ..Sampling::default() };
            let prompt = [count(0, len), count(0, 2)].concat();
            let counter = Counter { length: 30, ..COUNTER };
            constrained(counter, Sequence { sampling, ..sequence(id, prompt, 60) })
        };
        let tell = |guesses: usize, pages: usize, slots: usize, told: &[(u64, Vec<u32>)]| {
            let mut scheduler = parrot(slots, 128, 16);
            scheduler.limits.guesses = guesses;
            (scheduler.limits.pages, scheduler.pages) = (pages, Pages::new(pages));
            let mut stories = HashMap::new();
            let mut waiting = (0..).zip(&seeds);
            loop {
                while scheduler.running.len() < slots && let Some((id, seed)) = waiting.next() {
                    let mut asked = sequence(id, seed);
                    if let Some((_, told)) = told.iter().find(|story| story.0 == id) {
                        asked.prompt.extend(told);
                        asked.resume_at = told.len();
                        asked.max_tokens = Some(60 - told.len());
                    }
                    scheduler.admit(asked).unwrap();
                }
                if scheduler.is_idle() {
                    return stories;
                }
                note(&mut stories, scheduler.step().unwrap());
            }
        };
        let plain = tell(0, 4, 1, &[]);
        prop_assert_eq!(&tell(guesses, pages, 3, &[]), &plain);
        let begun: Vec<(u64, Vec<u32>)> = plain
            .iter()
            .map(|(id, story)| (*id, story.tokens[..told.min(story.tokens.len() - 1)].to_vec()))
            .collect();
        for (id, story) in tell(guesses, pages, 3, &begun) {
            let (_, told) = begun.iter().find(|begun| begun.0 == id).unwrap();
            prop_assert_eq!(&[&told[..], &story.tokens].concat(), &plain[&id].tokens);
            prop_assert_eq!(&story.end, &plain[&id].end);
        }
    }
}
