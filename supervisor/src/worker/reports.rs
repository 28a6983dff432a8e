//! Init's reports, read by whoever needs them first: the keeper as they come, and a verdict before it is given. Init
//! reports a refused system call before it answers it, so what a verdict must name is in the socket by then.

use std::{
    future::poll_fn,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sublet_proto::link::{init::ToInit, nursery::InitReport};
use sublet_shim::link::Received;

use super::control::Control;

/// One worker's control socket, while init is to live.
#[derive(Debug, Default)]
pub struct Reports(Mutex<Option<Box<dyn Control>>>);

/// How a look at the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Empty,
    Closed,
}

impl Reports {
    /// Takes the socket over.
    pub fn open(&self, control: Box<dyn Control>) {
        *self.control() = Some(control);
    }

    /// Lets go of the socket, after what has come is given to `note`. Init ends when it sees that, in whatever group it is by
    /// then; and with it all that is in its sandbox.
    pub fn close(&self, note: impl Fn(InitReport)) {
        self.take_in(note);
        *self.control() = None;
    }

    /// Gives each report to `note` until init closes the socket, which it does only by ending.
    ///
    /// # Errors
    /// When the socket cannot be watched, or what comes on it is no report.
    pub async fn run(&self, note: impl Fn(InitReport)) -> io::Result<()> {
        self.until(note, || false).await.map(drop)
    }

    /// Gives each report to `note` until it is `enough`, which is true, or init closes the socket, which is false.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn until(&self, note: impl Fn(InitReport), enough: impl Fn() -> bool) -> io::Result<bool> {
        let wakeup = self.control().as_ref().map(|control| control.wakeup());
        let mut wakeup = wakeup.ok_or(io::ErrorKind::NotConnected)??;
        loop {
            poll_fn(|cx| wakeup.poll_woken(cx)).await?;
            if self.look(&note)? == Looked::Closed {
                return Ok(false);
            }
            if enough() {
                return Ok(true);
            }
        }
    }

    /// Sends init something. Never waits.
    ///
    /// # Errors
    /// It is gone, or does not read what it is sent.
    pub fn tell(&self, what: &ToInit) -> io::Result<()> {
        self.control().as_ref().ok_or(io::ErrorKind::NotConnected)?.send(what)
    }

    /// Gives what has come so far to `note`.
    pub fn take_in(&self, note: impl Fn(InitReport)) {
        // Every call asks, and there is nothing as a rule: a look costs less than the room for a whole message.
        if self.control().as_ref().is_none_or(|control| control.is_empty()) {
            return;
        }
        // What is wrong with the socket is told by `run`, which reads it as well.
        self.look(&note).ok();
    }

    fn control(&self) -> MutexGuard<'_, Option<Box<dyn Control>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, note: &impl Fn(InitReport)) -> io::Result<Looked> {
        // Held over `note`, so that reports are noted in the order they came.
        let control = self.control();
        let Some(control) = control.as_ref() else { return Ok(Looked::Empty) };
        loop {
            match control.receive()? {
                Received::Message(report, _) => note(report),
                Received::Nothing => return Ok(Looked::Empty),
                Received::Closed => return Ok(Looked::Closed),
            }
        }
    }
}
