//! Before the bounds: the supervisor makes its groups and sockets, and may be killed at any moment. It announces them first,
//! so that whatever there is by then is removed.
//!
//! ```text
//!  Announce -> nothing there is known to be ours: an earlier run's, another supervisor's, or just made and empty
//!  Claimed  -> the groups are ours, and we hold their locks
//!  Configure-> everything is there
//! ```

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use sublet_proto::link::{
    nursery::Request,
    sandbox::{Announcement, NurseryConfig},
};

use super::{NurseryError, os, places, teardown};
use crate::{cgroups, link};

/// What has been told before the bounds.
#[derive(Debug, Default)]
pub(super) struct Early {
    announced: Option<Announcement>,
    /// Locks of the groups, once they are ours.
    claimed: Option<Vec<OwnedFd>>,
}

impl Early {
    /// Takes in what is told until the bounds are; none when the supervisor has ended before.
    pub(super) fn await_configuration(&mut self, socket: &OwnedFd) -> Result<Option<NurseryConfig>, NurseryError> {
        loop {
            let received = link::receive_with_descriptors::<Request>(socket.as_fd(), false);
            match received.map_err(os("receive the configuration"))? {
                link::Received::Message(Request::Announce(announced), _) if self.announced.is_none() => {
                    self.announced = Some(*announced);
                }
                link::Received::Message(Request::Claimed, locks) if self.announced.is_some() => {
                    self.claimed = Some(locks);
                }
                link::Received::Message(Request::Configure(config), _) if self.claimed.is_some() => {
                    return Ok(Some(*config));
                }
                link::Received::Closed => return Ok(None),
                other => {
                    let error = format!("expected Announce, Claimed and Configure in this order, got {other:?}");
                    return Err(os("receive the configuration")(io::Error::other(error)));
                }
            }
        }
    }

    /// Removes what the supervisor has made. Returns what would not go.
    pub(super) fn remove(&self) -> Vec<String> {
        let Some(Announcement { cgroups: dirs, sockets }) = &self.announced else { return Vec::new() };
        let mut left = match &self.claimed {
            Some(_) => teardown::remove_groups(dirs, &BTreeMap::new()),
            None => {
                let all = dirs.v1.iter().chain([&dirs.unified]);
                let remove =
                    |dir: &String| Some(format!("{dir}: {}", cgroups::remove_unclaimed(Path::new(dir)).err()?));
                all.filter_map(remove).collect()
            }
        };
        let dead = sockets.iter().map(Path::new);
        left.extend(
            dead.filter_map(|path| Some(format!("{}: {}", path.display(), places::remove_dead_socket(path).err()?))),
        );
        left
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener, path::PathBuf};

    use nix::{
        fcntl::{Flock, FlockArg},
        sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    };
    use sublet_proto::link::sandbox::CgroupDirs;

    use super::*;

    /// Directories of an ordinary file system: names and locks are the same there.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-early-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn announcement(&self) -> Announcement {
            let text = |name: &str| self.0.join(name).display().to_string();
            let cgroups = CgroupDirs { unified: text("unified"), v1: vec![text("v1")], ..CgroupDirs::default() };
            Announcement { cgroups, sockets: vec![text("call.sock")] }
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn announced(dir: &Dir) -> Early {
        Early { announced: Some(dir.announcement()), claimed: None }
    }

    #[test]
    fn empty_groups_and_dead_sockets_are_removed_before_the_claim() {
        let dir = Dir::new("empty");
        for name in ["unified", "v1"] {
            fs::create_dir(dir.0.join(name)).unwrap();
        }
        drop(UnixListener::bind(dir.0.join("call.sock")).unwrap());
        assert_eq!(announced(&dir).remove(), Vec::<String>::new());
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
        assert_eq!(announced(&dir).remove(), Vec::<String>::new(), "what is not there is as good as removed");
    }

    #[test]
    fn what_is_another_s_stays_before_the_claim() {
        let dir = Dir::new("others");
        let (unified, v1) = (dir.0.join("unified"), dir.0.join("v1"));
        // One is an earlier run's, the other a living supervisor's that has just begun.
        fs::create_dir_all(unified.join("pool")).unwrap();
        fs::create_dir(&v1).unwrap();
        let held = Flock::lock(fs::File::open(&v1).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let _listener = UnixListener::bind(dir.0.join("call.sock")).unwrap();
        assert_eq!(announced(&dir).remove(), Vec::<String>::new());
        assert!(unified.join("pool").exists() && v1.exists() && dir.0.join("call.sock").exists());
        drop(held);
    }

    #[test]
    fn nothing_is_removed_that_was_not_announced() {
        assert_eq!(Early::default().remove(), Vec::<String>::new());
    }

    #[test]
    fn bounds_come_after_the_claim_and_the_claim_after_what_it_is_about() {
        let dir = Dir::new("order");
        let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let send = |request: Request, file: Option<&fs::File>| {
            let attached: Vec<_> = file.into_iter().map(|file| file.as_fd()).collect();
            link::send(from.as_fd(), &request, &attached).unwrap();
        };
        send(Request::Claimed, None);
        let refused = Early::default().await_configuration(&to).unwrap_err();
        let refused = crate::chain::chain(&refused);
        assert!(refused.contains("in this order"), "{refused}");
        let lock = fs::File::open(&dir.0).unwrap();
        send(Request::Announce(Box::new(dir.announcement())), None);
        send(Request::Claimed, Some(&lock));
        drop(from);
        let mut early = Early::default();
        assert!(early.await_configuration(&to).unwrap().is_none(), "the supervisor has ended");
        assert_eq!(early.announced, Some(dir.announcement()));
        assert_eq!(early.claimed.map(|locks| locks.len()), Some(1));
    }
}
