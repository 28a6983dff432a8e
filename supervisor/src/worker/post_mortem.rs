//! What is known of a worker when nothing of it is left, and how its process ended.

use nix::sys::signal::Signal;
use sublet_proto::link::nursery::TmpSpace;

use crate::cgroups::bite::Bite;

/// How the function's process ended, as init saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionEnd {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// What was left in /tmp.
    pub tmp: Option<TmpSpace>,
}

/// What is known of a worker when nothing of it is left. Bites are those since its last call was delivered.
#[derive(Clone, Debug, Default)]
pub struct PostMortem {
    /// Whose memory limit killed one of its processes, when one did.
    pub memory_bite: Option<Bite>,
    /// Whose limit of processes refused it a fork, when one did.
    pub pids_bite: Option<Bite>,
    /// Highest memory in bytes.
    pub memory_peak_bytes: u64,
    /// How the function ended, when init could tell.
    pub function: Option<FunctionEnd>,
    /// Signal that ended init, when one did.
    pub init_signal: Option<i32>,
    /// SIGKILL has ended init before anybody of ours sent it one. Nothing in the sandbox can.
    pub was_killed_from_outside: bool,
}

/// The name people know a signal by, with its number.
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| format!("signal {number} ({name})"))
}

impl PostMortem {
    /// How the worker ended, in words.
    pub fn exit(&self) -> String {
        let signal = signal_name;
        match (self.function, self.init_signal) {
            (Some(FunctionEnd { signal: Some(number), .. }), _) => signal(number),
            (Some(FunctionEnd { code: Some(code), .. }), _) => format!("status {code}"),
            (_, Some(number)) => signal(number),
            (_, None) => "unknown".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_is_told_by_the_function_and_only_without_it_by_init() {
        let end = |code, signal| Some(FunctionEnd { code, signal, tmp: None });
        let exit = |function, init_signal| PostMortem { function, init_signal, ..PostMortem::default() }.exit();
        assert_eq!(exit(end(None, Some(11)), Some(9)), "signal 11 (SIGSEGV)");
        assert_eq!(exit(end(Some(3), None), Some(9)), "status 3");
        assert_eq!(exit(end(None, None), Some(9)), "signal 9 (SIGKILL)");
        assert_eq!(exit(None, Some(9)), "signal 9 (SIGKILL)");
        assert_eq!(exit(None, None), "unknown");
        assert_eq!(signal_name(200), "signal 200");
    }
}
