//! Listening to signals from one moment on.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Number};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens to all of these. One that comes while a handler is being put in place is neither deadly any more nor known to
/// its listener yet, and would be lost; so all wait until every handler stands. Of one thread: a process that has others
/// may lose one there still.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
/// Those of `signal` and `pthread_sigmask`.
pub fn listen<const N: usize>(kinds: [SignalKind; N]) -> io::Result<[Signal; N]> {
    let mut waiting = SigSet::empty();
    for kind in kinds {
        waiting.add(Number::try_from(kind.as_raw_value())?);
    }
    let before = waiting.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let listeners = kinds.map(signal);
    before.thread_set_mask()?;
    let listeners: Vec<Signal> = listeners.into_iter().collect::<io::Result<_>>()?;
    listeners.try_into().map_err(|_| io::Error::other("as many listeners as signals"))
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[tokio::test]
    async fn signal_that_waits_is_heard_and_the_mask_is_as_it_was() {
        let mut own = SigSet::empty();
        own.add(Number::SIGUSR1);
        own.thread_block().unwrap();
        raise(Number::SIGUSR1).unwrap();
        let [mut first, mut second] = listen([SignalKind::user_defined1(), SignalKind::user_defined2()]).unwrap();
        let mask = SigSet::thread_get_mask().unwrap();
        assert!(mask.contains(Number::SIGUSR1) && !mask.contains(Number::SIGUSR2));
        own.thread_unblock().unwrap();
        first.recv().await.unwrap();
        raise(Number::SIGUSR2).unwrap();
        second.recv().await.unwrap();
    }
}
