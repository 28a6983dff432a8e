//! Asks the processes of a function to end.

use std::{fs, path::Path};

use nix::{sys::signal::Signal, unistd::Pid};

use super::posture::PROCESSES_MAX;
use crate::sys;

/// Sends SIGTERM to every process of a group but `ours`, as far as [`PROCESSES_MAX`] goes. Returns how many got it.
pub fn ask_to_end(cgroup: &Path, ours: &[i32]) -> u32 {
    let members = || -> Vec<i32> {
        let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        text.lines().take(PROCESSES_MAX).filter_map(|pid| pid.parse().ok()).filter(|pid| !ours.contains(pid)).collect()
    };
    let opened: Vec<_> =
        members().into_iter().filter_map(|pid| Some((pid, sys::open_pidfd(Pid::from_raw(pid)).ok()?))).collect();
    // A number that was another's by the time it was opened is not on the second list, or is one of the group's again.
    let still = members();
    let asked = opened
        .into_iter()
        .filter(|(pid, process)| still.contains(pid) && sys::signal_process(process, Signal::SIGTERM).is_ok());
    u32::try_from(asked.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Command, id},
    };

    use super::*;

    #[test]
    fn members_of_the_group_are_asked_to_end_and_ours_are_not() {
        let dir = std::env::temp_dir().join(format!("sublet-ask-{}", id()));
        fs::create_dir_all(&dir).unwrap();
        let sleep = || Command::new("sleep").arg("60").spawn().unwrap();
        let (mut asked, mut spared) = (sleep(), sleep());
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        fs::write(dir.join("cgroup.procs"), format!("{}\n{}\n", asked.id(), spared.id())).unwrap();
        assert_eq!(ask_to_end(&dir, &[pid(&spared)]), 1);
        assert_eq!(asked.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert!(spared.try_wait().unwrap().is_none(), "it goes on");
        // Its number is nobody's any more.
        assert_eq!(ask_to_end(&dir, &[pid(&spared)]), 0);
        spared.kill().unwrap();
        spared.wait().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
