//! Frames on a worker's channel: a header of [`HEADER_LEN`] bytes, little-endian, then `length` bytes of payload.
//!
//! ```text
//!  0       4    5    6       8        12      16            32            48
//!  | magic |ver |kind| flags | length | aux   | lease (16)  | label (16)  | payload ...
//! ```
//!
//! No descriptor ever travels with a frame. A descriptor that a function attaches could make whoever receives or drops it
//! wait: closing a TCP socket with `SO_LINGER` set, for one, sleeps for as long as the function chose. Payloads of every size
//! are therefore sent in line.
//!
//! The label tag is a keyed hash of the worker's pool key. A function echoes it in its answer: a frame with another
//! lease or another tag is a protocol violation, and its worker is ended.

/// "SBLT", read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SBLT");
/// Version of the frame layout.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 48;
/// Flag of a REQUEST: the caller takes the answer in pieces, as they are made.
pub const FLAG_IN_PIECES: u16 = 2;
/// No frame is ever larger, whatever a configuration says: 64 MiB.
pub const PAYLOAD_LIMIT: u32 = 64 * 1024 * 1024;

/// Added to a signal's number in the `aux` of a RESPONSE of an `exec` function whose process a signal ended.
pub const ENDED_BY_SIGNAL: u32 = 0x100;

/// Added to the `aux` of a RESPONSE of an `exec` function when its sandbox's /tmp was full before the call's process was
/// started: then the call has not filled it.
pub const TMP_WAS_FULL: u32 = 0x1000;

/// The length in the header of a RESPONSE, alone, by which a launcher says that there is more answer than there may be: it
/// has stopped reading, and cannot tell how much.
pub const TOO_LARGE: u32 = u32::MAX;

/// The `aux` of an ERROR that blames the payload: the function has not seen it.
pub const BAD_PAYLOAD: u32 = 1;

/// The `aux` of an ERROR by which a launcher says that no function has run, because something was not to be had: a process, a
/// descriptor, memory. Whether the function's limits or the host are to blame, the supervisor finds out.
pub const HOST_SHORTAGE: u32 = 2;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Launcher to supervisor: every layer is on, nothing of the function has run. Payload empty.
    Confined = 1,
    /// Supervisor to launcher: start the function. Payload: `NAME=value` entries, each ended by a NUL byte.
    Start = 2,
    /// Function to supervisor: ready for calls. Payload empty.
    Ready = 3,
    /// Supervisor to function: one call. `aux`: milliseconds left until its deadline.
    Request = 4,
    /// Function to supervisor: the answer. `aux`: from the launcher of an `exec` function the exit status, or
    /// [`ENDED_BY_SIGNAL`] plus the signal's number, and [`TMP_WAS_FULL`]; from anybody else 0, or it is a violation.
    Response = 5,
    /// Function to supervisor: the handler failed and the worker is fit for further calls. Payload: what it says. `aux`:
    /// [`BAD_PAYLOAD`] from the launcher of a `lambda` function, [`HOST_SHORTAGE`] from that of an `exec` one; from anybody else 0, or it is a violation.
    Error = 6,
    /// Function to supervisor, for a REQUEST with [`FLAG_IN_PIECES`]: a piece of the answer. A RESPONSE, with what is left
    /// of it or nothing, or an ERROR ends it.
    Piece = 7,
    /// Launcher to supervisor, of `lambda` functions: the runtime asks for its next call. Only then is the worker free,
    /// though the answer came before.
    Idle = 8,
}

impl Kind {
    /// The kind a byte means, if any.
    const fn from_u8(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Confined,
            2 => Self::Start,
            3 => Self::Ready,
            4 => Self::Request,
            5 => Self::Response,
            6 => Self::Error,
            7 => Self::Piece,
            8 => Self::Idle,
            _ => return None,
        })
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame says.
    pub kind: Kind,
    /// [`FLAG_IN_PIECES`] or 0.
    pub flags: u16,
    /// Payload size in bytes.
    pub length: u32,
    /// Meaning depends on the kind.
    pub aux: u32,
    /// The lease the frame belongs to; zeros outside a lease.
    pub lease: [u8; 16],
    /// Tag of the worker's pool key; zeros before START.
    pub label: [u8; 16],
}

/// Why bytes are not an acceptable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not "SBLT".
    #[error("frame magic is {seen:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// The bytes as a number.
        seen: u32,
    },
    /// Another layout.
    #[error("frame version is {seen}, expected {VERSION}")]
    Version {
        /// The version byte.
        seen: u8,
    },
    /// Not one of [`Kind`].
    #[error("frame kind {seen} is unknown")]
    Kind {
        /// The kind byte.
        seen: u8,
    },
    /// Flags that mean nothing.
    #[error("frame flags {seen:#06x} are unknown")]
    Flags {
        /// The flags.
        seen: u16,
    },
    /// Larger than the receiver takes.
    #[error("frame of {seen} bytes is over the limit of {limit}")]
    TooLarge {
        /// The length field.
        seen: u32,
        /// The receiver's limit in bytes.
        limit: u32,
    },
}

impl Header {
    /// A header without payload, lease and label.
    pub const fn bare(kind: Kind) -> Self {
        Self { kind, flags: 0, length: 0, aux: 0, lease: [0; 16], label: [0; 16] }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.length.to_le_bytes());
        out[12..16].copy_from_slice(&self.aux.to_le_bytes());
        out[16..32].copy_from_slice(&self.lease);
        out[32..48].copy_from_slice(&self.label);
        out
    }

    /// Reads a header and checks every field, `length` against `limit` bytes, so that a receiver may allocate what it says.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn decode(bytes: &[u8; HEADER_LEN], limit: u32) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let sixteen_at = |at: usize| {
            let mut out = [0; 16];
            out.copy_from_slice(&bytes[at..at + 16]);
            out
        };
        let magic = u32_at(0);
        if magic != MAGIC {
            return Err(FrameError::Magic { seen: magic });
        }
        if bytes[4] != VERSION {
            return Err(FrameError::Version { seen: bytes[4] });
        }
        let kind = Kind::from_u8(bytes[5]).ok_or(FrameError::Kind { seen: bytes[5] })?;
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if flags & !FLAG_IN_PIECES != 0 {
            return Err(FrameError::Flags { seen: flags });
        }
        let limit = limit.min(PAYLOAD_LIMIT);
        let length = u32_at(8);
        if length > limit {
            return Err(FrameError::TooLarge { seen: length, limit });
        }
        Ok(Self { kind, flags, length, aux: u32_at(12), lease: sixteen_at(16), label: sixteen_at(32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { kind: Kind::Response, flags: FLAG_IN_PIECES, length: 77, aux: 3, lease: [7; 16], label: [9; 16] }
    }

    #[test]
    fn header_survives_the_wire() {
        assert_eq!(Header::decode(&header().encode(), 77), Ok(header()));
    }

    #[test]
    fn length_one_past_the_limit_is_refused() {
        assert_eq!(Header::decode(&header().encode(), 76), Err(FrameError::TooLarge { seen: 77, limit: 76 }));
        let huge = Header { length: PAYLOAD_LIMIT + 1, ..header() };
        assert_eq!(
            Header::decode(&huge.encode(), u32::MAX),
            Err(FrameError::TooLarge { seen: PAYLOAD_LIMIT + 1, limit: PAYLOAD_LIMIT })
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        let wrong = |at: usize, byte: u8| {
            let mut bytes = header().encode();
            bytes[at] = byte;
            Header::decode(&bytes, 100).unwrap_err()
        };
        assert!(matches!(wrong(0, 0), FrameError::Magic { .. }));
        assert_eq!(wrong(4, 2), FrameError::Version { seen: 2 });
        assert_eq!(wrong(5, 0), FrameError::Kind { seen: 0 });
        assert_eq!(wrong(5, 9), FrameError::Kind { seen: 9 });
        assert_eq!(wrong(6, 4), FrameError::Flags { seen: 4 });
        // It once announced a descriptor.
        assert_eq!(wrong(6, 1), FrameError::Flags { seen: 1 });
    }
}
