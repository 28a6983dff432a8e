//! Records of the Lambda clients' own log descriptor (`_LAMBDA_TELEMETRY_LOG_FD`), made lines of the worker's log.
//!
//! ```text
//!  u32 type | u32 length | i64 time | message        big-endian; type 0xA55A0003 is text, 0xA55A0002 JSON, each or'd with a
//!                                                    level, which the message says as well
//! ```
//! A record of several lines is one line of the log, with carriage returns in it, as clients without the descriptor write it.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

const HEADER_BYTES: usize = 16;
/// What every type has in common.
const MAGIC: u32 = 0xA55A_0000;
const MAGIC_MASK: u32 = 0xFFFF_0000;
/// What a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// Where in a record the next byte is.
#[derive(Debug)]
enum At {
    Header {
        seen: Vec<u8>,
    },
    /// Ends of lines are held back until something follows them.
    Message {
        left: u32,
        ends: usize,
    },
    /// Something that is no record: from there on nothing can be told.
    Lost,
}

/// Takes records apart.
#[derive(Debug)]
pub struct Decoder(At);

impl Default for Decoder {
    fn default() -> Self {
        Self(At::Header { seen: Vec::with_capacity(HEADER_BYTES) })
    }
}

impl Decoder {
    /// Takes bytes in; what they say is added to `out`.
    pub fn take_in(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match &mut self.0 {
                At::Header { seen } => {
                    let some = bytes.len().min(HEADER_BYTES - seen.len());
                    seen.extend_from_slice(&bytes[..some]);
                    bytes = &bytes[some..];
                    if seen.len() == HEADER_BYTES {
                        self.0 = after(seen);
                    }
                }
                At::Message { left, ends } => {
                    let some = bytes.len().min(*left as usize);
                    for byte in &bytes[..some] {
                        match byte {
                            b'\n' => *ends += 1,
                            byte => {
                                out.extend(std::iter::repeat_n(b'\r', std::mem::take(ends)));
                                out.push(*byte);
                            }
                        }
                    }
                    bytes = &bytes[some..];
                    *left -= some as u32;
                    if *left == 0 {
                        out.push(b'\n');
                        *self = Self::default();
                    }
                }
                At::Lost => return,
            }
        }
    }
}

fn after(header: &[u8]) -> At {
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    match (number(0) & MAGIC_MASK, number(4)) {
        (MAGIC, 0) => Decoder::default().0,
        (MAGIC, left) => At::Message { left, ends: 0 },
        _ => At::Lost,
    }
}

/// The launcher's end of the descriptor.
#[derive(Debug)]
pub struct Records {
    pipe: File,
    decoder: Decoder,
    log: File,
    /// Kept: the pipe is looked into before each answer, and is empty as a rule.
    read: Vec<u8>,
    lines: Vec<u8>,
}

impl Records {
    /// Reads from `pipe`, writes to `log`.
    ///
    /// # Errors
    /// When the pipe cannot be made one that is looked into without waiting.
    pub fn new(pipe: OwnedFd, log: OwnedFd) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self {
            pipe: pipe.into(),
            decoder: Decoder::default(),
            log: log.into(),
            read: vec![0; READ_BYTES],
            lines: Vec::new(),
        })
    }

    /// The pipe, to be watched.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn watched(&self) -> io::Result<OwnedFd> {
        self.pipe.as_fd().try_clone_to_owned()
    }

    /// Passes on what is there now, a pipe's worth at the most. False at the end of the pipe.
    ///
    /// The supervisor reads the log whatever else it does, so that writing to it never waits for long.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; when the log cannot be written.
    pub fn pass_on(&mut self) -> io::Result<bool> {
        let length = self.pipe.read(&mut self.read)?;
        self.lines.clear();
        self.decoder.take_in(&self.read[..length], &mut self.lines);
        // In one go, so that what the function itself writes does not come in between, as far as a pipe keeps that apart.
        self.log.write_all(&self.lines)?;
        Ok(length > 0)
    }

    /// Passes on all that has been written until now.
    pub fn drain(&mut self) {
        // A pipe's pages need not be full: one more look gets the rest. What cannot be read now is told to the loop.
        for _ in 0..2 {
            if !matches!(self.pass_on(), Ok(true)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, message: &str) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&kind.to_be_bytes()[..], &length.to_be_bytes(), &1_i64.to_be_bytes(), message.as_bytes()].concat()
    }

    fn decoded(bytes: &[u8], step: usize) -> String {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        for some in bytes.chunks(step) {
            decoder.take_in(some, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_become_lines_however_they_come() {
        let text = record(0xA55A_0003 | 0b1_0100, "[ERROR]\tfirst\n  second\n\n");
        let bytes = [text, record(0xA55A_0002, "{\"level\":\"INFO\"}"), record(0xA55A_0003, "")].concat();
        for step in [1, 2, 7, 16, 17, bytes.len()] {
            assert_eq!(decoded(&bytes, step), "[ERROR]\tfirst\r  second\n{\"level\":\"INFO\"}\n");
        }
    }

    #[test]
    fn what_is_no_record_is_not_passed_on() {
        let bytes =
            [record(0xA55A_0003, "good"), b"print('no record')\n".to_vec(), record(0xA55A_0003, "late")].concat();
        for step in [1, 5, bytes.len()] {
            assert_eq!(decoded(&bytes, step), "good\n");
        }
    }

    #[test]
    fn length_that_lies_is_waited_for_and_costs_no_memory() {
        let mut header = record(0xA55A_0003, "");
        header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        decoder.take_in(&header, &mut out);
        decoder.take_in(&[b'x'; 100_000], &mut out);
        assert_eq!(out.len(), 100_000);
        assert!(out.capacity() < 1 << 20);
    }
}
