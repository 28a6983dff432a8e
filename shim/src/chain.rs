//! Errors in words. An error says what was tried; why it failed is its source. Whoever shows one to people shows both.

use std::error::Error;

/// The words of an error and of all its causes, parted by a colon and a space.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some libraries print the cause already.
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open the gate")]
    struct Failed(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("make a sandbox")]
    struct Outer(#[from] Failed);

    #[test]
    fn causes_follow_what_was_tried_and_each_is_told_once() {
        let cause = || io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(chain(&Outer(Failed(cause()))), format!("make a sandbox: open the gate: {}", cause()));
        // Prints its cause by itself.
        assert_eq!(chain(&io::Error::other(cause())), cause().to_string());
    }
}
