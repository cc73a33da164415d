//! Admission: which requests may wait, and in which order they are served.
//!
//! A request that finds a free slot never comes here. All others stand in the line of their model, first come,
//! first served; only the head of a line asks for a slot, so nobody is overtaken and a change of the cluster
//! wakes one request per model and not all of them. Everybody who waits holds a *ticket*; tickets are counted over
//! all lines, and when none is left the next request is answered at once. Nothing here does I/O or knows a worker.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::ollama::QUEUE_FULL;
use api::{Code, Error};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Notify;

use crate::cluster::Link;

/// A load that every request in the line of its model shares: it goes on while one of them is left.
pub type Load = Shared<BoxFuture<'static, Result<Loaded, LoadFailure>>>;

/// How a load ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// A replica is ready.
    Here,
    /// The cluster had changed and there was nothing to load: look again.
    Changed,
}

/// Why a load failed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    /// `None` when it did not come to a worker.
    pub link: Option<Link>,
    pub error: Error,
}

#[derive(Clone, Default)]
pub struct Admission {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: u32,
    next_id: u64,
    lines: HashMap<String, Line>,
}

#[derive(Default)]
struct Line {
    members: VecDeque<Member>,
    load: Option<Load>,
    /// Its head waits for a place to load the model at.
    wants_place: bool,
}

struct Member {
    id: u64,
    began: Instant,
    turn: Arc<Notify>,
}

/// One of the places that the queue has, until dropped.
pub struct Ticket {
    admission: Admission,
}

/// What entitles a request to wait.
pub enum Pass {
    /// Nothing yet: a newcomer, who takes a ticket when it must wait.
    None,
    Ticket {
        _held: Ticket,
    },
    /// A request that had been served when its worker died. There are no more of those than there were slots, and
    /// to refuse them would break their clients' streams, so they wait without a ticket.
    Interrupted,
}

/// Which end of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For those who had their turn already and were sent back.
    Front,
    Back,
}

/// Whose turn it is among the heads of all lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    InTime,
    /// It has waited long, and longer than all others.
    Overdue,
    /// Another one that waits for a place is overdue: it goes first.
    AfterOthers,
}

/// A place in the line of a model. Dropping it, for whatever reason, lets the next one move up.
pub struct Place {
    admission: Admission,
    key: String,
    id: u64,
    turn: Arc<Notify>,
}

impl Admission {
    /// How many requests wait now.
    pub fn waiting(&self) -> u32 {
        self.lock().waiting
    }

    /// Whether nobody stands in the line of this model, so that a newcomer overtakes nobody.
    pub fn is_clear(&self, key: &str) -> bool {
        !self.lock().lines.contains_key(key)
    }

    /// How many requests stand in the line of this model.
    pub fn line_length(&self, key: &str) -> u32 {
        let length = self.lock().lines.get(key).map_or(0, |line| line.members.len());
        u32::try_from(length).unwrap_or(u32::MAX)
    }

    /// Joins the line. Whoever finds somebody before it waits, which may be refused; the first in line needs no
    /// ticket until it has to wait ([`Pass::wait`]). `began` is when the request came.
    pub fn join(
        &self,
        key: &str,
        (end, began): (End, Instant),
        pass: &mut Pass,
        limit: u32,
    ) -> Result<Place, Error> {
        let mut state = self.lock();
        if state.lines.contains_key(key) && matches!(pass, Pass::None) {
            state.count_one(limit)?;
            *pass = Pass::Ticket { _held: Ticket { admission: self.clone() } };
        }
        state.next_id += 1;
        let (id, turn) = (state.next_id, Arc::new(Notify::new()));
        let member = Member { id, began, turn: turn.clone() };
        let line = state.lines.entry(key.to_owned()).or_default();
        match end {
            End::Front => line.members.push_front(member),
            End::Back => line.members.push_back(member),
        }
        drop(state);
        Ok(Place { admission: self.clone(), key: key.to_owned(), id, turn })
    }

    /// State is consistent between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count_one(&mut self, limit: u32) -> Result<(), Error> {
        if self.waiting >= limit {
            return Err(Error::new(Code::QueueFull, QUEUE_FULL));
        }
        self.waiting += 1;
        Ok(())
    }
}

impl Pass {
    /// Declares that the request waits: takes a ticket if there is none, which fails when the queue is full.
    pub fn wait(&mut self, admission: &Admission, limit: u32) -> Result<(), Error> {
        if matches!(self, Pass::None) {
            admission.lock().count_one(limit)?;
            *self = Pass::Ticket { _held: Ticket { admission: admission.clone() } };
        }
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.lock().waiting -= 1;
    }
}

// === impl Place ===

impl Place {
    /// Returns when this place is the head of its line. Others may come to the front later, so a head that waits
    /// for something asks again afterwards.
    pub async fn turn(&self) {
        while !self.is_head() {
            self.turn.notified().await;
        }
    }

    /// The load that is under way for this line.
    pub fn current_load(&self) -> Option<Load> {
        self.admission.lock().lines.get(&self.key).and_then(|line| line.load.clone())
    }

    /// The load that is under way for this line, or else the one given.
    pub fn share_load(&self, load: BoxFuture<'static, Result<Loaded, LoadFailure>>) -> Load {
        let mut state = self.admission.lock();
        let line = state.lines.entry(self.key.clone()).or_default();
        line.load.get_or_insert_with(|| load.shared()).clone()
    }

    /// Forgets a load that has ended, so that the next one starts afresh. A newer load is left alone.
    pub fn load_ended(&self, load: &Load) {
        let mut state = self.admission.lock();
        if let Some(line) = state.lines.get_mut(&self.key)
            && line.load.as_ref().is_some_and(|current| current.ptr_eq(load))
        {
            line.load = None;
        }
    }

    /// Says whether this head waits for a place to load its model at.
    pub fn wants_place(&self, wants: bool) {
        if let Some(line) = self.admission.lock().lines.get_mut(&self.key) {
            line.wants_place = wants;
        }
    }

    /// How this head stands to those of other lines, when nobody should wait for a place longer than `patience`.
    pub fn rank(&self, patience: Duration) -> Rank {
        let state = self.admission.lock();
        let head = |key: &str| state.lines.get(key).and_then(|line| line.members.front());
        let Some(own) = head(&self.key) else { return Rank::InTime };
        let is_before = |other: &Line| {
            other.wants_place
                && other.members.front().is_some_and(|head| {
                    head.began.elapsed() >= patience && (head.began, head.id) < (own.began, own.id)
                })
        };
        if state.lines.values().any(is_before) {
            return Rank::AfterOthers;
        }
        if own.began.elapsed() >= patience { Rank::Overdue } else { Rank::InTime }
    }

    /// The models whose lines have a head that came before this one.
    pub fn elders(&self) -> Vec<String> {
        let state = self.admission.lock();
        let age = |line: &Line| line.members.front().map(|head| (head.began, head.id));
        let own = state.lines.get(&self.key).and_then(age);
        let before = state.lines.iter().filter(|(_, line)| age(line) < own);
        before.map(|(key, _)| key.clone()).collect()
    }

    fn is_head(&self) -> bool {
        let state = self.admission.lock();
        let line = state.lines.get(&self.key);
        line.and_then(|line| line.members.front()).is_some_and(|head| head.id == self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        let Some(line) = state.lines.get_mut(&self.key) else { return };
        if line.members.front().is_some_and(|head| head.id == self.id) {
            // What it wanted the next one may not.
            line.wants_place = false;
        }
        line.members.retain(|member| member.id != self.id);
        if let Some(head) = line.members.front() {
            head.turn.notify_one();
            return;
        }
        // The load goes with the line; outside the lock, because ending it runs other people's drops.
        let line = state.lines.remove(&self.key);
        drop(state);
        drop(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sha256:aa";

    struct Waiter {
        place: Place,
        pass: Pass,
    }

    fn join(admission: &Admission, key: &str, limit: u32) -> Result<Waiter, Error> {
        let mut pass = Pass::None;
        let place = admission.join(key, (End::Back, Instant::now()), &mut pass, limit)?;
        Ok(Waiter { place, pass })
    }

    #[test]
    fn the_first_in_line_needs_a_ticket_only_when_it_waits() {
        let admission = Admission::default();
        let mut first = join(&admission, KEY, 0).unwrap();
        assert_eq!(admission.waiting(), 0);
        let refused = first.pass.wait(&admission, 0).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (Code::QueueFull, QUEUE_FULL));
        first.pass.wait(&admission, 1).unwrap();
        first.pass.wait(&admission, 1).unwrap();
        assert_eq!(admission.waiting(), 1, "a ticket is taken once");
    }

    #[test]
    fn tickets_are_counted_over_all_models_and_come_back() {
        let admission = Admission::default();
        let head = join(&admission, KEY, 2).unwrap();
        let second = join(&admission, KEY, 2).unwrap();
        let mut other = join(&admission, "sha256:bb", 2).unwrap();
        other.pass.wait(&admission, 2).unwrap();
        assert!(join(&admission, KEY, 2).is_err());
        drop(second);
        let third = join(&admission, KEY, 2).unwrap();
        drop((head, third, other));
        assert_eq!(admission.waiting(), 0);
        assert!(admission.is_clear(KEY));
    }

    #[tokio::test]
    async fn a_line_is_served_in_order_and_those_who_leave_are_skipped() {
        let admission = Admission::default();
        let first = join(&admission, KEY, 9).unwrap();
        let second = join(&admission, KEY, 9).unwrap();
        let third = join(&admission, KEY, 9).unwrap();
        first.place.turn().await;
        assert!(second.place.turn().now_or_never().is_none());
        drop(second);
        assert!(third.place.turn().now_or_never().is_none());
        drop(first);
        third.place.turn().await;
    }

    #[tokio::test]
    async fn an_interrupted_request_goes_first_and_needs_no_ticket() {
        let admission = Admission::default();
        let first = join(&admission, KEY, 0).unwrap();
        let interrupted =
            admission.join(KEY, (End::Front, Instant::now()), &mut Pass::Interrupted, 0).unwrap();
        interrupted.turn().await;
        assert!(first.place.turn().now_or_never().is_none());
        drop(interrupted);
        first.place.turn().await;
        assert_eq!(admission.waiting(), 0);
    }

    #[test]
    fn who_waits_for_a_place_too_long_goes_before_those_who_came_later() {
        let admission = Admission::default();
        let [first, second] = ["a", "b"].map(|key| join(&admission, key, 9).unwrap().place);
        let ranks = |patience| [first.rank(patience), second.rank(patience)];
        assert_eq!(ranks(Duration::MAX), [Rank::InTime; 2]);
        // Waiting for a slot of a model that is loaded keeps nobody from a place.
        assert_eq!(ranks(Duration::ZERO), [Rank::Overdue; 2]);
        first.wants_place(true);
        assert_eq!(ranks(Duration::ZERO), [Rank::Overdue, Rank::AfterOthers]);
        assert_eq!(ranks(Duration::MAX), [Rank::InTime; 2]);
        second.wants_place(true);
        assert_eq!(ranks(Duration::ZERO), [Rank::Overdue, Rank::AfterOthers]);
        assert_eq!((first.elders(), second.elders()), (Vec::new(), vec!["a".to_owned()]));
        let next = join(&admission, "a", 9).unwrap().place;
        drop(first);
        assert_eq!((second.elders(), next.elders()), (Vec::new(), vec!["b".to_owned()]));
        assert_eq!(
            (second.rank(Duration::ZERO), next.rank(Duration::ZERO)),
            (Rank::Overdue, Rank::AfterOthers)
        );
    }

    #[tokio::test]
    async fn a_load_outlives_the_request_that_started_it_but_not_its_line() {
        let admission = Admission::default();
        let first = join(&admission, KEY, 9).unwrap();
        let second = join(&admission, KEY, 9).unwrap();
        let alive = Arc::new(());
        let held = alive.clone();
        let started = first.place.share_load(Box::pin(async move {
            let _held = held;
            std::future::pending().await
        }));
        drop((first, started));
        assert_eq!(Arc::strong_count(&alive), 2, "the second still wants it");
        assert!(second.place.current_load().is_some());
        drop(second);
        assert_eq!(Arc::strong_count(&alive), 1, "nobody wants it: it is cancelled");
    }

    #[tokio::test]
    async fn a_load_that_ended_is_forgotten_once() {
        let admission = Admission::default();
        let Waiter { place, .. } = join(&admission, KEY, 9).unwrap();
        let failed = place
            .share_load(Box::pin(async { Err(LoadFailure { link: None, error: Error::internal("no") }) }));
        assert!(failed.clone().await.is_err());
        place.load_ended(&failed);
        assert!(place.current_load().is_none());
        let again = place.share_load(Box::pin(async { Ok(Loaded::Here) }));
        place.load_ended(&failed);
        assert!(place.current_load().is_some_and(|load| load.ptr_eq(&again)), "the newer load is kept");
    }
}
