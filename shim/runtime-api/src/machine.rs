//! What may come when. No I/O.
//!
//! ```text
//!            next: Ready             deliver                response, error
//!  Starting -------------> Waiting -----------> Running ------------------> Answered
//!     | init/error            ^                                                | next: Idle
//!     v                       '------------------------------------------------'
//!  Failed
//! ```

use std::rc::Rc;

use tokio::sync::oneshot;

use crate::Event;

/// Why a request is not taken, in the words of the published API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not the id of the current call.
    InvalidRequestId,
    /// Not now.
    InvalidStateTransition,
    /// For an earlier delivery of the same id.
    InvokeTimeout,
}

/// What the runtime gets that asks for the next call.
#[derive(Debug)]
pub enum Next {
    /// This one.
    Now(Rc<Event>),
    /// It waits for one.
    Later(oneshot::Receiver<Rc<Event>>),
}

/// What the supervisor is to be told because of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// The runtime is ready.
    Ready,
    /// It is done with this call.
    Idle(Rc<Event>),
}

#[derive(Debug)]
enum State {
    Starting,
    Failed,
    Waiting(Option<oneshot::Sender<Rc<Event>>>),
    Running { event: Rc<Event>, is_being_answered: bool },
    Answered(Rc<Event>),
}

/// Where one runtime is.
#[derive(Debug)]
pub struct Machine(State);

impl Default for Machine {
    fn default() -> Self {
        Self(State::Starting)
    }
}

impl Machine {
    /// The runtime asks for the next call.
    ///
    /// # Errors
    /// [`Refusal::InvalidStateTransition`]: somebody waits already, or its start failed.
    pub fn poll(&mut self) -> Result<(Next, News), Refusal> {
        let news = match &self.0 {
            // Asked twice: the same call, as the real service has it. It can be answered once.
            State::Running { event, .. } => return Ok((Next::Now(event.clone()), News::None)),
            State::Starting => News::Ready,
            State::Answered(event) => News::Idle(event.clone()),
            // Who asked before has gone away.
            State::Waiting(poll) if poll.as_ref().is_none_or(oneshot::Sender::is_closed) => News::None,
            State::Waiting(_) | State::Failed => return Err(Refusal::InvalidStateTransition),
        };
        let (sender, receiver) = oneshot::channel();
        self.0 = State::Waiting(Some(sender));
        Ok((Next::Later(receiver), news))
    }

    /// A call is there. The supervisor sends one only to who asked, so there is none under way.
    pub fn deliver(&mut self, event: Rc<Event>) {
        let before = std::mem::replace(&mut self.0, State::Running { event: event.clone(), is_being_answered: false });
        if let State::Waiting(Some(poll)) = before {
            // One that has gone away asks again, and gets it then.
            drop(poll.send(event));
        }
    }

    /// An answer to the call of this id begins to arrive. `echo`: the nonce, from clients that send it back.
    ///
    /// # Errors
    /// It is not the current call's, or that has an answer.
    pub fn begin_answer(&mut self, id: &str, echo: Option<&[u8]>) -> Result<Rc<Event>, Refusal> {
        match &mut self.0 {
            State::Running { event, .. } | State::Answered(event) if event.request_id() != id => {
                Err(Refusal::InvalidRequestId)
            }
            State::Running { event, .. } if echo.is_some_and(|echo| echo != event.invocation_id().as_bytes()) => {
                Err(Refusal::InvokeTimeout)
            }
            State::Running { is_being_answered: true, .. } | State::Answered(_) => Err(Refusal::InvalidStateTransition),
            State::Running { event, is_being_answered } => {
                *is_being_answered = true;
                Ok(event.clone())
            }
            State::Waiting(_) => Err(Refusal::InvalidRequestId),
            State::Starting | State::Failed => Err(Refusal::InvalidStateTransition),
        }
    }

    /// It has arrived, all of it.
    pub fn end_answer(&mut self) {
        if let State::Running { event, .. } = &self.0 {
            self.0 = State::Answered(event.clone());
        }
    }

    /// It broke off: another may come.
    pub fn give_up_answer(&mut self) {
        if let State::Running { is_being_answered, .. } = &mut self.0 {
            *is_being_answered = false;
        }
    }

    /// The runtime could not start.
    ///
    /// # Errors
    /// It had started.
    pub fn fail_init(&mut self) -> Result<(), Refusal> {
        match self.0 {
            State::Starting => {
                self.0 = State::Failed;
                Ok(())
            }
            _ => Err(Refusal::InvalidStateTransition),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(id: u8) -> Rc<Event> {
        Rc::new(Event { lease: [id; 16], label: [0; 16], deadline_ms: 1, in_pieces: false, payload: Bytes::new() })
    }

    fn ready() -> (Machine, oneshot::Receiver<Rc<Event>>) {
        let mut machine = Machine::default();
        let Ok((Next::Later(poll), News::Ready)) = machine.poll() else { panic!("the first poll says ready") };
        (machine, poll)
    }

    #[test]
    fn call_goes_round_and_the_worker_is_free_at_the_next_poll() {
        let (mut machine, mut poll) = ready();
        let first = event(1);
        machine.deliver(first.clone());
        assert_eq!(poll.try_recv().unwrap(), first);
        let id = first.request_id();
        assert_eq!(machine.begin_answer(&id, None), Ok(first.clone()));
        machine.end_answer();
        assert_eq!(machine.begin_answer(&id, None), Err(Refusal::InvalidStateTransition), "once");
        let (next, news) = machine.poll().unwrap();
        assert!(matches!(next, Next::Later(_)));
        assert_eq!(news, News::Idle(first));
        assert_eq!(machine.begin_answer(&id, None), Err(Refusal::InvalidRequestId), "a late second answer");
    }

    #[test]
    fn asked_twice_is_given_the_same_and_nobody_waits_beside_another() {
        let (mut machine, poll) = ready();
        assert_eq!(machine.poll().unwrap_err(), Refusal::InvalidStateTransition);
        drop(poll);
        // Its connection broke; it asks again.
        let Ok((Next::Later(mut poll), News::None)) = machine.poll() else { panic!("it may ask again") };
        machine.deliver(event(1));
        assert_eq!(poll.try_recv().unwrap(), event(1));
        let Ok((Next::Now(again), News::None)) = machine.poll() else { panic!("the same call") };
        assert_eq!(again, event(1));
    }

    #[test]
    fn call_that_finds_nobody_waits_for_the_next_poll() {
        let (mut machine, poll) = ready();
        drop(poll);
        machine.deliver(event(1));
        assert!(matches!(machine.poll(), Ok((Next::Now(_), News::None))));
    }

    #[test]
    fn answer_of_another_call_or_delivery_is_refused_and_the_right_one_still_counts() {
        let (mut machine, _poll) = ready();
        let current = event(2);
        machine.deliver(current.clone());
        assert_eq!(machine.begin_answer(&event(1).request_id(), None), Err(Refusal::InvalidRequestId));
        let (id, stale) = (current.request_id(), event(1).invocation_id());
        assert_eq!(machine.begin_answer(&id, Some(stale.as_bytes())), Err(Refusal::InvokeTimeout));
        assert!(machine.begin_answer(&id, Some(current.invocation_id().as_bytes())).is_ok());
        assert_eq!(machine.begin_answer(&id, None), Err(Refusal::InvalidStateTransition), "two at a time");
        machine.give_up_answer();
        assert!(machine.begin_answer(&id, None).is_ok());
    }

    #[test]
    fn start_fails_once_and_only_before_it_is_over() {
        let mut machine = Machine::default();
        assert_eq!(machine.begin_answer("x", None), Err(Refusal::InvalidStateTransition));
        assert_eq!(machine.fail_init(), Ok(()));
        assert_eq!(machine.fail_init(), Err(Refusal::InvalidStateTransition));
        assert_eq!(machine.poll().unwrap_err(), Refusal::InvalidStateTransition);
        let (mut machine, _poll) = ready();
        assert_eq!(machine.fail_init(), Err(Refusal::InvalidStateTransition));
    }

    #[test]
    fn request_id_is_the_lease_as_a_uuid() {
        let event = Event { lease: *b"0123456789abcdef", ..(*event(0)).clone() };
        assert_eq!(event.request_id(), "30313233-3435-3637-3839-616263646566");
    }
}
