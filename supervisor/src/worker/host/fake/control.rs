//! Init's control socket in memory.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use sublet_proto::link::{init::ToInit, nursery::InitReport};
use sublet_shim::link::Received;

use super::{FakeGroup, lock};
use crate::worker::control::{Control, Wakeup};

/// What init has said and heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    reports: VecDeque<InitReport>,
    has_ended: bool,
    /// Counts what there was to be woken for.
    news: u64,
    waiting: Option<Waker>,
    told: Vec<ToInit>,
}

impl Talk {
    fn wake(state: &mut State) {
        state.news += 1;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    pub(super) fn say(&self, report: InitReport) {
        let mut state = lock(&self.0);
        state.reports.push_back(report);
        Self::wake(&mut state);
    }

    pub(super) fn end(&self) {
        let mut state = lock(&self.0);
        state.has_ended = true;
        Self::wake(&mut state);
    }

    /// What init was told so far.
    pub(super) fn told(&self) -> Vec<ToInit> {
        lock(&self.0).told.clone()
    }
}

/// The supervisor's end. Init ends when it is let go of.
#[derive(Debug)]
pub(super) struct MemoryControl {
    pub(super) talk: Talk,
    pub(super) group: FakeGroup,
}

impl Control for MemoryControl {
    fn is_empty(&self) -> bool {
        let state = lock(&self.talk.0);
        state.reports.is_empty() && !state.has_ended
    }

    fn receive(&self) -> io::Result<Received<InitReport>> {
        let mut state = lock(&self.talk.0);
        Ok(match state.reports.pop_front() {
            Some(report) => Received::Message(report, Vec::new()),
            None if state.has_ended => Received::Closed,
            None => Received::Nothing,
        })
    }

    fn send(&self, what: &ToInit) -> io::Result<()> {
        let mut state = lock(&self.talk.0);
        if state.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        state.told.push(what.clone());
        Ok(())
    }

    fn wakeup(&self) -> io::Result<Box<dyn Wakeup>> {
        Ok(Box::new(MemoryWakeup { talk: self.talk.clone(), seen: 0 }))
    }
}

impl Drop for MemoryControl {
    fn drop(&mut self) {
        if !self.group.counters().refuses_kill {
            self.group.end(Some(9));
        }
    }
}

#[derive(Debug)]
struct MemoryWakeup {
    talk: Talk,
    seen: u64,
}

impl Wakeup for MemoryWakeup {
    fn poll_woken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.talk.0);
        if state.news > self.seen {
            self.seen = state.news;
            return Poll::Ready(Ok(()));
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}
