//! The Lambda Runtime API as a runtime that keeps to nothing would use it: the order of requests, and HTTP itself.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use sublet_runtime_api::{
    Event, Link, Outbound,
    machine::{Machine, News, Next},
    server::{Identity, Server},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    task::{LocalSet, yield_now},
};

use crate::target;

fn event(number: u8, in_pieces: bool) -> Event {
    Event { lease: [number; 16], label: [9; 16], deadline_ms: 1, in_pieces, payload: Bytes::from("{}") }
}

/// One byte is one request. Whatever comes in whatever order, a call is given out only to who has asked, has one answer, and
/// nothing is said of it after its end.
#[test]
fn every_call_has_one_answer_in_any_order_of_requests() {
    target!(256).for_each(|input: &[u8]| {
        let mut machine = Machine::default();
        let (mut has_started, mut has_failed, mut delivered, mut answered) = (false, false, 0_u8, 0_u8);
        // An answer that is arriving, and a poll that waits.
        let (mut arriving, mut waiting) = (false, None);
        for byte in input {
            match byte % 8 {
                0 | 1 => match machine.poll() {
                    Ok((next, news)) => {
                        assert!(!has_failed);
                        match news {
                            News::Ready => assert!(!std::mem::replace(&mut has_started, true), "ready twice"),
                            News::Idle(event) => {
                                assert_eq!((event.lease[0], delivered), (answered, answered));
                                assert!(!arriving);
                            }
                            News::None => {}
                        }
                        match next {
                            Next::Now(event) => assert!(event.lease[0] == delivered && answered < delivered),
                            Next::Later(poll) => {
                                assert_eq!(answered, delivered);
                                waiting = Some(poll);
                            }
                        }
                    }
                    Err(_) => assert!(has_failed || waiting.is_some()),
                },
                // The supervisor gives a call to who waits, and to nobody else.
                2 => {
                    if let Some(mut poll) = waiting.take() {
                        delivered += 1;
                        machine.deliver(Rc::new(event(delivered, false)));
                        assert_eq!(poll.try_recv().map(|event| event.lease[0]), Ok(delivered));
                        if delivered == u8::MAX {
                            return;
                        }
                    }
                }
                // Its connection goes away.
                3 => waiting = waiting.filter(|_| byte % 16 == 3),
                4 | 5 => {
                    let wanted = if byte % 16 < 8 { delivered } else { delivered.wrapping_sub(1) };
                    let echo = event(wanted, false).invocation_id();
                    let echo = [None, Some(echo.as_bytes()), Some(&b"other"[..])][usize::from(byte / 16) % 3];
                    if let Ok(event) = machine.begin_answer(&event(wanted, false).request_id(), echo) {
                        assert_eq!((event.lease[0], arriving), (delivered, false));
                        assert!(answered < delivered && echo.is_none_or(|echo| echo != b"other"));
                        arriving = true;
                    }
                }
                6 if arriving => {
                    arriving = false;
                    if byte % 16 < 8 {
                        machine.end_answer();
                        answered = delivered;
                    } else {
                        machine.give_up_answer();
                    }
                }
                6 => {}
                _ => {
                    if machine.fail_init().is_ok() {
                        assert!(!has_started && !has_failed);
                        has_failed = true;
                    }
                }
            }
        }
    });
}

/// Which call the supervisor was told of, by the first byte of its lease, and what.
type OneTold = (Option<u8>, Outbound);

/// What the supervisor was told, in its order.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<OneTold>>>);

impl Link for Told {
    fn send(&self, event: Option<&Event>, what: Outbound) {
        self.0.borrow_mut().push((event.map(|event| event.lease[0]), what));
    }
}

impl Told {
    fn is_last(&self, last: impl Fn(&Outbound) -> bool) -> bool {
        self.0.borrow().last().is_some_and(|(_, what)| last(what))
    }

    /// READY, then of each call pieces, one end, and IDLE; or that the start has failed.
    fn keep_to_the_order(&self, in_pieces: bool) {
        #[derive(Debug, PartialEq)]
        enum At {
            Start,
            Waiting(u8),
            Ended(u8),
            Failed,
        }
        let mut at = At::Start;
        for (of, what) in self.0.borrow().iter() {
            at = match (&at, of, what) {
                (At::Start, None, Outbound::Ready) => At::Waiting(1),
                (At::Start, None, Outbound::InitFailed(_)) => At::Failed,
                (At::Waiting(call), Some(of), Outbound::Piece(_)) if of == call && in_pieces => continue,
                (At::Waiting(call), Some(of), Outbound::Answer(_) | Outbound::Failed(_) | Outbound::TooLarge)
                    if of == call =>
                {
                    At::Ended(*call)
                }
                (At::Ended(call), Some(of), Outbound::Idle) if of == call => At::Waiting(call + 1),
                (at, of, what) => panic!("{at:?}, and of {of:?} the supervisor is told {what:?}"),
            };
        }
    }
}

const ANSWER_MAX_BYTES: usize = 1000;
/// Turns of everybody else before the next thing happens.
const TURNS: usize = 32;
/// Calls that are given out in one run.
const CALLS_MAX: u8 = 4;

/// One connection on which these bytes come. Calls are given out as they are asked for.
async fn connection(bytes: &[u8], in_pieces: bool) {
    let told = Told::default();
    let identity =
        Identity { arn: "arn".into(), tenant_id: "s1".into(), answer_max_bytes: ANSWER_MAX_BYTES, token_file: None };
    let server = Server::new(told.clone(), identity);
    let (mut client, stream) = tokio::io::duplex(256 * 1024);
    tokio::task::spawn_local(server.clone().serve(stream));
    client.write_all(bytes).await.expect("it fits");
    client.shutdown().await.expect("it can be closed");
    let mut given = 0;
    for _ in 0..=CALLS_MAX {
        for _ in 0..TURNS {
            yield_now().await;
        }
        if given < CALLS_MAX && told.is_last(|last| matches!(last, Outbound::Ready | Outbound::Idle)) {
            given += 1;
            server.call(event(given, in_pieces));
        }
    }
    server.send_held();
    told.keep_to_the_order(in_pieces);
    for (_, what) in told.0.borrow().iter() {
        if let Outbound::Answer(answer) = what {
            assert!(in_pieces || answer.len() <= ANSWER_MAX_BYTES);
        }
    }
    // What there is to read by now.
    let mut answers = vec![0; 64 * 1024];
    tokio::select! {
        biased;
        read = client.read(&mut answers) => {
            let read = read.expect("memory does not fail");
            assert!(read == 0 || answers.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answers[..read]));
        }
        () = yield_now() => {}
    }
}

thread_local! {
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
}

#[test]
fn http_of_any_bytes_tells_the_supervisor_nothing_out_of_order() {
    target!(32 * 1024).for_each(|input: &[u8]| {
        let Some((first, bytes)) = input.split_first() else { return };
        RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, connection(bytes, first % 2 == 1)));
    });
}
