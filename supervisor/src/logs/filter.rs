//! Which records a reader wants.

use super::record::Record;

/// Everything that is said must hold; what is empty holds for all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: String,
    /// Of this function.
    pub function: String,
    /// Of any of these sub-tenants, by hash; none for all.
    pub sub_tenants: Option<Vec<String>>,
    /// Of this worker.
    pub worker: String,
    /// Of this call: its id, or how that begins.
    pub request: String,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn takes(&self, record: &Record) -> bool {
        let is = |wanted: &str, seen: &str| wanted.is_empty() || wanted == seen;
        let source = &record.source;
        is(&self.tenant, &source.tenant)
            && is(&self.function, &source.function)
            && is(&self.worker, &source.worker)
            && self.sub_tenants.as_ref().is_none_or(|wanted| wanted.contains(&source.sub_tenant_hash))
            && (self.request.is_empty()
                || record.request.as_deref().is_some_and(|request| request.starts_with(&self.request)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::tests::line;

    #[test]
    fn everything_that_is_said_must_hold() {
        let record = line("x");
        let filter = Filter::default();
        assert!(filter.takes(&record));
        let of = |tenant: &str, function: &str, hash: &str, worker: &str, request: &str| Filter {
            tenant: tenant.into(),
            function: function.into(),
            sub_tenants: (!hash.is_empty()).then(|| vec!["s-0".into(), hash.into()]),
            worker: worker.into(),
            request: request.into(),
        };
        assert!(of("acme", "f", "s-1", "w-1", "a").takes(&record));
        let others = [
            of("other", "f", "s-1", "w-1", "a"),
            of("acme", "g", "s-1", "w-1", "a"),
            of("acme", "f", "s-2", "w-1", "a"),
            of("acme", "f", "s-1", "w-2", "a"),
            of("acme", "f", "s-1", "w-1", "b"),
        ];
        assert!(others.iter().all(|filter| !filter.takes(&record)));
        let idle = Record { request: None, ..line("x") };
        assert!(!of("", "", "", "", "a").takes(&idle) && of("", "", "", "w-1", "").takes(&idle));
    }
}
