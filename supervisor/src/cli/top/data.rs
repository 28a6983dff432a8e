//! Asks the supervisor again and again.
//!
//! Each question has a connection of its own. That costs little on a UNIX socket, a supervisor that was restarted is
//! found again without a word, and one that is not there is named as by every other command.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sublet_proto::v1::{GetHealthRequest, GetUsageRequest};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::model::Sample;
use crate::cli::{Failed, client};

/// How long an answer may take. A supervisor that is stopped takes connections and is silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What to ask, and whom.
#[derive(Clone, Debug)]
pub struct Source {
    /// The admin socket.
    pub socket: PathBuf,
    /// Only this tenant's, when it is not empty.
    pub tenant: String,
    /// Where the time of samples starts.
    pub since: Instant,
}

impl Source {
    /// A source whose time starts now.
    pub fn new(socket: &Path, tenant: Option<String>) -> Self {
        Self { socket: socket.to_owned(), tenant: tenant.unwrap_or_default(), since: Instant::now() }
    }

    /// One sample.
    ///
    /// # Errors
    /// No supervisor is there, it refuses, or it is silent for [`ANSWER_MAX`].
    pub async fn sample(&self) -> Result<Sample, Failed> {
        let silent = || Failed::new(format!("the supervisor did not answer within {} s", ANSWER_MAX.as_secs()));
        tokio::time::timeout(ANSWER_MAX, self.ask()).await.map_err(|_| silent())?
    }

    async fn ask(&self) -> Result<Sample, Failed> {
        let mut admin = client::admin(&self.socket).await?;
        let refused = |status: tonic::Status| client::refused(&status);
        let health = admin.get_health(GetHealthRequest {}).await.map_err(refused)?.into_inner();
        // Workers too, always: what is paused can then be looked into, and a list of workers has rates at once.
        let request = GetUsageRequest { tenant: self.tenant.clone(), workers: true };
        let usage = admin.get_usage(request).await.map_err(refused)?.into_inner();
        Ok(Sample { at: self.since.elapsed(), health, usage })
    }

    /// Samples until nobody wants them.
    pub async fn poll(self, every: Duration, samples: mpsc::Sender<Result<Sample, Failed>>) {
        let mut ticks = tokio::time::interval(every);
        // A late answer is not made up for with a burst of questions.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if samples.send(self.sample().await).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn supervisor_that_is_not_there_is_asked_again_and_again() {
        let (sender, mut samples) = mpsc::channel(1);
        let source = Source::new(Path::new("/nonexistent/admin.sock"), None);
        let polling = tokio::spawn(source.poll(Duration::from_millis(1), sender));
        for _ in 0..3 {
            let failed = samples.recv().await.expect("polling goes on").expect_err("nobody is there");
            assert!(failed.message.contains("no supervisor is there"), "{}", failed.message);
        }
        drop(samples);
        polling.await.expect("polling ends when nobody wants samples");
    }
}
