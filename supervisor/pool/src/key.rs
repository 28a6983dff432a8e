//! What two calls must share to share a worker.

use std::{fmt, sync::Arc};

/// Longest label that is taken, in bytes.
pub const SUB_TENANT_MAX_BYTES: usize = 256;

/// Label of a tenant's own customer. Opaque: compared byte for byte, never interpreted, never shown.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubTenant(Arc<str>);

/// Why a text is no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// It has no characters.
    Empty,
    /// It has more than [`SUB_TENANT_MAX_BYTES`] bytes.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It has a control character.
    Control {
        /// Where that is, in bytes from the start.
        at: usize,
    },
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the sub-tenant label is empty"),
            Self::TooLong { bytes } => {
                write!(f, "the sub-tenant label has {bytes} bytes, at most {SUB_TENANT_MAX_BYTES} are allowed")
            }
            Self::Control { at } => write!(f, "the sub-tenant label has a control character at byte {at}"),
        }
    }
}

impl std::error::Error for LabelError {}

impl TryFrom<&str> for SubTenant {
    type Error = LabelError;

    fn try_from(text: &str) -> Result<Self, LabelError> {
        if text.is_empty() {
            return Err(LabelError::Empty);
        }
        if text.len() > SUB_TENANT_MAX_BYTES {
            return Err(LabelError::TooLong { bytes: text.len() });
        }
        if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(LabelError::Control { at });
        }
        Ok(Self(text.into()))
    }
}

impl SubTenant {
    /// The label of functions without sub-tenants. No caller can form it: it is empty.
    pub fn shared() -> Self {
        Self("".into())
    }

    /// Whether it is that label.
    pub fn is_shared(&self) -> bool {
        self.0.is_empty()
    }

    /// The label. For the function itself and for hashing; never for a path, a metric or a log line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SubTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubTenant(…)")
    }
}

/// A tenant, by its place in the pool's list; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u32);

/// One revision of one function of one tenant; never given to another. Equal ids mean equal tenant, function and revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// Two calls may share a worker only if all of it is equal: tenant, function and revision in the one, the label in the
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// The function, its tenant's, in one revision.
    pub function: FunctionId,
    /// The label of its owner.
    pub sub_tenant: SubTenant,
}
