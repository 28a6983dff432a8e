//! Whoever started us holds our stdin open; when it closes, however that comes about, we are to end.

use std::{
    io::{self, Read as _},
    thread,
};

/// Calls `then` once stdin is at its end, on a thread that nobody waits for.
pub fn on_close(then: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        // One that cannot be read is at its end as well. Byte by byte: nothing is ever sent.
        while io::stdin().read(&mut [0]).is_ok_and(|bytes| bytes > 0) {}
        then();
    });
}
