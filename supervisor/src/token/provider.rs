//! Whom a token is asked of.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sublet_pool::FunctionId;
use sublet_proto::link::token::Token;
use tokio::sync::Semaphore;

use super::{
    command, files,
    jwt::{Signer, Terms},
    keys::Keys,
    whose::Whose,
};
use crate::{
    config::{HostPath, TokenProvider},
    driver::catalogue::Entry,
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
        let error = |setting| move |what| ProviderError { what, setting };
        match self {
            Self::Static { dir, ttl } => {
                let (dir, label) = (dir.clone(), whose.sub_tenant.clone());
                let read = move || files::read(dir.as_path(), label.as_str());
                let token = elsewhere(read, ()).await.map_err(error("token.dir"))?;
                Ok(Issued { token, lifetime: *ttl })
            }
            Self::Command { argv, timeout, ttl, room } => {
                // It is closed by nobody.
                let room = room.clone().acquire_owned().await.ok();
                let (argv, timeout, whose) = (argv.clone(), *timeout, whose.clone());
                let run = move || command::run(&argv, timeout, &whose);
                let token = elsewhere(run, room).await.map_err(error("token.command"))?;
                Ok(Issued { token, lifetime: Some(*ttl) })
            }
            Self::Jwt { signer, key_id, issuer, audience, ttl } => {
                // 30 us, which is not worth a thread.
                let terms = Terms { issuer, audience, key_id: key_id.as_deref(), ttl: *ttl };
                let token = signer.issue(&terms, whose).map_err(error("token.key"))?;
                Ok(Issued { token, lifetime: Some(*ttl) })
            }
        }
    }
}

/// Runs what blocks on a thread for that, and holds `room` until it has ended.
async fn elsewhere<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, String> + Send + 'static,
    room: impl Send + 'static,
) -> Result<T, String> {
    let ended = tokio::task::spawn_blocking(move || {
        let outcome = run();
        drop(room);
        outcome
    });
    ended.await.unwrap_or_else(|error| Err(format!("the provider's thread ended early: {error}")))
}

/// The providers of all functions, by revision. A key that was read again counts for the workers that are there as well.
#[derive(Debug)]
pub struct Providers {
    all: RwLock<HashMap<FunctionId, Arc<Provider>>>,
    room: Arc<Semaphore>,
}

impl Default for Providers {
    fn default() -> Self {
        Self { all: RwLock::default(), room: Arc::new(Semaphore::new(command::AT_ONCE_MAX)) }
    }
}

impl Providers {
    /// Takes the provider of a function in, if its settings name one.
    pub fn install(&self, entry: &Entry, keys: &Keys) {
        let Some(token) = &entry.settings.token else { return };
        let provider = match &token.provider {
            TokenProvider::Static { dir, ttl } => Some(Provider::Static { dir: dir.clone(), ttl: *ttl }),
            TokenProvider::Command { command, timeout, ttl } => {
                Some(Provider::Command { argv: command.clone(), timeout: *timeout, ttl: *ttl, room: self.room.clone() })
            }
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
