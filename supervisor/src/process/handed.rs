//! Sockets that whoever started us listens on already and hands in: systemd, or any program that does as sd_listen_fds(3) says.
//!
//! `LISTEN_FDS` is how many there are, from descriptor 3 on, `LISTEN_PID` whom they are for, and `LISTEN_FDNAMES` what they
//! are called, parted by colons. Which of them is which socket of the configuration is decided by what they are bound to
//! (`serve::handed`).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::sys;

/// The first one's number (SD_LISTEN_FDS_START).
const FIRST: RawFd = 3;
/// A configuration names three sockets. More than these are a mistake, and each of the few more is refused by name.
const HANDED_MAX: u32 = 16;
/// What one is called that was given no name, as sd_listen_fds_with_names(3) has it.
const NO_NAME: &str = "unknown";

/// Why sockets that were handed in are not taken.
#[derive(Debug, thiserror::Error)]
pub enum HandedError {
    /// The number of sockets is none.
    #[error(
        "LISTEN_FDS = {0:?} is not a number of sockets from 1 to {HANDED_MAX}; start sublet by a socket unit, or unset it"
    )]
    Number(String),
    /// Names and sockets do not fit.
    #[error(
        "LISTEN_FDNAMES has {names} names for {sockets} sockets of LISTEN_FDS; give each its name, or none of them"
    )]
    Names {
        /// How many names there are.
        names: usize,
        /// How many sockets.
        sockets: u32,
    },
    /// A descriptor is not there, or cannot be taken.
    #[error(
        "descriptor {number}, which LISTEN_FDS = {count} says was handed in, cannot be taken: {error}; correct LISTEN_FDS"
    )]
    Descriptor {
        /// Number of the descriptor.
        number: RawFd,
        /// How many were announced.
        count: u32,
        /// What the kernel says.
        error: io::Error,
    },
}

/// A socket that was handed in.
#[derive(Debug)]
pub struct Handed {
    /// What it is called, by whoever made it.
    pub name: String,
    /// The number it came with.
    pub number: RawFd,
    /// The descriptor itself, with close-on-exec.
    pub socket: OwnedFd,
}

/// What the environment says.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    count: u32,
    names: Vec<String>,
}

impl Asked {
    /// By the variables that `find` knows, for the process `pid`. None when nothing was handed in to it.
    fn of(find: impl Fn(&str) -> Option<String>, pid: u32) -> Result<Option<Self>, HandedError> {
        let is_ours = find("LISTEN_PID").and_then(|text| text.parse().ok()) == Some(pid);
        let Some(text) = find("LISTEN_FDS").filter(|_| is_ours) else { return Ok(None) };
        let count = text.parse().ok().filter(|count| (1..=HANDED_MAX).contains(count));
        let count: u32 = count.ok_or(HandedError::Number(text))?;
        let names: Vec<String> = match find("LISTEN_FDNAMES") {
            Some(text) => text.split(':').map(str::to_owned).collect(),
            None => vec![NO_NAME.to_owned(); count as usize],
        };
        if names.len() != count as usize {
            return Err(HandedError::Names { names: names.len(), sockets: count });
        }
        Ok(Some(Self { count, names }))
    }

    fn of_environment() -> Result<Option<Self>, HandedError> {
        Self::of(|name| std::env::var(name).ok(), std::process::id())
    }
}

/// Whether anything was handed in to this process, be it right or wrong.
pub fn is_any() -> bool {
    !matches!(Asked::of_environment(), Ok(None))
}

/// Takes the sockets that were handed in to this process; no child of it gets them. To be called once, before it opens
/// anything.
///
/// # Errors
/// The environment is wrong, or a descriptor is not there.
pub fn take() -> Result<Vec<Handed>, HandedError> {
    let Some(Asked { count, names }) = Asked::of_environment()? else { return Ok(Vec::new()) };
    let taken = (FIRST..).zip(names).map(|(number, name)| {
        let take = || -> io::Result<OwnedFd> {
            let socket = sys::inherited(number)?;
            fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            Ok(socket)
        };
        let socket = take().map_err(|error| HandedError::Descriptor { number, count, error })?;
        Ok(Handed { name, number: socket.as_raw_fd(), socket })
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(variables: &[(&str, &str)]) -> Result<Option<Asked>, HandedError> {
        let find = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Asked::of(find, 17)
    }

    #[test]
    fn sockets_are_for_the_process_they_name_and_for_no_other() {
        for variables in [
            &[][..],
            &[("LISTEN_FDS", "1")],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "18")],
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "us")],
            &[("LISTEN_PID", "17")],
        ] {
            assert_eq!(asked(variables).unwrap(), None, "{variables:?}");
        }
        let ours = [("LISTEN_PID", "17"), ("LISTEN_FDS", "2")];
        let names = |more: &[(&str, &str)]| asked(&[&ours, more].concat()).unwrap().unwrap().names;
        assert_eq!(names(&[]), ["unknown", "unknown"]);
        assert_eq!(names(&[("LISTEN_FDNAMES", "call:admin")]), ["call", "admin"]);
    }

    #[test]
    fn numbers_and_names_that_do_not_fit_are_refused() {
        let of = |count: &str, more: &[(&str, &str)]| {
            asked(&[&[("LISTEN_PID", "17"), ("LISTEN_FDS", count)], more].concat()).unwrap_err().to_string()
        };
        let past = (HANDED_MAX + 1).to_string();
        for wrong in ["0", "-1", "two", "", &past] {
            assert!(of(wrong, &[]).contains(&format!("LISTEN_FDS = {wrong:?}")), "{wrong}");
        }
        for names in ["call", "a:b:c", ""] {
            assert!(of("2", &[("LISTEN_FDNAMES", names)]).contains("for 2 sockets"), "{names}");
        }
        let most = HANDED_MAX.to_string();
        assert!(asked(&[("LISTEN_PID", "17"), ("LISTEN_FDS", &most)]).unwrap().is_some());
    }
}
