//! Guesses save steps and change nothing that is said.

use super::*;

/// A parrot whose sequences may guess so many tokens per step.
fn guessing(slots: usize, context_length: usize, guesses: usize) -> Scheduler<Parrot> {
    let mut scheduler = parrot(slots, context_length, 64);
    scheduler.limits.guesses = guesses;
    scheduler
}

#[test]
fn a_sequence_that_repeats_itself_needs_few_steps() {
    let prompt: Vec<u32> = [count(9, 12), count(9, 3)].concat();
    let mut scheduler = guessing(1, 512, 16);
    let story = run_one(&mut scheduler, sequence(1, prompt.clone(), 300));
    assert_eq!(story.tokens, spoken(&prompt, 300));
    assert!(story.finished(FinishReason::Length));
    let steps = scheduler.model.steps.len();
    assert!(steps < 120, "{steps} steps for 300 tokens");
}

#[test]
fn a_sequence_whose_guesses_are_wrong_stops_guessing() {
    // Every two tokens have come before, and what came after them never comes again.
    let prompt: Vec<u32> = (0..60).flat_map(|at| [1, 2, 10 + at]).collect();
    let mut scheduler = guessing(1, 1024, 16);
    let sampling = Sampling { temperature: 20.0, seed: 5, ..Sampling::default() };
    let asked = Sequence { sampling, ignore_eos: true, ..sequence(1, prompt, 400) };
    run_one(&mut scheduler, asked);
    let rows: usize = scheduler.model.steps.iter().skip(3).flatten().sum();
    assert!(rows < 440, "{rows} rows for 400 tokens");
}

#[test]
fn beside_a_prompt_nobody_guesses_and_all_share_the_bound() {
    let prompt: Vec<u32> = [count(9, 12), count(9, 3)].concat();
    let mut scheduler = guessing(5, 1024, 6);
    for id in 0..4 {
        scheduler.admit(sequence(id, prompt.clone(), 200)).unwrap();
    }
    for _ in 0..20 {
        scheduler.step().unwrap();
    }
    assert!(scheduler.model.steps.iter().skip(4).any(|step| step.iter().any(|rows| *rows > 1)));
    assert!(scheduler.model.steps.iter().skip(1).all(|step| step.iter().sum::<usize>() <= 4 + 6));
    scheduler.admit(sequence(4, count(50, 400), 1)).unwrap();
    scheduler.step().unwrap();
    assert_eq!(scheduler.model.steps.last().unwrap()[..4], [1; 4]);
}

#[test]
fn a_guess_that_breaks_the_model_is_nobodys_fault() {
    // The parrot says 3 after 2; what followed 1 and 2 was the poison.
    let prompt = [1, 2, 255, 9, 2, 3, 1];
    let mut scheduler = guessing(1, 64, 4);
    scheduler.model.poison = None;
    scheduler.admit(sequence(1, prompt.to_vec(), 5)).unwrap();
    let mut stories = HashMap::new();
    note(&mut stories, scheduler.step().unwrap());
    scheduler.model.poison = Some(255);
    finish(&mut scheduler, &mut stories);
    assert_eq!(stories[&1].tokens, spoken(&prompt, 5));
    let rows: Vec<usize> = scheduler.model.steps.iter().flatten().copied().collect();
    assert_eq!(rows[..3], [7, 3, 1], "the guesses were thrown away, and the same token run alone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn guesses_change_nothing_that_is_said(
        prompts in prop::collection::vec((0u32..4, 1usize..60, 0usize..120, any::<bool>(), 0usize..3), 1..7),
        guesses in 1usize..20,
        pages in 4usize..13,
    ) {
        let tell = |guesses: usize, pages: usize| {
            let mut scheduler = guessing(3, 128, guesses);
            (scheduler.limits.pages, scheduler.pages) = (pages, Pages::new(pages));
            let sequence = |(id, &(from, len, max_tokens, shift, heat))| {
                // Cold, lukewarm and hot; prompts that repeat themselves.
                let sampling = Sampling { temperature: [0.0, 1.5, 4.0][heat], seed: id, ..Sampling::default() };
                let prompt = [count(from * 40, len), count(from * 40, 2)].concat();
                Sequence { shift, sampling, ignore_eos: from > 1, logprobs: Some(1), ..sequence(id, prompt, max_tokens) }
            };
            let mut waiting = (0..).zip(&prompts).map(sequence);
            let mut stories = HashMap::new();
            loop {
                while scheduler.running.len() < 3 && let Some(sequence) = waiting.next() {
                    scheduler.admit(sequence).unwrap();
                }
                if scheduler.is_idle() {
                    break stories;
                }
                note(&mut stories, scheduler.step().unwrap());
            }
        };
        prop_assert_eq!(tell(guesses, pages), tell(0, 12));
    }
}
