//! A time limit for one call after another.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set anew for each call. One that is made for each is due before all others as a rule, and tokio wakes its
/// event loop for such; to put one off that is in its books already costs nothing.
#[derive(Debug)]
pub struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// One that is not set. Must be called inside a tokio runtime.
    pub fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// What comes of `future`, when that is by `end`; an outcome that is there counts, however late it is looked at.
    pub async fn by<F: Future>(&mut self, end: Instant, future: F) -> Option<F::Output> {
        self.0.as_mut().reset(end);
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.0.as_mut() => None,
        }
    }
}

impl Default for Alarm {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn limit_holds_for_each_anew() {
        let mut alarm = Alarm::new();
        let begin = Instant::now();
        assert_eq!(alarm.by(begin + SHORT, async { 1 }).await, Some(1));
        assert_eq!(alarm.by(begin + 3 * SHORT, pending::<()>()).await, None, "put off");
        assert!(begin.elapsed() >= 3 * SHORT);
        let far = Duration::from_secs(3600);
        assert_eq!(alarm.by(Instant::now() + far, async { 2 }).await, Some(2), "rung before");
        assert_eq!(
            alarm.by(Instant::now() + SHORT, pending::<()>()).await,
            None,
            "brought forward: or we sit here for long"
        );
    }

    #[tokio::test]
    async fn outcome_that_is_there_counts_after_the_end() {
        assert_eq!(Alarm::new().by(Instant::now() - SHORT, async { 1 }).await, Some(1));
    }
}
