//! What is wrong with the supervisor or its host right now: told once in the log when it begins and when it is over, and in
//! health for as long as it lasts.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What may be in trouble, each told by the one part of the supervisor that looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The state directory, the lock in it, the sockets, the nursery's scratch.
    Places,
    /// The nursery does not answer.
    Nursery,
    /// Functions' lines cannot be written.
    Log,
    /// The host has no descriptors left for us.
    Descriptors,
    /// Workers cannot be made, and no function is to blame.
    Starts,
    /// Something cannot be removed.
    Removal,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<About, Vec<String>>>);

impl Troubles {
    fn all_by_subject(&self) -> MutexGuard<'_, BTreeMap<About, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with it now; nothing: all is well again. Returns what was not known yet.
    pub fn set(&self, about: About, now: Vec<String>) -> Vec<String> {
        let mut all = self.all_by_subject();
        let before = if now.is_empty() { all.remove(&about) } else { all.insert(about, now.clone()) };
        drop(all);
        let before = before.unwrap_or_default();
        let new: Vec<String> = now.iter().filter(|what| !before.contains(what)).cloned().collect();
        for what in &new {
            tracing::error!("{what}");
        }
        if now.is_empty() && !before.is_empty() {
            tracing::info!("over: {}", before.join("; "));
        }
        new
    }

    /// All that is wrong.
    pub fn all(&self) -> Vec<String> {
        self.all_by_subject().values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_anew_only_when_it_is_new_and_lasts_until_it_is_over() {
        let troubles = Troubles::default();
        let text = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(troubles.set(About::Places, text(&["a"])), ["a"]);
        assert_eq!(troubles.set(About::Places, text(&["a"])), [""; 0]);
        assert_eq!(troubles.set(About::Places, text(&["a", "b"])), ["b"]);
        troubles.set(About::Starts, text(&["c"]));
        assert_eq!(troubles.all(), ["a", "b", "c"]);
        troubles.set(About::Places, Vec::new());
        assert_eq!(troubles.all(), ["c"]);
        troubles.set(About::Starts, Vec::new());
        assert_eq!(troubles.all(), [""; 0]);
    }
}
