//! Long prompts beside running sequences, on machines whose clock the test keeps.

use super::*;

/// A machine that reads the weights in 20 ms and computes a row in `row_us`.
fn cost(rows: usize, row_us: u64) -> Duration {
    Duration::from_micros((rows as u64 * row_us).max(20_000))
}

/// One step, and what it took.
fn timed_step(scheduler: &mut Scheduler<Parrot>, row_us: u64) -> (Vec<Event>, Duration) {
    let events = scheduler.step().unwrap();
    let took = cost(scheduler.model.steps.last().unwrap().iter().sum(), row_us);
    scheduler.note_step(took);
    (events, took)
}

#[test]
fn decodes_beside_a_long_prompt_wait_less_than_twice_as_long_as_alone() {
    for row_us in [50, 500, 2_300, 5_000] {
        let mut scheduler = parrot(5, 4096, 512);
        for id in 0..4 {
            scheduler.admit(sequence(id, count(id as u32, 5), 1000)).unwrap();
        }
        let mut alone = Duration::ZERO;
        for _ in 0..30 {
            alone = timed_step(&mut scheduler, row_us).1;
        }
        scheduler.admit(sequence(4, count(7, 2000), 1)).unwrap();
        let (mut beside, mut is_prefilled) = (Vec::new(), false);
        while !is_prefilled {
            let (events, took) = timed_step(&mut scheduler, row_us);
            is_prefilled = events.iter().any(|event| matches!(event, Event::Prefilled { id: 4, .. }));
            beside.push(took);
        }
        // Where rows cost so much that even a few are too many, a prompt still goes on.
        let bound = (2 * alone).max(cost(4 + 4, row_us));
        let late = beside.iter().filter(|took| **took > bound).count();
        assert!(late <= 2, "{late} of {} steps at {row_us} us per row: {beside:?}", beside.len());
    }
}

#[test]
fn a_prompt_with_nobody_beside_it_is_computed_in_large_steps() {
    let mut scheduler = parrot(2, 4096, 512);
    scheduler.admit(sequence(1, count(0, 1100), 1)).unwrap();
    run(&mut scheduler);
    assert_eq!(scheduler.model.steps, [[512], [512], [76]]);
}

#[test]
fn a_step_that_completes_a_prompt_takes_no_more_of_the_next_one() {
    let mut scheduler = parrot(8, 512, 512);
    for id in 0..8 {
        scheduler.admit(sequence(id, count(id as u32 * 17, 128), 1)).unwrap();
    }
    let done = prefills(&mut scheduler, 8);
    assert_eq!(done, (0..8).map(|id| (id, id as usize + 1)).collect::<Vec<_>>());
    for id in 0..8 {
        scheduler.admit(sequence(id, count(id as u32 * 31 + 5, 10), 1)).unwrap();
    }
    assert_eq!(prefills(&mut scheduler, 1).len(), 7, "short ones share a step until it is full");
}
