//! What grammars allow next, found on a thread of its own while the model computes the scores.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

use crate::{Error, grammar::Constraint, sampler::Mask};

/// The thread. It starts with the first sequence that needs it and ends when this is dropped.
#[derive(Default)]
pub(super) struct Masker {
    helper: Option<Helper>,
}

struct Helper {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

/// A sequence with a grammar.
pub(super) struct Constrained {
    state: State,
    /// Tokens that the constraint has not been told of.
    said: Vec<u32>,
    /// Of each row of the step, what may be picked by it; as many as the guesses that the grammar allows, and one.
    masks: Vec<Mask>,
}

enum State {
    Here(Box<dyn Constraint>),
    /// Being asked.
    Away(Receiver<Answer>),
    Broken(Error),
}

struct Job {
    constraint: Box<dyn Constraint>,
    said: Vec<u32>,
    guesses: Vec<u32>,
    reply: Sender<Answer>,
}

type Answer = (Box<dyn Constraint>, Result<Vec<Mask>, Error>);

// === impl Constrained ===

impl Constrained {
    /// `said`: the part of the answer that was given before.
    pub fn new(constraint: Box<dyn Constraint>, said: Vec<u32>) -> Constrained {
        Constrained { state: State::Here(constraint), said, masks: Vec::new() }
    }

    pub fn accept(&mut self, token: u32) {
        self.said.push(token);
    }

    /// Has the masks of the next step found.
    pub fn ask(&mut self, guesses: &[u32], masker: &mut Masker) {
        // A step that failed has left its masks; those of this one are other ones.
        self.collect();
        let (reply, answer) = mpsc::channel();
        match mem::replace(&mut self.state, State::Away(answer)) {
            State::Here(constraint) => {
                let said = mem::take(&mut self.said);
                masker.give(Job { constraint, said, guesses: guesses.to_vec(), reply });
            }
            broken => self.state = broken,
        }
    }

    /// The mask of a row of the step. `None` when nothing may be picked.
    pub fn mask(&mut self, row: usize) -> Result<Option<&Mask>, Error> {
        self.collect();
        if let State::Broken(error) = &self.state {
            return Err(error.clone());
        }
        Ok(self.masks.get(row).filter(|mask| !mask.is_empty()))
    }

    /// Waits for what was asked.
    fn collect(&mut self) {
        let State::Away(answer) = &self.state else { return };
        let broken = || Error::Grammar("the thread that walks through grammars broke down".to_owned());
        (self.state, self.masks) = match answer.recv() {
            Ok((constraint, Ok(masks))) => (State::Here(constraint), masks),
            Ok((_, Err(error))) => (State::Broken(error), Vec::new()),
            Err(_) => (State::Broken(broken()), Vec::new()),
        };
    }
}

// === impl Masker ===

impl Masker {
    fn give(&mut self, job: Job) {
        if self.helper.is_none() {
            self.helper = Helper::start().ok();
        }
        let refused = match &self.helper {
            Some(helper) => helper.jobs.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        // Without a thread it takes a little longer.
        if let Some(job) = refused {
            job.run();
        }
    }
}

impl Drop for Masker {
    fn drop(&mut self) {
        if let Some(Helper { jobs, thread }) = self.helper.take() {
            drop(jobs);
            // It catches panics, so there is nothing to learn from it.
            let _ = thread.join();
        }
    }
}

impl Helper {
    fn start() -> std::io::Result<Helper> {
        // Never more jobs than sequences run.
        let (jobs, received) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("grammar".into()).spawn(move || {
            received.into_iter().for_each(Job::run);
        })?;
        Ok(Helper { jobs, thread })
    }
}

impl Job {
    fn run(self) {
        let Job { mut constraint, said, guesses, reply } = self;
        // A constraint that panicked is not used again: its reply is never sent.
        let walked = catch_unwind(AssertUnwindSafe(|| walk(constraint.as_mut(), &said, &guesses)));
        if let Ok(masks) = walked {
            // Nobody waits for a sequence that has been cancelled.
            let _ = reply.send((constraint, masks));
        }
    }
}

/// The mask after `said`, and those after each of `guesses` as far as they are allowed. The constraint stands after
/// `said` then.
fn walk(constraint: &mut dyn Constraint, said: &[u32], guesses: &[u32]) -> Result<Vec<Mask>, Error> {
    said.iter().try_for_each(|&token| constraint.accept(token))?;
    let mut masks = vec![constraint.allowed()?];
    for &guess in guesses {
        if !masks.last().is_some_and(|mask| mask.allows(guess)) {
            break;
        }
        constraint.accept(guess)?;
        masks.push(constraint.allowed()?);
    }
    constraint.rewind(masks.len() - 1)?;
    Ok(masks)
}
