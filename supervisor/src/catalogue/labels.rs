//! Everything that is derived from a pool key: what others may see of a sub-tenant, and what nobody can guess.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};
use sublet_pool::{CallId, LeaseId, SubTenant};
use sublet_proto::link::group::SUB_TENANT_PREFIX;

use super::Entry;
use crate::hex::hex;

/// A key of this run. With it, labels become names that mean nothing to whoever has not got it: a group's name tells
/// nobody which customer it belongs to, and cannot be found by hashing a list of customers.
#[derive(Clone)]
pub struct Labels([u8; 16]);

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Labels(…)")
    }
}

/// What a hash is for; equal input for another purpose gives another hash.
#[derive(Clone, Copy)]
enum Purpose {
    Group = 1,
    Tag = 2,
    Lease = 3,
    Error = 4,
}

impl Labels {
    /// With a fresh key.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> std::io::Result<Self> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        Ok(Self(key))
    }

    fn hash(&self, purpose: Purpose, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u8(purpose as u8);
        for part in parts {
            // With its length, so that parts cannot run into each other.
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        hasher.finish128().as_bytes()
    }

    /// Directory of a sub-tenant's groups below its tenant's, and its name for operators.
    pub fn group(&self, tenant: &str, sub_tenant: &SubTenant) -> String {
        if sub_tenant.is_shared() {
            return format!("{SUB_TENANT_PREFIX}shared");
        }
        format!(
            "{SUB_TENANT_PREFIX}{}",
            hex(&self.hash(Purpose::Group, &[tenant.as_bytes(), sub_tenant.as_str().as_bytes()]))
        )
    }

    /// Id by which the failure of this call is found in what operators see; 12 hex digits.
    pub fn error_id(&self, call: CallId) -> String {
        hex(&self.hash(Purpose::Error, &[&call.0.to_le_bytes()])[..6])
    }

    /// Tag of a worker's pool key, echoed by its function in every answer.
    pub fn tag(&self, function: &Entry, sub_tenant: &SubTenant) -> [u8; 16] {
        let revision = function.settings.revision;
        self.tag_of(&function.tenant, &function.name, revision, sub_tenant)
    }

    fn tag_of(&self, tenant: &str, function: &str, revision: u64, sub_tenant: &SubTenant) -> [u8; 16] {
        let parts = [tenant.as_bytes(), function.as_bytes(), &revision.to_le_bytes(), sub_tenant.as_str().as_bytes()];
        self.hash(Purpose::Tag, &parts)
    }

    /// Id of a lease on the wire: unique, and not to be guessed from an earlier one.
    pub fn lease(&self, lease: LeaseId) -> [u8; 16] {
        self.hash(Purpose::Lease, &[&lease.0.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_keys_apart_and_runs_too() {
        let (labels, other_run) = (Labels::new().unwrap(), Labels::new().unwrap());
        let label = |text: &str| SubTenant::try_from(text).unwrap();
        let tags =
            [("a", "f", 1, "s"), ("a", "f", 1, "t"), ("a", "f", 2, "s"), ("af", "s", 1, "t"), ("a", "fs", 1, "t")]
                .map(|(tenant, function, revision, s)| labels.tag_of(tenant, function, revision, &label(s)));
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[at + 1..].contains(tag));
        }
        let s = SubTenant::try_from("s").unwrap();
        assert_eq!(labels.group("a", &s), labels.group("a", &s));
        assert_ne!(labels.group("a", &s), labels.group("b", &s));
        assert_ne!(labels.group("a", &s), other_run.group("a", &s));
        assert_ne!(labels.lease(LeaseId(1)), labels.lease(LeaseId(2)));
        assert_eq!(labels.group("a", &SubTenant::shared()), "s-shared");
    }
}
