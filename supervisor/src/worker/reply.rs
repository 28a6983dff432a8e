//! What a RESPONSE or an ERROR means, by who has sent it.
//!
//! The `aux` of these frames can blame somebody else than the function: a signal that ended its process, or the caller's
//! payload. It is believed of a launcher alone, which is ours and whose channel no function holds. A `stream` function
//! writes its frames itself, so that any `aux` of its is a violation.

use bytes::Bytes;
use sublet_proto::link::{
    frame::{BAD_PAYLOAD, ENDED_BY_SIGNAL, HOST_SHORTAGE, TMP_WAS_FULL},
    sandbox::Protocol,
};

use super::channel::ChannelError;

/// Largest exit status of a process.
const STATUS_MAX: u32 = 255;
/// Largest number of a signal.
const SIGNAL_MAX: u32 = 64;

/// How the process of an `exec` function ended that did not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this status, which is not 0.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
}

/// A reply that keeps the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer, as the function gave it.
    Answer(Bytes),
    /// The process of an `exec` function ended in another way than by status 0.
    Ended {
        /// By which status, or by which signal.
        how: ProcessEnd,
        /// Whether the sandbox's /tmp was full before it was started.
        tmp_was_full: bool,
        /// What it wrote to stdout, unless that was passed on in pieces.
        stdout: Bytes,
    },
    /// The handler failed; the worker goes on.
    Error(Bytes),
    /// The launcher could not start the program: it was refused a process, a descriptor or memory. The worker goes on.
    Shortage(Bytes),
    /// The payload is not what the runtime takes, for this reason; no handler has seen it.
    BadPayload(Bytes),
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Fault {
    /// The worker cannot have read the call: it may be given to another.
    NotDelivered(String),
    /// The worker closed its channel after the call was sent.
    Closed,
    /// It broke the protocol.
    BadFrame(String),
    /// Its answer is over the limit.
    TooLarge {
        /// Announced, in bytes.
        seen: u32,
        /// Allowed, in bytes.
        limit: u32,
    },
    /// Its answer in pieces is over the limit of all of them together.
    TooManyPieces {
        /// Allowed, in bytes.
        limit: u64,
    },
    /// A failure of the supervisor itself, such as a read that the kernel refused.
    Os(std::io::Error),
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Closed => Self::Closed,
            ChannelError::Violation(what) => Self::BadFrame(what),
            ChannelError::TooLarge { seen, limit } => Self::TooLarge { seen, limit },
            ChannelError::Os(error) => Self::Os(error),
        }
    }
}

/// What a RESPONSE means.
///
/// # Errors
/// [`Fault::BadFrame`]: whoever sent it may not say so.
pub(super) fn of_response(protocol: Protocol, aux: u32, payload: Bytes) -> Result<Reply, Fault> {
    let violation = || Err(Fault::BadFrame(format!("a RESPONSE of a {protocol:?} function with aux {aux:#x}")));
    match protocol {
        Protocol::Stream | Protocol::Lambda if aux != 0 => violation(),
        Protocol::Stream | Protocol::Lambda => Ok(Reply::Answer(payload)),
        Protocol::Exec => {
            let tmp_was_full = aux & TMP_WAS_FULL != 0;
            let how = match aux & !TMP_WAS_FULL {
                0 => return Ok(Reply::Answer(payload)),
                status @ 1..=STATUS_MAX => ProcessEnd::Status(status.cast_signed()),
                other => match other.checked_sub(ENDED_BY_SIGNAL) {
                    Some(signal @ 1..=SIGNAL_MAX) => ProcessEnd::Signal(signal.cast_signed()),
                    Some(_) | None => return violation(),
                },
            };
            Ok(Reply::Ended { how, tmp_was_full, stdout: payload })
        }
    }
}

/// What an ERROR means.
///
/// # Errors
/// [`Fault::BadFrame`]: whoever sent it may not say so.
pub(super) fn of_error(protocol: Protocol, aux: u32, payload: Bytes) -> Result<Reply, Fault> {
    match (protocol, aux) {
        (Protocol::Stream | Protocol::Exec | Protocol::Lambda, 0) => Ok(Reply::Error(payload)),
        (Protocol::Lambda, BAD_PAYLOAD) => Ok(Reply::BadPayload(payload)),
        (Protocol::Exec, HOST_SHORTAGE) => Ok(Reply::Shortage(payload)),
        (Protocol::Stream | Protocol::Exec | Protocol::Lambda, _) => {
            Err(Fault::BadFrame(format!("an ERROR of a {protocol:?} function with aux {aux:#x}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOCOLS: [Protocol; 3] = [Protocol::Stream, Protocol::Exec, Protocol::Lambda];

    /// What a frame comes to: the reply, or none for a violation.
    fn response(protocol: Protocol, aux: u32) -> Option<Reply> {
        of_response(protocol, aux, Bytes::from_static(b"x")).ok()
    }

    #[test]
    fn only_the_launcher_of_an_exec_function_says_how_a_process_ended() {
        let stdout = Bytes::from_static(b"x");
        let ended = |how, tmp_was_full| Some(Reply::Ended { how, tmp_was_full, stdout: stdout.clone() });
        let cases = [
            (1, ended(ProcessEnd::Status(1), false)),
            (255, ended(ProcessEnd::Status(255), false)),
            (256, None),
            (ENDED_BY_SIGNAL + 11, ended(ProcessEnd::Signal(11), false)),
            (ENDED_BY_SIGNAL + 64, ended(ProcessEnd::Signal(64), false)),
            (ENDED_BY_SIGNAL + 65, None),
            (TMP_WAS_FULL, Some(Reply::Answer(Bytes::from_static(b"x")))),
            (TMP_WAS_FULL + 7, ended(ProcessEnd::Status(7), true)),
            (TMP_WAS_FULL + ENDED_BY_SIGNAL + 25, ended(ProcessEnd::Signal(25), true)),
            (u32::MAX, None),
        ];
        for (aux, expected) in cases {
            assert_eq!(response(Protocol::Exec, aux), expected, "exec {aux:#x}");
            assert_eq!(response(Protocol::Stream, aux), None, "stream {aux:#x}");
            assert_eq!(response(Protocol::Lambda, aux), None, "lambda {aux:#x}");
        }
        for protocol in PROTOCOLS {
            assert_eq!(response(protocol, 0), Some(Reply::Answer(Bytes::from_static(b"x"))));
        }
    }

    #[test]
    fn only_the_launcher_of_a_lambda_function_blames_the_payload_and_that_of_an_exec_one_the_host() {
        for protocol in PROTOCOLS {
            let error = |aux| of_error(protocol, aux, Bytes::from_static(b"why")).ok();
            assert_eq!(error(0), Some(Reply::Error(Bytes::from_static(b"why"))));
            let blamed = (protocol == Protocol::Lambda).then(|| Reply::BadPayload(Bytes::from_static(b"why")));
            assert_eq!(error(BAD_PAYLOAD), blamed, "{protocol:?}");
            let shortage = (protocol == Protocol::Exec).then(|| Reply::Shortage(Bytes::from_static(b"why")));
            assert_eq!(error(HOST_SHORTAGE), shortage, "{protocol:?}");
            assert_eq!(error(3), None, "{protocol:?}");
        }
    }
}
