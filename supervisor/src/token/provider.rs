//! Whom a token is asked of.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sublet_pool::FunctionId;
use sublet_proto::link::{
    runner::{AT_ONCE_MAX, TokenOwner},
    token::Token,
};
use sublet_shim::chain::chain;
use tokio::sync::Semaphore;

use super::{
    files,
    jwt::{Signer, Terms},
    keys::Keys,
    whose::Whose,
};
use crate::{
    catalogue::Entry,
    config::{HostPath, TokenProvider},
    runner::Runner,
};

/// A token, and how long it holds.
#[derive(Debug)]
pub struct Issued {
    /// The token.
    pub token: Token,
    /// None: for as long as its worker lives.
    pub lifetime: Option<Duration>,
}

/// Why there is none. Never says what a token was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ProviderError {
    /// What happened, in words.
    pub what: String,
    /// The key of its function's settings to look at.
    pub setting: &'static str,
}

impl ProviderError {
    fn new(setting: &'static str, what: impl Into<String>) -> Self {
        Self { what: what.into(), setting }
    }

    /// In words, because what is told of it outlives the error: to each call that comes before the next attempt.
    fn because(setting: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(setting, chain(error))
    }
}

/// One function's provider.
#[derive(Debug)]
pub enum Provider {
    /// Files.
    Static {
        /// Where.
        dir: HostPath,
        /// When to look again.
        ttl: Option<Duration>,
    },
    /// A program.
    Command {
        /// It, and its arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Duration,
        /// How long its token holds.
        ttl: Duration,
        /// How many may run at a time.
        room: Arc<Semaphore>,
        /// Who starts it; none: nobody can.
        runner: Option<Runner>,
    },
    /// A key.
    Jwt {
        /// It.
        signer: Arc<Signer>,
        /// `kid`.
        key_id: Option<String>,
        /// `iss`.
        issuer: String,
        /// `aud`.
        audience: String,
        /// From `iat` to `exp`.
        ttl: Duration,
    },
}

impl Provider {
    /// Asks for a token. What blocks does so elsewhere, and goes on to its end when this is dropped.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self, whose: &Whose) -> Result<Issued, ProviderError> {
        match self {
            Self::Static { dir, ttl } => {
                let (dir, label) = (dir.clone(), whose.sub_tenant.clone());
                let read = move || files::read(dir.as_path(), label.as_str());
                // A thread of its own, because a file system may block.
                let token = match tokio::task::spawn_blocking(read).await {
                    Ok(token) => token.map_err(|error| ProviderError::because("token.dir", &error))?,
                    Err(error) => {
                        return Err(ProviderError::new(
                            "token.dir",
                            format!("the provider's thread ended early: {error}"),
                        ));
                    }
                };
                Ok(Issued { token, lifetime: *ttl })
            }
            Self::Command { argv, timeout, ttl, room, runner } => {
                let Some(runner) = runner.clone() else {
                    let what = "no program runs here that could start it; restart sublet";
                    return Err(ProviderError::new("token.command", what));
                };
                // It is closed by nobody.
                let room = room.clone().acquire_owned().await.ok();
                let owner = TokenOwner {
                    tenant: whose.tenant.to_string(),
                    function: whose.function.to_string(),
                    sub_tenant: whose.sub_tenant.as_str().to_owned(),
                };
                let (argv, timeout) = (argv.clone(), *timeout);
                // A task of its own: the room is taken until the program has ended, whoever still waits for it.
                let run = tokio::spawn(async move {
                    let token = runner.token(&argv, timeout, owner).await;
                    drop(room);
                    token
                });
                let token = match run.await {
                    Ok(token) => token.map_err(|error| ProviderError::because("token.command", &error))?,
                    Err(error) => {
                        return Err(ProviderError::new(
                            "token.command",
                            format!("the provider's task ended early: {error}"),
                        ));
                    }
                };
                Ok(Issued { token, lifetime: Some(*ttl) })
            }
            Self::Jwt { signer, key_id, issuer, audience, ttl } => {
                // 30 us, which is not worth a thread.
                let terms = Terms { issuer, audience, key_id: key_id.as_deref(), ttl: *ttl };
                let token = signer.issue(&terms, whose).map_err(|error| ProviderError::because("token.key", &error))?;
                Ok(Issued { token, lifetime: Some(*ttl) })
            }
        }
    }
}

/// The providers of all functions, by revision. A key that was read again counts for the workers that are there as well.
#[derive(Debug)]
pub struct Providers {
    all: RwLock<HashMap<FunctionId, Arc<Provider>>>,
    room: Arc<Semaphore>,
    runner: Option<Runner>,
}

impl Providers {
    /// With nobody's yet. `runner` starts programs, if the configuration had any at the start.
    pub fn new(runner: Option<Runner>) -> Self {
        Self { all: RwLock::default(), room: Arc::new(Semaphore::new(AT_ONCE_MAX)), runner }
    }

    /// Takes the provider of a function in, if its settings name one.
    pub fn install(&self, entry: &Entry, keys: &Keys) {
        let Some(token) = &entry.settings.token else { return };
        let provider = match &token.provider {
            TokenProvider::Static { dir, ttl } => Some(Provider::Static { dir: dir.clone(), ttl: *ttl }),
            TokenProvider::Command { command, timeout, ttl } => Some(Provider::Command {
                argv: command.clone(),
                timeout: *timeout,
                ttl: *ttl,
                room: self.room.clone(),
                runner: self.runner.clone(),
            }),
            TokenProvider::Jwt { key, key_id, issuer, audience, ttl } => keys.get(key).map(|signer| Provider::Jwt {
                signer: signer.clone(),
                key_id: key_id.clone(),
                issuer: issuer.clone(),
                audience: audience.clone(),
                ttl: *ttl,
            }),
        };
        // Keys are read of the same configuration; without one, `of` has none, and that is told.
        if let Some(provider) = provider {
            self.all.write().unwrap_or_else(PoisonError::into_inner).insert(entry.id, Arc::new(provider));
        }
    }

    /// A revision is gone.
    pub fn forget(&self, function: FunctionId) {
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&function);
    }

    /// That of a revision.
    pub fn of(&self, function: FunctionId) -> Option<Arc<Provider>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(&function).cloned()
    }
}
