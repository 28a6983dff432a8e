//! Looks after the groups: whatever somebody else on the host does to them is noticed, named, and put right where that can be
//! done. What cannot be is what health shows for as long as it lasts.
//!
//! | seen | done |
//! |---|---|
//! | a limit written by hand | set again |
//! | a level frozen, a worker frozen or thawed | put right; a call that meets its deadline meanwhile is told why |
//! | a level's directory removed | made again, here or for the next worker in it |
//! | a worker's directory removed | the worker is ended, and its call is ours to answer for |
//! | the pool frozen or removed | nothing serves, and only root can help |

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sublet_pool::Selector;
use sublet_proto::link::group::GroupPath;

use super::Driver;
use crate::{
    cgroups::tree::{Finding, Meddling, PoolTrouble},
    worker::host::GroupTree,
};

/// How often freezing is looked at; limits in turn.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Groups whose limits are read in one look: a dozen small files each.
const GROUPS_PER_LOOK: usize = 32;

/// What is known of the groups.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// What could not be put right, by group and thing.
    left: Mutex<BTreeMap<(GroupPath, String), String>>,
    pool: Mutex<Option<PoolTrouble>>,
    mended: AtomicU64,
    /// The group whose limits were read last; none yet.
    last: Mutex<Option<GroupPath>>,
}

/// What was found and done since the start, for health.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// How often something was put right.
    pub mended: u64,
    /// What could not be.
    pub left: Vec<String>,
}

/// The groups after `last` in turn, at most `count`, once each. They are in order.
fn in_turn<'a, T: Ord>(names: &'a [T], last: Option<&T>, count: usize) -> Vec<&'a T> {
    let from = names.partition_point(|name| Some(name) <= last);
    names[from..].iter().chain(&names[..from]).take(count.min(names.len())).collect()
}

impl Guard {
    pub(super) fn pool(&self) -> Option<PoolTrouble> {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs what is new, and remembers what is left. `seen` are the groups that were looked at, and of what.
    fn note(&self, seen: &[(GroupPath, &'static str)], findings: &[Finding]) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *left);
        for finding in findings {
            let kind = kind(&finding.what);
            let key = (finding.path.clone(), format!("{kind} {}", name(&finding.what)));
            match &finding.left {
                None => {
                    self.mended.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!("{finding}");
                }
                Some(_) => {
                    if !before.contains_key(&key) {
                        tracing::error!("{finding}");
                    }
                    left.insert(key, finding.to_string());
                }
            }
        }
        let was_looked_at =
            |(path, thing): &(GroupPath, String)| seen.iter().any(|(own, kind)| own == path && thing.starts_with(kind));
        for (key, text) in before {
            if !was_looked_at(&key) {
                left.entry(key).or_insert(text);
            }
        }
    }
}

const LIMITS: &str = "limits";
const FREEZE: &str = "freeze";

fn kind(what: &Meddling) -> &'static str {
    match what {
        Meddling::Limit { .. } | Meddling::Removed { .. } => LIMITS,
        Meddling::Frozen | Meddling::Thawed => FREEZE,
    }
}

fn name(what: &Meddling) -> &str {
    match what {
        Meddling::Limit { file, .. } => file,
        Meddling::Removed { dir } => dir,
        Meddling::Frozen | Meddling::Thawed => "",
    }
}

impl Driver {
    /// What somebody else did to the groups.
    pub fn groups(&self) -> Groups {
        let left = self.guard.left.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        Groups { mended: self.guard.mended.load(Ordering::Relaxed), left }
    }

    /// Looks at all groups and puts right what can be. Reads a dozen files of each: not on a thread that calls are served by.
    pub fn audit(self: &Arc<Self>) -> Vec<Finding> {
        self.audit_some(usize::MAX)
    }

    fn audit_some(self: &Arc<Self>, count: usize) -> Vec<Finding> {
        let tree = &*self.services.tree;
        self.audit_pool(tree);
        let workers = self.workers();
        let mut findings = Vec::new();
        let mut seen = vec![(GroupPath::pool().clone(), FREEZE)];
        findings.extend(tree.audit_freeze(GroupPath::pool()));
        let names: Vec<GroupPath> = tree.all().into_iter().map(|(path, _)| path).collect();
        let leaves: BTreeMap<&GroupPath, _> =
            workers.iter().filter_map(|line| Some((line.worker.group()?.name(), &line.worker))).collect();
        for path in names.iter().filter(|path| !leaves.contains_key(path)) {
            seen.push((path.clone(), FREEZE));
            findings.extend(tree.audit_freeze(path));
        }
        for (path, worker) in &leaves {
            seen.push(((*path).clone(), FREEZE));
            let Some((what, mended)) = worker.audit_freeze() else { continue };
            let finding = Finding { path: (*path).clone(), what, left: mended.err().map(|error| error.to_string()) };
            worker.note_meddling(finding.to_string());
            findings.push(finding);
        }
        let turn: Vec<&GroupPath> = {
            let mut last = self.guard.last.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = in_turn(&names, last.as_ref(), count);
            if let Some(next) = turn.last() {
                *last = Some((*next).clone());
            }
            turn
        };
        for path in std::iter::once(GroupPath::pool()).chain(turn) {
            seen.push((path.clone(), LIMITS));
            let found = tree.audit(path);
            if let Some(lost) = found.iter().find(|finding| matches!(finding.what, Meddling::Removed { .. }))
                && let Some(worker) = leaves.get(path)
            {
                worker.lose(lost.to_string());
                self.evict(&Selector::Worker(worker.id), true);
            }
            findings.extend(found);
        }
        self.guard.note(&seen, &findings);
        findings
    }

    fn audit_pool(&self, tree: &dyn GroupTree) {
        let found = tree.pool_trouble();
        let before = std::mem::replace(&mut *self.guard.pool.lock().unwrap_or_else(PoisonError::into_inner), found);
        if found == before {
            return;
        }
        match found {
            Some(PoolTrouble::Removed) => {
                tracing::error!("somebody else has removed the group of all workers: none can be made; restart sublet");
            }
            Some(PoolTrouble::Frozen) => {
                tracing::error!(
                    "somebody else has frozen the group of all workers: no call is answered until root thaws it"
                );
            }
            None => tracing::warn!("the group of all workers is as it should be again"),
        }
        self.tell_standing();
    }
}

/// Looks for as long as the driver lives.
pub(super) async fn run(driver: Weak<Driver>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(driver) = driver.upgrade() else { return };
        // From here on it is the nursery that removes groups.
        if driver.stopping.load(Ordering::Relaxed) {
            return;
        }
        let looked = tokio::task::spawn_blocking(move || drop(driver.audit_some(GROUPS_PER_LOOK))).await;
        if let Err(error) = looked {
            tracing::error!(%error, "the groups cannot be looked at");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_its_turn_also_when_some_come_and_go() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let all = names("a b c d");
        assert_eq!(in_turn(&all, None, 3), ["a", "b", "c"]);
        assert_eq!(in_turn(&all, Some(&"c".to_owned()), 3), ["d", "a", "b"]);
        assert_eq!(in_turn(&names("a d e"), Some(&"c".to_owned()), 2), ["d", "e"]);
        assert_eq!(in_turn(&all, Some(&"z".to_owned()), usize::MAX), ["a", "b", "c", "d"]);
        assert!(in_turn(&[], Some(&"c"), 3).is_empty());
    }

    fn group(path: &str) -> GroupPath {
        GroupPath::try_from(path).unwrap()
    }

    fn finding(path: &str, what: Meddling, left: Option<&str>) -> Finding {
        Finding { path: group(path), what, left: left.map(str::to_owned) }
    }

    #[test]
    fn what_is_left_is_shown_until_a_look_at_it_finds_nothing() {
        let guard = Guard::default();
        let left = || guard.left.lock().unwrap().values().cloned().collect::<Vec<_>>();
        let frozen = finding("", Meddling::Frozen, Some("only root can thaw it"));
        guard.note(&[(group(""), FREEZE)], &[frozen.clone(), finding("t-a", Meddling::Frozen, None)]);
        assert_eq!(left(), [frozen.to_string()]);
        assert_eq!(guard.mended.load(Ordering::Relaxed), 1);
        // Neither another group nor another thing of the same one.
        guard.note(&[(group("t-a"), FREEZE), (group(""), LIMITS)], &[]);
        assert_eq!(left(), [frozen.to_string()]);
        guard.note(&[(group(""), FREEZE)], &[]);
        assert!(left().is_empty());
    }
}
