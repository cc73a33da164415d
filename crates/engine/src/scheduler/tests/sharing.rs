//! What the cache holds of a prompt is not computed again, and nothing shows that it was not.

use super::*;

/// The story of one sequence, how many of its tokens were cached, and how many the model was asked to run.
fn run_counted(scheduler: &mut Scheduler<Parrot>, sequence: Sequence) -> (Story, usize, usize) {
    let before: usize = scheduler.model.steps.iter().flatten().sum();
    let id = sequence.id;
    scheduler.admit(sequence).unwrap();
    let (mut stories, mut cached) = (HashMap::new(), 0);
    while !scheduler.is_idle() {
        let events = scheduler.step().unwrap();
        for event in &events {
            if let Event::Prefilled { cached_tokens, .. } = event {
                cached = *cached_tokens;
            }
        }
        note(&mut stories, events);
    }
    let after: usize = scheduler.model.steps.iter().flatten().sum();
    (stories.remove(&id).unwrap(), cached, after - before)
}

#[test]
fn a_prompt_that_begins_like_one_before_is_computed_from_where_they_part() {
    let mut scheduler = parrot(1, 512, 64);
    let (_, cached, ran) = run_counted(&mut scheduler, sequence(1, count(0, 200), 10));
    assert_eq!((cached, ran), (0, 209), "the last token is never run");
    for (id, prompt, expected) in [
        (2, count(0, 200), 192),
        (3, [count(0, 100), count(7, 60)].concat(), 96),
        (4, count(1, 200), 0),
        (5, count(0, 192), 160),
        (6, count(0, 193), 192),
    ] {
        let (story, cached, ran) = run_counted(&mut scheduler, sequence(id, prompt.clone(), 10));
        assert_eq!(story.tokens, spoken(&prompt, 10), "sequence {id}");
        assert_eq!((cached, ran), (expected, prompt.len() + 9 - expected), "sequence {id}");
    }
}

#[test]
fn an_answer_is_cached_for_the_next_turn_of_a_conversation() {
    let mut scheduler = parrot(1, 512, 64);
    let prompt = count(0, 50);
    let (story, ..) = run_counted(&mut scheduler, sequence(1, prompt.clone(), 60));
    let next = [prompt, story.tokens, count(200, 20)].concat();
    let (story, cached, _) = run_counted(&mut scheduler, sequence(2, next.clone(), 5));
    assert_eq!((cached, story.tokens), (96, spoken(&next, 5)), "109 were computed: three full pages");
}

#[test]
fn sequences_that_run_together_share_what_one_of_them_computed() {
    let mut scheduler = parrot(4, 512, 256);
    let shared = count(0, 256);
    let prompts: Vec<Vec<u32>> = (0..4).map(|id| [shared.clone(), count(40 * id, 40)].concat()).collect();
    for (id, prompt) in prompts.iter().enumerate() {
        scheduler.admit(sequence(id as SequenceId, prompt.clone(), 30)).unwrap();
    }
    let stories = run(&mut scheduler);
    let ran: usize = scheduler.model.steps.iter().flatten().sum();
    assert_eq!(ran, 256 + 4 * (40 + 29));
    for (id, prompt) in prompts.iter().enumerate() {
        assert_eq!(stories[&(id as SequenceId)].tokens, spoken(prompt, 30));
    }
}

#[test]
fn a_resumed_sequence_finds_what_it_left_and_tells_the_same_story() {
    for (shift, context_length) in [(false, 256), (true, 90)] {
        let start = |prompt, len| Sequence { shift, keep: 40, ..hot(1, prompt, len) };
        let prompt = count(30, 70);
        let mut scheduler = parrot(1, context_length, 32);
        let whole = run_one(&mut scheduler, start(prompt.clone(), 80)).tokens;
        for told in [1, 30, 79] {
            let replayed = [&prompt, &whole[..told]].concat();
            let resumed = Sequence { resume_at: told, ..start(replayed, 80 - told) };
            let (story, cached, _) = run_counted(&mut scheduler, resumed);
            assert_eq!(story.tokens, whole[told..], "after {told}, shift {shift}");
            assert!(cached >= 32, "after {told}, shift {shift}: {cached} cached");
        }
    }
}

#[test]
fn a_shift_computes_what_moved_and_leaves_what_others_share() {
    let prompt: Vec<u32> = [vec![256], count(9, 63), count(9, 3)].concat();
    let shifting = |id, keep| Sequence { shift: true, keep, ..sequence(id, prompt.clone(), 300) };
    let mut scheduler = parrot(3, 100, 40);
    scheduler.admit(shifting(1, 3)).unwrap();
    scheduler.admit(shifting(2, 63)).unwrap();
    scheduler.admit(sequence(3, prompt.clone(), 20)).unwrap();
    let stories = run(&mut scheduler);
    assert_eq!(stories[&1].tokens, spoken_shifting(&prompt, 4, 100, 300));
    assert_eq!(stories[&2].tokens, spoken_shifting(&prompt, 64, 100, 300));
    assert_eq!(stories[&3].tokens, spoken(&prompt, 20));
}

#[test]
fn what_broke_a_sequence_is_not_shared() {
    let mut scheduler = parrot(1, 256, 256);
    let prompt = [count(0, 60), vec![255], count(100, 60)].concat();
    scheduler.model.poison = Some(255);
    assert!(matches!(
        run_one(&mut scheduler, sequence(1, prompt.clone(), 5)).end,
        Some(Event::Failed { .. })
    ));
    scheduler.model.poison = None;
    let (story, cached, _) = run_counted(&mut scheduler, sequence(2, prompt.clone(), 5));
    assert_eq!((cached, story.tokens), (0, spoken(&prompt, 5)));
}
