//! Faults folded: a thousand equal ones are one line with a count. Pure.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sublet_pool::SubTenant;

/// Kinds that are kept; beyond, the one that did not happen for longest is forgotten.
pub const KINDS_MAX: usize = 2000;
/// Listeners are told of equal faults once in so long.
pub const TOLD_EVERY: Duration = Duration::from_secs(1);

/// What makes faults equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The function.
    pub function: Arc<str>,
    /// Whose call it was.
    pub sub_tenant: SubTenant,
    /// ErrorInfo's reason.
    pub reason: &'static str,
    /// Whose limit it was; empty where none is named.
    pub level: String,
    /// The setting; empty where none is named.
    pub setting: String,
}

/// What was seen of one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The limit.
    pub limit: String,
    /// The value.
    pub observed: String,
    /// The worker; empty where none was involved.
    pub worker: String,
    /// In words, with what callers are not told.
    pub message: String,
    /// What the caller of the last one was given to ask by; empty for calls that were not accepted.
    pub error_id: String,
}

/// Equal faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// What they have in common.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: SystemTime,
    /// The last.
    pub last: SystemTime,
    /// What was seen of the last.
    pub seen: Seen,
    /// When listeners were told, and at which count.
    told: Option<(SystemTime, u64)>,
}

/// All kinds of faults since the start.
#[derive(Debug, Default)]
pub struct Book {
    kinds: HashMap<Kind, Folded>,
    forgotten: u64,
}

impl Book {
    /// Takes one in. Returns it, with all that are equal, when listeners are to be told now.
    pub fn note(&mut self, now: SystemTime, kind: Kind, seen: Seen) -> Option<Folded> {
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS_MAX {
            self.forget();
        }
        let folded = self.kinds.entry(kind.clone()).or_insert_with(|| Folded {
            kind,
            count: 0,
            first: now,
            last: now,
            seen: Seen::default(),
            told: None,
        });
        folded.count += 1;
        folded.last = now;
        folded.seen = seen;
        let is_due = folded.told.is_none_or(|(at, _)| now.duration_since(at).is_ok_and(|since| since >= TOLD_EVERY));
        is_due.then(|| {
            folded.told = Some((now, folded.count));
            folded.clone()
        })
    }

    /// Those of which listeners have not been told the last count, and may be now.
    pub fn due(&mut self, now: SystemTime) -> Vec<Folded> {
        let is_due = |folded: &Folded| {
            folded.told.is_some_and(|(at, count)| {
                count < folded.count && now.duration_since(at).is_ok_and(|since| since >= TOLD_EVERY)
            })
        };
        let due = self.kinds.values_mut().filter(|folded| is_due(folded));
        due.map(|folded| {
            folded.told = Some((now, folded.count));
            folded.clone()
        })
        .collect()
    }

    /// All, the latest first.
    pub fn all(&self) -> Vec<Folded> {
        let mut all: Vec<Folded> = self.kinds.values().cloned().collect();
        all.sort_by_key(|folded| std::cmp::Reverse(folded.last));
        all
    }

    /// Faults of kinds that were forgotten.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Makes room: a tenth goes, those that did not happen for longest, so that a flood of kinds costs no search each.
    fn forget(&mut self) {
        let mut all: Vec<(SystemTime, Kind)> = self.kinds.values().map(|f| (f.last, f.kind.clone())).collect();
        all.sort_by_key(|(last, _)| *last);
        for (_, kind) in all.into_iter().take(KINDS_MAX / 10) {
            if let Some(folded) = self.kinds.remove(&kind) {
                self.forgotten += folded.count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(label: &str, reason: &'static str) -> Kind {
        Kind {
            tenant: "acme".into(),
            function: "f".into(),
            sub_tenant: SubTenant::try_from(label).unwrap(),
            reason,
            level: "worker".into(),
            setting: String::new(),
        }
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn equal_faults_are_one_and_told_once_a_second() {
        let mut book = Book::default();
        let told: Vec<u64> =
            (0..50).filter_map(|n| Some(book.note(at(n * 100), kind("a", "MEMORY"), Seen::default())?.count)).collect();
        assert_eq!(told, [1, 11, 21, 31, 41]);
        assert!(book.due(at(4950)).is_empty(), "too early");
        assert_eq!(book.due(at(5100))[0].count, 50);
        assert!(book.due(at(9000)).is_empty(), "nothing new");
        book.note(at(9000), kind("b", "MEMORY"), Seen::default());
        let all = book.all();
        assert_eq!(all.iter().map(|f| f.count).collect::<Vec<_>>(), [1, 50]);
        assert_eq!((all[1].first, all[1].last), (at(0), at(4900)));
    }

    #[test]
    fn kinds_are_bounded_and_the_oldest_are_forgotten() {
        let mut book = Book::default();
        for n in 0..KINDS_MAX as u64 + 1 {
            book.note(at(n), kind(&format!("s{n}"), "CRASH"), Seen::default());
        }
        assert!(book.all().len() <= KINDS_MAX);
        assert_eq!(book.forgotten(), KINDS_MAX as u64 / 10);
        assert!(book.all().iter().all(|f| f.last >= at(KINDS_MAX as u64 / 10)));
    }
}
