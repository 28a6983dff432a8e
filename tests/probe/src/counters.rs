//! Verbs that take what the kernel counts by user, and keep it for as long as the process lives; and the clocks.

use std::fs;

use nix::{
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    time::{ClockId, clock_gettime},
};

use crate::{Outcome, sys};

/// Takes up to so many inotify instances. Tells how many, and what stopped it.
pub fn instances(count: u64) -> Outcome {
    take(count, |_| {
        let instance = Inotify::init(InitFlags::empty())?;
        // Kept to the end.
        std::mem::forget(instance);
        Ok(())
    })
}

/// Adds up to so many watches, each to a file of its own in /tmp, which is made for it.
pub fn watches(count: u64) -> Outcome {
    let instance = Inotify::init(InitFlags::empty()).map_err(|e| format!("inotify_init: {e:?}"))?;
    let told = take(count, |at| {
        let path = format!("/tmp/watched-{at}");
        fs::write(&path, "").map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        instance.add_watch(path.as_str(), AddWatchFlags::IN_MODIFY).map(drop)
    });
    std::mem::forget(instance);
    told
}

/// Blocks a real-time signal and sends it to itself up to so many times.
pub fn signals(count: u64) -> Outcome {
    sys::block_queued_signal().map_err(|e| format!("block the signal: {e:?}"))?;
    take(count, |_| sys::queue_signal())
}

fn take(count: u64, mut one: impl FnMut(u64) -> nix::Result<()>) -> Outcome {
    for at in 0..count {
        match one(at) {
            Ok(()) => {}
            Err(error) if at == 0 => return Err(format!("took 0: {error:?}")),
            Err(error) => return Ok(format!("took {at}: {error:?}").into_bytes()),
        }
    }
    Ok(format!("took {count}").into_bytes())
}

/// What the clocks show, in milliseconds: `monotonic boottime` and how long sysinfo says the machine has been up.
pub fn clocks() -> Outcome {
    let read = |clock| -> Result<i64, String> {
        let now = clock_gettime(clock).map_err(|e| e.to_string())?;
        Ok(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000)
    };
    let (monotonic, boottime) = (read(ClockId::CLOCK_MONOTONIC)?, read(ClockId::CLOCK_BOOTTIME)?);
    let up = sys::uptime_seconds().map_err(|e| e.to_string())? * 1000;
    Ok(format!("{monotonic} {boottime} {up}").into_bytes())
}

/// The uid that owns the user namespace at `path`.
pub fn owner(path: &str) -> Outcome {
    let file = fs::File::open(path).map_err(|e| format!("open {path}: {e}"))?;
    let owner = sys::namespace_owner(&file).map_err(|e| format!("owner of {path}: {e:?}"))?;
    Ok(owner.to_string().into_bytes())
}
