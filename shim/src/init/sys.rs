//! Where init and the launcher give up all descriptors that they were born with, but a few.
//!
//! Both are copies of the nursery, in whose frames there are owners of the host's descriptors. What is closed here are those.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{Birth, picture::Picture};
use crate::{seccomp::policy::TOKEN_DIR_FD, sys};

// The third that init keeps, by which its filter knows it.
const _: () = assert!(TOKEN_DIR_FD == 5);

/// What init keeps.
#[derive(Debug)]
pub struct OfInit {
    /// The control socket to the supervisor: number 3.
    pub control: OwnedFd,
    /// The socket to the launcher: number 4.
    pub launcher: OwnedFd,
    /// The directory that the token's file is put into: number 5, in sandboxes of functions with a token.
    pub token: Option<OwnedFd>,
    /// The files that show the worker's limits: the next numbers.
    pub picture: Picture,
}

/// Leaves init the birth's control socket, the socket to the launcher, the token's place and the files that show its limits:
/// from number 3 on, in this order.
/// Standard input, output and error are the birth's null.
///
/// # Errors
/// When a number cannot be had; with the control socket, to say so.
pub fn keep_for_init(birth: Birth<'_>, launcher: OwnedFd) -> Result<OfInit, (OwnedFd, io::Error)> {
    // The others are closed here.
    let Birth { control, null, token, picture, .. } = birth;
    let has_token = token.is_some();
    let picture = picture.map(Picture::into_descriptors).into_iter().flatten();
    let kept = [control, launcher].into_iter().chain(token).chain(picture).collect();
    // WHY UNSAFE: owners in frames below this one are left with numbers that are closed.
    // SAFETY: init has no descriptors but its birth's and those in the frames of the nursery, of which it is a copy. It never
    // goes back to these: `init::run` does not return. The birth's are used up here.
    let kept = unsafe { sys::keep_only([null.as_fd(); 3], kept) };
    // Closed by its number.
    std::mem::forget(null);
    let taken = |kept: Vec<OwnedFd>| {
        let mut kept = kept.into_iter();
        let (control, launcher) = (kept.next()?, kept.next()?);
        let token = if has_token { Some(kept.next()?) } else { None };
        let picture = kept.collect::<Vec<_>>().try_into().ok()?;
        Some(OfInit { control, launcher, token, picture: Picture::from_descriptors(picture) })
    };
    match kept {
        Ok(kept) => match taken(kept) {
            Some(kept) => Ok(kept),
            None => sys::exit_now(1),
        },
        Err((kept, error)) => match kept.into_iter().next() {
            Some(control) => Err((control, error)),
            None => sys::exit_now(1),
        },
    }
}

/// What the launcher keeps.
#[derive(Debug)]
pub struct OfLauncher {
    /// To the supervisor: number 3 (`CHANNEL_FD`). Open for as long as the launcher lives.
    pub channel: BorrowedFd<'static>,
    /// The socket to init: number 4, until init has confined itself.
    pub init: OwnedFd,
}

/// Leaves the launcher the birth's channel and the socket to init: from number 3 on, in this order. Standard input is the
/// birth's null, output and error are its log.
///
/// # Errors
/// When a number cannot be had; with the socket to init, to say so.
pub fn keep_for_launcher(birth: Birth<'_>, init: OwnedFd) -> Result<OfLauncher, (OwnedFd, io::Error)> {
    // The others are closed here.
    let Birth { channel, log, null, .. } = birth;
    // WHY UNSAFE: as in `keep_for_init`.
    // SAFETY: as in `keep_for_init`, for `launcher::run`.
    let kept = unsafe { sys::keep_only([null.as_fd(), log.as_fd(), log.as_fd()], vec![channel, init]) };
    // Closed by their numbers.
    std::mem::forget((null, log));
    let taken = |kept: Vec<OwnedFd>| <[OwnedFd; 2]>::try_from(kept).ok();
    match kept {
        Ok(kept) => match taken(kept) {
            Some([channel, init]) => {
                let channel: &'static OwnedFd = Box::leak(Box::new(channel));
                Ok(OfLauncher { channel: channel.as_fd(), init })
            }
            None => sys::exit_now(1),
        },
        Err((kept, error)) => match taken(kept) {
            Some([_, init]) => Err((init, error)),
            None => sys::exit_now(1),
        },
    }
}
