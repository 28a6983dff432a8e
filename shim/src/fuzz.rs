//! Doors for the harnesses in tests/fuzz to readers that nobody outside of this crate has a use for. Each calls the reader
//! itself and adds nothing to it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use sublet_proto::link::{frame::Header, nursery::ProcessPosture};

use crate::{
    init::{channel::Channel, log_frames::Decoder},
    nursery::posture::{self, PostureError},
};

/// The next frame as a launcher receives it, its payload in memory; none when the other side has closed.
///
/// The launcher's channel is open for as long as its process lives, so `socket` has to be as well.
///
/// # Errors
/// What the launcher's channel says.
pub fn launcher_receive(socket: &'static OwnedFd, limit: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
    Channel::new(socket.as_fd()).receive(limit)
}

/// The lines that are made of records on a Lambda client's log descriptor, which come in these pieces.
pub fn log_records<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut decoder, mut lines) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.take_in(piece, &mut lines);
    }
    lines
}

/// The text of a /proc/PID/status.
///
/// # Errors
/// [`PostureError`], when it lacks a field or a field has another form.
pub fn status(text: &str) -> Result<ProcessPosture, PostureError> {
    posture::status_of(1, text)
}

/// The text of a /proc/PID/cgroup, as (controllers, path).
pub fn cgroups(text: &str) -> Vec<(String, String)> {
    posture::cgroups_of(text)
}

/// The text of a /proc/PID/mountinfo, as (mount point, filesystem, options).
///
/// # Errors
/// [`PostureError`] for the first line that is none.
pub fn mounts(text: &str) -> Result<Vec<(String, String, String)>, PostureError> {
    posture::mounts_of(text)
}
