//! JSON packets between supervisor, nursery and init.

use std::{
    fmt::Debug,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use serde_json::Value;
use sublet_proto::link::{
    init::ToInit,
    nursery::{Event, InitReport, MESSAGE_LIMIT, Request},
    token::Token,
};
use sublet_shim::link::{self, Received};

use crate::target;

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
}

/// A packet of these bytes is read as what they say, or refused; what was read is sent and read again as the same.
fn packet<T>(bytes: &[u8]) -> Option<T>
where
    T: Debug + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let (theirs, ours) = pair();
    send(theirs.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
    let received = link::receive::<T>(ours.as_fd(), true);
    if bytes.is_empty() {
        assert!(matches!(received, Ok(Received::Closed)), "{received:?}");
        return None;
    }
    let wanted = serde_json::from_slice::<T>(bytes).ok().filter(|_| bytes.len() <= MESSAGE_LIMIT);
    match (received, wanted) {
        (Err(_), None) => None,
        (Ok(Received::Message(message, descriptors)), Some(wanted)) => {
            assert!(message == wanted && descriptors.is_empty());
            // A number that took one digit may take more; what does not fit is refused by the sender.
            if link::send(theirs.as_fd(), &message, &[]).is_ok() {
                match link::receive::<T>(ours.as_fd(), true) {
                    Ok(Received::Message(again, _)) => assert_eq!(again, message),
                    other => panic!("{message:?} was sent, and {other:?} received"),
                }
            }
            Some(message)
        }
        (received, wanted) => panic!("{received:?} instead of {wanted:?}"),
    }
}

#[test]
fn request_to_the_nursery_is_read_as_it_is_or_refused() {
    target!(MESSAGE_LIMIT + 1).for_each(|input: &[u8]| drop(packet::<Request>(input)));
}

#[test]
fn event_of_the_nursery_is_read_as_it_is_or_refused() {
    target!(MESSAGE_LIMIT + 1).for_each(|input: &[u8]| drop(packet::<Event>(input)));
}

#[test]
fn report_of_init_is_read_as_it_is_or_refused() {
    target!(MESSAGE_LIMIT + 1).for_each(|input: &[u8]| drop(packet::<InitReport>(input)));
}

#[test]
fn token_that_init_is_sent_is_one() {
    target!(MESSAGE_LIMIT + 1).for_each(|input: &[u8]| {
        if let Some(ToInit::Token { token, .. }) = packet::<ToInit>(input) {
            assert_eq!(Token::try_from(token.as_bytes().to_vec()), Ok(token));
        }
    });
}

/// `serde_json::Value` is what anybody would take the bytes for: none of the messages is read from what is no JSON.
#[test]
fn nothing_is_read_from_what_is_no_json() {
    target!(4096).for_each(|input: &[u8]| {
        if serde_json::from_slice::<Value>(input).is_err() {
            assert!(packet::<Request>(input).is_none() && packet::<InitReport>(input).is_none());
        }
    });
}
