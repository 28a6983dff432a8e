//! Errors that say nothing of what was asked for, and only that the host has none left: no function is to blame for them.

use std::io;

/// Whether a step failed because the host is out of processes, descriptors, memory or room for mounts.
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EAGAIN | libc::ENOMEM | libc::ENFILE | libc::EMFILE | libc::ENOSPC | libc::ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_are_told_from_what_a_path_or_a_right_is_to_blame_for() {
        let of = |errno| is_shortage(&io::Error::from_raw_os_error(errno));
        assert!(
            [libc::EAGAIN, libc::ENOMEM, libc::ENFILE, libc::EMFILE, libc::ENOSPC, libc::ENOBUFS].into_iter().all(of)
        );
        assert!(
            ![libc::ENOENT, libc::EACCES, libc::EPERM, libc::ENOTDIR, libc::ELOOP, libc::ENOEXEC].into_iter().any(of)
        );
        assert!(!is_shortage(&io::Error::other("out of memory, it says")));
    }
}
