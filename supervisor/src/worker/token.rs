//! The token that one worker holds: when it is made, when it is renewed, what a call does whose worker's token is old.
//!
//! ```text
//!  labelled --first--> held ----- two thirds of its life ----> asked for again --> held
//!                       |    (not while frozen: then the next      |
//!                       |     call does it, before its payload)    '-- failed: kept, and tried again with a growing pause,
//!                       v                                              until it has expired: then calls are told
//!                   renewed by `keep`, which is the worker's keeper; `fresh` asks it to and waits
//! ```

use std::time::{Duration, SystemTime};

use sublet_proto::link::{init::ToInit, token::Token};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::Worker;
use crate::token::{Issued, ProviderError, Providers, Whose};

/// Where in its life a token is renewed, in thirds: late enough to be worth it, and a third left for a provider that fails.
const RENEWED_AT_THIRDS: u32 = 2;
/// How long init may take to write a file of 16 KiB. It competes with the function for the worker's CPU.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether the worker has been frozen meanwhile.
const WRITE_LOOK: Duration = Duration::from_millis(500);
/// After a provider has failed: doubled each time, up to the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a worker has no token that holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its provider gives none.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// It could not be put where the function reads it.
    #[error("put the token into the sandbox: {0}")]
    Ours(String),
}

/// What is known of the token.
#[derive(Clone, Debug)]
struct Status {
    issued: Option<(SystemTime, Instant)>,
    lifetime: Option<Duration>,
    /// Renewals that have ended, well or not.
    attempts: u64,
    /// Why the last did not end well, if it did not.
    failed: Option<Failed>,
}

/// A renewal that did not end well.
#[derive(Clone, Debug)]
struct Failed {
    error: TokenError,
    /// When another may be begun.
    not_before: Instant,
    /// What was waited for that.
    pause: Duration,
}

/// For people.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When the one it holds was asked for.
    pub issued: SystemTime,
    /// When that expires; none: with its worker.
    pub expires: Option<SystemTime>,
}

/// What init has said.
#[derive(Clone, Debug, Default)]
struct Heard {
    number: u64,
    error: Option<String>,
}

/// One worker's token.
#[derive(Debug)]
pub struct Hold {
    status: watch::Sender<Status>,
    heard: watch::Sender<Heard>,
    wanted: Notify,
}

impl Default for Hold {
    fn default() -> Self {
        let status = Status { issued: None, lifetime: None, attempts: 0, failed: None };
        Self { status: watch::Sender::new(status), heard: watch::Sender::default(), wanted: Notify::new() }
    }
}

impl Status {
    fn expires(&self) -> Option<Instant> {
        Some(self.issued?.1 + self.lifetime?)
    }

    fn is_held(&self, now: Instant) -> bool {
        self.issued.is_some() && self.expires().is_none_or(|expires| now < expires)
    }

    /// When it is to be renewed next; none: never.
    fn due(&self) -> Option<Instant> {
        let (_, since) = self.issued?;
        let planned = since + self.lifetime? * RENEWED_AT_THIRDS / 3;
        Some(match &self.failed {
            Some(failed) => planned.max(failed.not_before),
            None => planned,
        })
    }

    /// What a call that comes now is to be told; none: that it has to wait for a renewal.
    fn answer(&self, now: Instant) -> Option<Result<(), TokenError>> {
        let is_due = self.due().is_some_and(|due| due <= now);
        match (&self.failed, self.is_held(now)) {
            (_, true) if !is_due => Some(Ok(())),
            // No call waits for a provider that fails, while the old one holds.
            (Some(_), true) => Some(Ok(())),
            (Some(failed), false) if now < failed.not_before => Some(Err(failed.error.clone())),
            (_, _) => None,
        }
    }

    fn took(&mut self, at: (SystemTime, Instant), lifetime: Option<Duration>) {
        *self = Self { issued: Some(at), lifetime, attempts: self.attempts + 1, failed: None };
    }

    /// Returns whether it is the first time.
    fn fail(&mut self, now: Instant, error: TokenError) -> bool {
        let before = self.failed.take();
        let pause = before.as_ref().map_or(FIRST_PAUSE, |before| (before.pause * 2).min(PAUSE_MAX));
        self.attempts += 1;
        self.failed = Some(Failed { error, not_before: now + pause, pause });
        before.is_none()
    }
}

impl Hold {
    /// What it holds, for people.
    pub fn seen(&self) -> Option<Seen> {
        let status = self.status.borrow();
        let (issued, _) = status.issued?;
        Some(Seen { issued, expires: status.lifetime.map(|lifetime| issued + lifetime) })
    }

    /// Init has written the token of this number, or could not.
    pub fn hear(&self, number: u64, error: Option<String>) {
        self.heard.send_replace(Heard { number, error });
    }

    /// The worker's first token. Nobody else reads init's reports yet.
    ///
    /// # Errors
    /// There is none, and the worker cannot start.
    pub async fn first(&self, worker: &Worker, providers: &Providers) -> Result<(), TokenError> {
        let at = (SystemTime::now(), Instant::now());
        let Issued { token, lifetime } = ask(worker, providers).await?;
        self.send(worker, token)?;
        let written = worker.hear_until(|| self.heard.borrow().number > 0);
        match timeout(WRITE_PATIENCE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(TokenError::Ours(error.to_string())),
            Err(_) => return Err(late()),
        }
        self.written()?;
        self.took(at, lifetime);
        Ok(())
    }

    /// Renews it whenever it has to be, for as long as the worker lives. Somebody else reads init's reports meanwhile.
    pub async fn keep(&self, worker: &Worker, providers: &Providers) {
        loop {
            let due = self.status.borrow().due();
            let comes = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = comes => {
                    if worker.is_wanted_frozen() {
                        // It is not thawed for this. Whoever delivers the next call asks.
                        self.wanted.notified().await;
                    }
                }
                () = self.wanted.notified() => {}
            }
            // Several may have asked for one renewal.
            if self.status.borrow().due().is_some_and(|due| due <= Instant::now()) {
                self.renew(worker, providers).await;
            }
        }
    }

    /// Returns once the worker may be given a call: its token holds.
    ///
    /// # Errors
    /// It has expired, and there is no other.
    pub async fn fresh(&self) -> Result<(), TokenError> {
        let mut status = self.status.subscribe();
        loop {
            let (answer, is_failing, before) = {
                let now = status.borrow_and_update();
                (now.answer(Instant::now()), now.failed.is_some(), now.attempts)
            };
            if answer.is_none() || is_failing {
                // One that has been frozen waits for a word of ours.
                self.wanted.notify_one();
            }
            if let Some(answer) = answer {
                return answer;
            }
            // The sender is our own.
            drop(status.wait_for(|now| now.attempts != before).await);
        }
    }

    async fn renew(&self, worker: &Worker, providers: &Providers) {
        let at = (SystemTime::now(), Instant::now());
        match self.replace(worker, providers).await {
            Ok(lifetime) => self.took(at, lifetime),
            Err(error) => self.failed(worker, error),
        }
    }

    async fn replace(&self, worker: &Worker, providers: &Providers) -> Result<Option<Duration>, TokenError> {
        let Issued { token, lifetime } = ask(worker, providers).await?;
        let number = self.send(worker, token)?;
        let mut heard = self.heard.subscribe();
        let mut waited = Duration::ZERO;
        loop {
            match timeout(WRITE_LOOK, heard.wait_for(|heard| heard.number >= number)).await {
                // The sender is our own.
                Ok(_) => break,
                // Frozen since: it is written as soon as it is thawed, and whoever thaws it waits for that.
                Err(_) if worker.is_wanted_frozen() => waited = Duration::ZERO,
                Err(_) if waited >= WRITE_PATIENCE => return Err(late()),
                Err(_) => waited += WRITE_LOOK,
            }
        }
        self.written()?;
        Ok(lifetime)
    }

    fn send(&self, worker: &Worker, token: Token) -> Result<u64, TokenError> {
        // One is sent when the one before has been heard of, or has been given up.
        let number = self.status.borrow().attempts + 1;
        let sent = worker.tell_init(&ToInit::Token { number, token });
        sent.map(|()| number).map_err(|error| TokenError::Ours(format!("tell init: {error}")))
    }

    fn written(&self) -> Result<(), TokenError> {
        match &self.heard.borrow().error {
            None => Ok(()),
            Some(error) => Err(TokenError::Ours(format!("init cannot write it: {error}"))),
        }
    }

    fn took(&self, at: (SystemTime, Instant), lifetime: Option<Duration>) {
        self.status.send_modify(|status| status.took(at, lifetime));
    }

    fn failed(&self, worker: &Worker, error: TokenError) {
        let mut is_first = false;
        self.status.send_modify(|status| is_first = status.fail(Instant::now(), error.clone()));
        if is_first {
            let (tenant, function) = (&worker.entry.tenant, &worker.entry.name);
            tracing::warn!(
                worker = worker.name(), %tenant, %function, %error,
                "its token cannot be renewed; the old one is kept until it expires, and it is tried again"
            );
        }
    }
}

async fn ask(worker: &Worker, providers: &Providers) -> Result<Issued, TokenError> {
    let entry = &worker.entry;
    let owner = worker.owner().ok_or_else(|| TokenError::Ours("it has no owner".into()))?;
    let provider = providers.of(entry.id).ok_or_else(|| TokenError::Ours("its provider is gone".into()))?;
    let whose =
        Whose { tenant: entry.tenant.clone(), function: entry.name.clone(), sub_tenant: owner.sub_tenant.clone() };
    Ok(provider.ask(&whose).await?)
}

fn late() -> TokenError {
    TokenError::Ours("init has not written it in time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error() -> TokenError {
        TokenError::Provider(ProviderError { what: "as asked".into(), setting: "token.dir" })
    }

    fn held(since: Instant, lifetime: Option<Duration>) -> Status {
        let mut status = Status { issued: None, lifetime: None, attempts: 0, failed: None };
        status.took((SystemTime::now(), since), lifetime);
        status
    }

    #[test]
    fn call_waits_only_for_a_token_past_two_thirds_of_its_life() {
        let start = Instant::now();
        let status = held(start, Some(30 * SECOND));
        assert_eq!(status.answer(start + 19 * SECOND), Some(Ok(())));
        assert_eq!(status.answer(start + 20 * SECOND), None);
        assert_eq!(status.answer(start + 40 * SECOND), None, "a frozen worker's may have expired");
        assert_eq!(held(start, None).answer(start + 1000 * SECOND), Some(Ok(())));
    }

    #[test]
    fn failing_provider_stops_no_call_before_the_old_one_has_expired_and_is_not_asked_by_each_after() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let mut status = held(start, Some(30 * SECOND));
        assert!(status.fail(at(20), error()));
        assert_eq!(status.answer(at(20)), Some(Ok(())));
        assert_eq!(status.due(), Some(at(21)));
        assert!(!status.fail(at(21), error()), "it is told once");
        assert_eq!(status.due(), Some(at(23)), "the pause has doubled");
        assert_eq!(status.answer(at(29)), Some(Ok(())));
        assert_eq!(status.answer(at(30)), None, "expired, and the pause is over: this one asks");
        for _ in 0..10 {
            status.fail(at(30), error());
        }
        assert_eq!(status.answer(at(59)), Some(Err(error())), "within the pause it is told at once");
        assert_eq!(status.answer(at(60)), None);
        status.took((SystemTime::now(), at(60)), Some(30 * SECOND));
        assert_eq!((status.answer(at(61)), status.due()), (Some(Ok(())), Some(at(80))));
    }
}
