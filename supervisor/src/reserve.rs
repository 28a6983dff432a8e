//! Descriptors that are kept back, so that what must not fail for want of one does not.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Descriptors that are kept back for what must not fail for want of one: ending a worker, hearing of its end.
pub const RESERVED: usize = 8;

/// Open files that are of no use but for being let go of. Each is one of its own, so that it counts where the host counts too.
#[derive(Debug, Default)]
pub struct Reserve(Mutex<Vec<OwnedFd>>);

/// The reserve of this process.
static RESERVE: Reserve = Reserve(Mutex::new(Vec::new()));

/// Keeps some back, for [`with_reserve`].
pub fn keep_reserve() {
    RESERVE.fill();
}

/// Does something that needs a descriptor for a moment, with one of the reserve when there is no other.
///
/// # Errors
/// What `run` says.
pub fn with_reserve<T>(run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    RESERVE.with(run)
}

impl Reserve {
    fn fill(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() < RESERVED {
            // What cannot be had now is had when others have let go.
            let Ok(file) = EventFd::from_flags(EfdFlags::EFD_CLOEXEC) else { return };
            kept.push(file.into());
        }
    }

    fn with<T>(&self, mut run: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match run() {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                    // Somebody else may be faster to take the place of the one that is let go of.
                    if self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().is_none() {
                        return Err(error);
                    }
                }
                done => {
                    self.fill();
                    return done;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_let_go_of_one_by_one_and_filled_again() {
        let reserve = Reserve::default();
        reserve.fill();
        let left = || reserve.0.lock().unwrap().len();
        assert_eq!(left(), RESERVED);
        let mut seen = Vec::new();
        let done = reserve.with(|| {
            seen.push(left());
            if seen.len() < 4 { Err(io::Error::from_raw_os_error(libc::EMFILE)) } else { Ok(seen.len()) }
        });
        assert_eq!((done.unwrap(), seen), (4, vec![RESERVED, RESERVED - 1, RESERVED - 2, RESERVED - 3]));
        assert_eq!(left(), RESERVED);
        let none = reserve.with(|| Err::<(), _>(io::Error::from_raw_os_error(libc::ENFILE)));
        assert_eq!((none.unwrap_err().raw_os_error(), left()), (Some(libc::ENFILE), 0));
        let other = reserve.with(|| Err::<(), _>(io::Error::from_raw_os_error(libc::ENOENT)));
        assert_eq!((other.unwrap_err().raw_os_error(), left()), (Some(libc::ENOENT), RESERVED));
    }
}
