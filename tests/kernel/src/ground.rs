//! Where the tests run, and what can be shown there.

use std::{fmt, fs, path::Path, process::Command};

use crate::{lambda, supervisor};

/// What a case needs of its ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Landlock of version 5 (Linux 6.10) or later, which knows the ioctls of devices.
    LandlockDevices,
    /// Inodes of a worker's own, by overlays. Without them the filters take flock and inotify away.
    Inodes,
    /// Time namespaces.
    Time,
    /// CPU quotas.
    Cpu,
    /// Limits on cgroup v1.
    Hybrid,
    /// A stock client of the Lambda Runtime API, by its directory's name.
    Client(&'static str),
    /// More time than an emulated machine gives.
    Speed,
    /// A vsyscall page that is this kernel's own.
    Vsyscall,
    /// Cores that go into files where a process crashes, and to no program of the host.
    Cores,
    /// Keyrings.
    Keys,
    /// Addresses that differ from one program to the next.
    Addresses,
    /// A Java virtual machine in /usr.
    Java,
}

/// This ground.
#[derive(Debug)]
pub struct Ground {
    kernel: String,
    cgroups: String,
    degraded: Vec<String>,
    /// Version of landlock; 0 where there is none.
    landlock: u32,
    /// Emulated: everything takes many times as long.
    pub is_slow: bool,
}

impl Ground {
    /// Asks `sublet doctor`.
    pub fn find() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let output = Command::new(supervisor::program()).args(["doctor", "--json"]).output();
        let report: serde_json::Value =
            output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let cgroups = checks.iter().find(|c| c["name"] == "cgroups").map(|c| text(&c["value"])).unwrap_or_default();
        let landlock = checks.iter().find(|c| c["name"] == "landlock").map(|c| text(&c["value"])).unwrap_or_default();
        let landlock = landlock.strip_prefix("version ").and_then(|number| number.parse().ok()).unwrap_or(0);
        let degraded = (checks.iter().filter(|c| c["state"] == "degraded"))
            .map(|c| match text(&c["name"]).as_str() {
                "landlock" => "landlock".to_owned(),
                "time namespaces" => "time".to_owned(),
                "cpu limit" => "cpu".to_owned(),
                "swap limit" => "swap".to_owned(),
                other => other.to_owned(),
            })
            .collect();
        let is_slow = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("User Mode Linux"));
        Self { kernel, cgroups, degraded, landlock, is_slow }
    }

    /// Whether limits are on cgroup v1.
    pub fn is_hybrid(&self) -> bool {
        self.cgroups.contains("hybrid")
    }

    /// Whether the launcher of a stream function stays to relay its frames: before Linux 6.16.
    pub fn relays(&self) -> bool {
        let mut numbers = self.kernel.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) < (Some(6), Some(16))
    }

    /// What this host lacks and a configuration has to accept.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// The reason when a need is not met.
    pub fn lacks(&self, need: Need) -> Option<&'static str> {
        match need {
            Need::LandlockDevices if self.landlock < 5 => Some("no landlock for devices"),
            Need::Inodes if self.degraded.iter().any(|name| name == "inodes") => Some("no overlay in a user namespace"),
            Need::Time if self.degraded.iter().any(|name| name == "time") => Some("no time namespaces"),
            Need::Cpu if self.degraded.iter().any(|name| name == "cpu") => Some("no CPU limit"),
            Need::Hybrid if !self.is_hybrid() => Some("limits are not on cgroup v1"),
            Need::Client("python") if !lambda::clients().join("python/awslambdaric").is_dir() => {
                Some("no awslambdaric")
            }
            Need::Client("node") if !lambda::clients().join("node/node_modules").is_dir() => Some("no aws-lambda-ric"),
            Need::Client("shell") if !lambda::clients().join("shell").is_dir() => Some("no curl"),
            Need::Speed if self.is_slow => Some("emulated"),
            Need::Addresses if self.is_slow => Some("User Mode Linux does not randomise addresses"),
            Need::Vsyscall if self.is_slow => Some("User Mode Linux leaves the vsyscall page to its host"),
            Need::Vsyscall if !has_vsyscall_page() => Some("no vsyscall page"),
            Need::Cores if !cores_are_files() => Some("cores go to a program of the host"),
            Need::Keys if !Path::new("/proc/keys").exists() => Some("no keyrings"),
            Need::Java if !Path::new("/usr/bin/java").exists() => Some("no java"),
            Need::LandlockDevices | Need::Inodes | Need::Time | Need::Cpu | Need::Hybrid => None,
            Need::Client(_)
            | Need::Speed
            | Need::Addresses
            | Need::Vsyscall
            | Need::Cores
            | Need::Keys
            | Need::Java => None,
        }
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = if self.degraded.is_empty() { "nothing".to_owned() } else { self.degraded.join(", ") };
        write!(f, "kernel {}, cgroups {}, not enforced: {missing}", self.kernel, self.cgroups)
    }
}

fn has_vsyscall_page() -> bool {
    fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("[vsyscall]"))
}

fn cores_are_files() -> bool {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    pattern.starts_with("core")
}
