//! Fewer pages than all sequences need: they take longer, and that is all.

use super::*;

/// A parrot with so many slots and pages.
fn scarce(slots: usize, context_length: usize, pages: usize) -> Scheduler<Parrot> {
    let limits = Limits { slots, context_length, chunk: 64, pages, page_bytes: 0, guesses: 0 };
    Scheduler::new(Parrot::default(), Arc::new(Tokenizer::bytes()), limits)
}

#[test]
fn the_youngest_gives_way_and_says_the_same_later() {
    let mut scheduler = scarce(3, 256, 8);
    for id in 0..3 {
        scheduler.admit(sequence(id, count(80 * id as u32, 60), 100)).unwrap();
    }
    let mut stories = HashMap::new();
    let mut ends = Vec::new();
    while !scheduler.is_idle() {
        let events = scheduler.step().unwrap();
        ends.extend(events.iter().filter_map(|event| match event {
            Event::Finished { id, .. } => Some(*id),
            _ => None,
        }));
        note(&mut stories, events);
    }
    assert_eq!(ends, [0, 1, 2], "each needs five pages of eight");
    for id in 0..3 {
        assert_eq!(stories[&id].tokens, spoken(&count(80 * id as u32, 60), 100), "sequence {id}");
    }
    let ran: usize = scheduler.model.steps.iter().flatten().sum();
    assert!(ran < 2 * 3 * 159, "{ran} tokens were run for {}", 3 * 159);
}

#[test]
fn what_alone_cannot_fit_is_refused_with_both_numbers() {
    let mut scheduler = scarce(2, 256, 4);
    let error = scheduler.admit(sequence(1, count(0, 100), 30)).unwrap_err();
    assert_eq!(error, Error::TooFewPages { needed: 5, found: 4 });
    assert_eq!(error.to_string(), "the sequence may need 5 pages of KV cache, there are 4");
    assert!(matches!(
        scheduler.admit(Sequence { max_tokens: None, ..sequence(1, count(0, 3), 0) }),
        Err(Error::TooFewPages { needed: 8, .. })
    ));
    scheduler.admit(sequence(1, count(0, 100), 29)).unwrap();
    assert_eq!(run(&mut scheduler)[&1].tokens, spoken(&count(0, 100), 29));
}

#[test]
fn a_sequence_that_waits_for_pages_is_not_overtaken_for_ever() {
    let mut scheduler = scarce(3, 256, 8);
    scheduler.admit(sequence(0, count(0, 30), 20)).unwrap();
    scheduler.step().unwrap();
    scheduler.admit(sequence(1000, count(0, 250), 1)).unwrap();
    let mut steps = 0;
    while scheduler.running.iter().any(|running| running.id == 1000) {
        if scheduler.running.len() < 3 {
            steps += 1;
            scheduler.admit(sequence(steps, count(9 * steps as u32, 20), 20)).unwrap();
        }
        scheduler.step().unwrap();
        assert!(steps < 40, "short ones overtake it again and again");
    }
}

#[test]
fn what_was_computed_before_it_was_given_back_does_not_count_as_cached() {
    let mut scheduler = scarce(2, 256, 8);
    scheduler.admit(sequence(1, count(0, 30), 150)).unwrap();
    scheduler.step().unwrap();
    scheduler.admit(sequence(2, count(90, 150), 2)).unwrap();
    scheduler.step().unwrap();
    scheduler.borrow(256, |_, _| Ok(())).unwrap();
    let mut cached = Vec::new();
    while !scheduler.is_idle() {
        for event in scheduler.step().unwrap() {
            if let Event::Prefilled { id, cached_tokens, .. } = event {
                cached.push((id, cached_tokens));
            }
        }
    }
    assert_eq!(cached, [(2, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn scarce_pages_change_nothing_that_is_said(
        prompts in prop::collection::vec((0u32..4, 1usize..120, 0usize..60, any::<bool>()), 1..9),
        pages in 4usize..16,
        chunk in 1usize..80,
        cancelled in 0u64..20,
    ) {
        let run = |pages: usize| {
            let mut scheduler = scarce(4, 128, pages);
            scheduler.limits.chunk = chunk;
            let sequence = |(id, &(from, len, max_tokens, shift))| {
                Sequence { shift, ..hot(id, count(from * 40, len), max_tokens) }
            };
            let mut waiting = (0..).zip(&prompts).map(sequence);
            let mut stories = HashMap::new();
            for _ in 0..20_000 {
                while scheduler.running.len() < 4 && let Some(sequence) = waiting.next() {
                    scheduler.admit(sequence).unwrap();
                }
                if scheduler.is_idle() {
                    return stories;
                }
                note(&mut stories, scheduler.step().unwrap());
                if stories.get(&cancelled).is_some_and(|story| story.tokens.len() == 5) {
                    scheduler.cancel(cancelled);
                }
            }
            panic!("it never ends");
        };
        prop_assert_eq!(run(pages), run(4 * 4));
    }
}
