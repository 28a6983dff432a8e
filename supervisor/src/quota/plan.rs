//! In which order limits are changed, so that no group is ever held against a parent that has not got there yet. Pure.

use sublet_proto::link::group::GroupPath;

use crate::cgroups::limits::{Knob, Limits};

/// One limit of one group to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Path of the group below the pool.
    pub path: GroupPath,
    /// Which limit.
    pub knob: Knob,
    /// What it was.
    pub old: Limits,
    /// What it is to be.
    pub new: Limits,
}

/// Everything that differs: first memory that is lowered, which a group in use may refuse and which no parent is held
/// against; then what is raised, from the top down; then all else that is lowered, from the bottom up. So what has to be
/// put back when something is refused was lowered, and raising is never refused.
pub fn plan(groups: impl IntoIterator<Item = (GroupPath, Limits, Limits)>) -> Vec<Write> {
    let (mut memory, mut raised, mut lowered) = (Vec::new(), Vec::new(), Vec::new());
    for (path, old, new) in groups {
        for knob in Knob::changed(&old, &new) {
            let write = Write { path: path.clone(), knob, old, new };
            match (knob.is_lowered(&old, &new), knob) {
                (true, Knob::MemoryMax) => memory.push(write),
                (true, _) => lowered.push(write),
                (false, _) => raised.push(write),
            }
        }
    }
    raised.sort_by_key(|write| std::cmp::Reverse(write.path.level()));
    for lowered in [&mut memory, &mut lowered] {
        lowered.sort_by_key(|write| write.path.level());
    }
    [memory, raised, lowered].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::limits::CpuQuota;

    fn cpu(millis: u64) -> Limits {
        Limits { cpu: Some(CpuQuota::new(millis, 20_000, 0)), ..Limits::default() }
    }

    fn at<const N: usize>(groups: [(&str, Limits, Limits); N]) -> [(GroupPath, Limits, Limits); N] {
        groups.map(|(path, old, new)| (GroupPath::try_from(path).unwrap(), old, new))
    }

    #[test]
    fn raises_go_down_the_tree_and_lowerings_up_after_them() {
        let groups = [
            ("t-a", cpu(1000), cpu(2000)),
            ("t-a/s-1", cpu(500), cpu(1500)),
            ("t-a/s-1/w-1", cpu(500), cpu(1500)),
            ("t-b", cpu(2000), cpu(1000)),
            ("t-b/s-2", cpu(2000), cpu(1000)),
            ("t-c", cpu(7), cpu(7)),
        ];
        let order: Vec<String> = plan(at(groups)).into_iter().map(|write| write.path.to_string()).collect();
        assert_eq!(order, ["t-a", "t-a/s-1", "t-a/s-1/w-1", "t-b/s-2", "t-b"]);
    }

    #[test]
    fn each_limit_goes_its_own_way() {
        let old = Limits { memory_max: Some(10), pids_max: Some(10), ..Limits::default() };
        let new = Limits { memory_max: Some(20), pids_max: Some(5), ..Limits::default() };
        let order: Vec<Knob> = plan(at([("t-a", old, new)])).into_iter().map(|write| write.knob).collect();
        assert_eq!(order, [Knob::MemoryMax, Knob::PidsMax]);
    }

    #[test]
    fn memory_that_is_lowered_goes_first() {
        let with = |memory_max, pids_max| Limits { memory_max, pids_max, ..Limits::default() };
        let groups = [
            ("t-a", with(Some(1), Some(1)), with(Some(2), Some(2))),
            ("t-b/s-1", with(Some(2), None), with(Some(1), None)),
        ];
        let order: Vec<(String, Knob)> =
            plan(at(groups)).into_iter().map(|write| (write.path.to_string(), write.knob)).collect();
        let expected = [("t-b/s-1", Knob::MemoryMax), ("t-a", Knob::MemoryMax), ("t-a", Knob::PidsMax)];
        assert_eq!(order, expected.map(|(path, knob)| (path.to_owned(), knob)));
    }
}
