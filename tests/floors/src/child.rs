//! The child at the end of the pipe: reads a frame, writes it back, with blocking calls and nothing else.
//!
//! A frame is its payload's length (4 bytes, little endian) and the payload. It stands for a function in the cheapest
//! process that could be one: no confinement, no runtime. Ends when the other side closes.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use crate::{Error, PAYLOAD_MAX_BYTES};

/// Bytes of the length in front of a payload.
pub const HEADER_BYTES: usize = 4;

/// Echoes frames on descriptor 0 until end of file.
pub fn run() -> Result<(), Error> {
    let fd = io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("duplicate descriptor 0"))?;
    let mut stream = UnixStream::from(fd);
    let mut buffer = vec![0; 64 << 10];
    let mut filled = 0;
    loop {
        let got = stream.read(&mut buffer[filled..]).map_err(Error::io("read a frame"))?;
        if got == 0 {
            return if filled == 0 { Ok(()) } else { Err(Error::Protocol(format!("frame cut off at {filled} bytes"))) };
        }
        filled += got;
        let Some(header) = buffer[..filled].first_chunk::<HEADER_BYTES>() else { continue };
        let payload = u32::from_le_bytes(*header) as usize;
        if payload > PAYLOAD_MAX_BYTES {
            return Err(Error::Protocol(format!("frame of {payload} bytes; the limit is {PAYLOAD_MAX_BYTES}")));
        }
        let frame = HEADER_BYTES + payload;
        if filled < frame {
            buffer.resize(buffer.len().max(frame), 0);
            continue;
        }
        if filled > frame {
            return Err(Error::Protocol(format!("{} bytes after the frame", filled - frame)));
        }
        stream.write_all(&buffer[..frame]).map_err(Error::io("write a frame"))?;
        filled = 0;
    }
}
