//! Waking at a time, exactly: a timerfd instead of the runtime's timer, which only knows whole milliseconds.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Instant,
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// A clock to wait on.
#[derive(Debug)]
pub struct Pace {
    timer: TimerFd,
    /// The same timer, for tokio to watch.
    wakes: AsyncFd<OwnedFd>,
}

impl Pace {
    /// A clock that is not armed.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let wakes = sys::register(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Self { timer, wakes })
    }

    /// Returns at `due`, at once if that has passed.
    ///
    /// # Errors
    /// What the timer says.
    pub async fn until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Relative, because std's clock does not tell its number; setting takes a microsecond.
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        self.wakes.async_io(Interest::READABLE, |_| Ok(self.timer.wait()?)).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn never_early_and_past_times_do_not_wait() -> io::Result<()> {
        let pace = Pace::new()?;
        for micros in [0, 300, 1_700, 20_000] {
            let due = Instant::now() + Duration::from_micros(micros);
            pace.until(due).await?;
            assert!(Instant::now() >= due, "{micros} us");
        }
        let before = Instant::now();
        pace.until(before - Duration::from_secs(1)).await?;
        assert!(before.elapsed() < Duration::from_secs(1));
        Ok(())
    }
}
