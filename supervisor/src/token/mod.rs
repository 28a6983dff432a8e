//! The sub-tenant's token: who makes it, and the one that a worker holds.
//!
//! ```text
//!  config --Keys::read--> Keys --+
//!                                +--> Providers --Provider::ask--> Issued --hold--> init of the worker --> /run/sublet/token
//!  config ----- catalogue -------+    (one for each revision)               (one for each worker)
//! ```
//! A token is asked for once its worker has an owner, never before, and again at two thirds of its life. It is passed on to
//! the worker's init and then forgotten here. What is kept is when it expires.

mod files;
pub(crate) mod jwt;
pub mod keys;
mod provider;
#[cfg(test)]
pub(crate) mod test_keys;
mod whose;

pub use keys::Keys;
pub use provider::{Issued, Provider, ProviderError, Providers};
pub use whose::Whose;
