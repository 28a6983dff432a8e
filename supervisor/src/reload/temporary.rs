//! Limits that were changed for a time. Pure.

use std::time::SystemTime;

use crate::config::{LevelPath, Overlay};

/// One setting, and until when it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Temporary {
    /// Which setting, and its value.
    pub overlay: Overlay,
    /// It expires then.
    pub until: SystemTime,
}

/// All that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Temporaries(Vec<Temporary>);

impl Temporaries {
    /// With these, in the place of what the same settings had.
    pub fn with(&self, overlays: Vec<Overlay>, until: SystemTime) -> Self {
        let is_replaced =
            |old: &Temporary| overlays.iter().any(|new| (&new.path, &new.key) == (&old.overlay.path, &old.overlay.key));
        let kept = self.0.iter().filter(|old| !is_replaced(old)).cloned().collect::<Vec<_>>();
        let new = overlays.iter().map(|overlay| Temporary { overlay: overlay.clone(), until });
        Self(kept.into_iter().chain(new).collect())
    }

    /// Without those of a level, or of one setting of it; and those taken out.
    pub fn without(&self, path: Option<&LevelPath>, key: Option<&str>) -> (Self, Vec<Temporary>) {
        let is_meant = |one: &&Temporary| {
            path.is_none_or(|path| one.overlay.path == *path) && key.is_none_or(|key| one.overlay.key == key)
        };
        let (gone, kept): (Vec<&Temporary>, Vec<&Temporary>) = self.0.iter().partition(is_meant);
        (Self(kept.into_iter().cloned().collect()), gone.into_iter().cloned().collect())
    }

    /// Without those that have expired by `now`; and those.
    pub fn expired(&self, now: SystemTime) -> (Self, Vec<Temporary>) {
        let (gone, kept): (Vec<&Temporary>, Vec<&Temporary>) = self.0.iter().partition(|one| one.until <= now);
        (Self(kept.into_iter().cloned().collect()), gone.into_iter().cloned().collect())
    }

    /// As settings, in the order they were made.
    pub fn overlays(&self) -> Vec<Overlay> {
        self.0.iter().map(|one| one.overlay.clone()).collect()
    }

    /// That of a setting, if there is one.
    pub fn find(&self, path: &LevelPath, key: &str) -> Option<&Temporary> {
        self.0.iter().find(|one| one.overlay.path == *path && one.overlay.key == key)
    }

    /// When the next one expires.
    pub fn next(&self) -> Option<SystemTime> {
        self.0.iter().map(|one| one.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn overlay(path: &str, key: &str, value: &str) -> Overlay {
        Overlay { path: LevelPath::try_from(path).unwrap(), key: key.into(), value: value.into() }
    }

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn later_one_replaces_an_earlier_one_of_the_same_setting() {
        let first = Temporaries::default().with(vec![overlay("host", "workers_max", "1")], at(10));
        let both = first.with(vec![overlay("tenant/a", "weight", "2"), overlay("host", "workers_max", "3")], at(20));
        let values: Vec<_> = both.overlays().iter().map(ToString::to_string).collect();
        assert_eq!(values, ["tenant.a.weight = 2", "host.workers_max = 3"]);
        assert_eq!(both.next(), Some(at(20)));
    }

    #[test]
    fn each_expires_by_itself_and_may_be_taken_back_before() {
        let path = LevelPath::try_from("tenant/a").unwrap();
        let all = Temporaries::default()
            .with(vec![overlay("tenant/a", "weight", "1"), overlay("tenant/a", "rate", "1/s")], at(10))
            .with(vec![overlay("host", "workers_max", "1")], at(20));
        let (kept, gone) = all.expired(at(10));
        assert_eq!((kept.overlays().len(), gone.len()), (1, 2));
        let (kept, gone) = all.without(Some(&path), Some("rate"));
        assert_eq!((kept.overlays().len(), gone[0].overlay.key.as_str()), (2, "rate"));
        assert_eq!(all.without(None, None).0, Temporaries::default());
        assert_eq!(all.find(&path, "weight").map(|one| one.until), Some(at(10)));
    }
}
