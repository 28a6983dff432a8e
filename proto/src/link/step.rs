//! The steps of init and of the launcher, by name. A failed step is judged by its name; its words are for people. A step
//! of the nursery that fails is answered with `Refused` and needs no name.

use serde::{Deserialize, Serialize};

/// Which step of a plan. The plan itself, with what each step does, is `sublet_shim::plan`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepId {
    /// Init joins its v1 groups.
    JoinV1Groups,
    /// Init waits for the id maps.
    AwaitMaps,
    /// Init makes its cgroup and time namespaces.
    UnshareCgroupAndTime,
    /// Init sets the clocks of the time namespace.
    SetClocks,
    /// Init makes all mounts private.
    PrivatePropagation,
    /// Init mounts the base of the new root.
    MountRoot,
    /// Init mounts the host's /usr.
    MountUsr,
    /// Init mounts /dev.
    MountDev,
    /// Init mounts the function's directory.
    MountFunction,
    /// Init mounts /proc and /sys.
    MountProcAndSys,
    /// Init mounts /tmp.
    MountTmp,
    /// Init mounts the place of the token.
    MountToken,
    /// Init sets the maxima of the user namespace.
    LimitCounters,
    /// Init raises its oom score.
    RaiseOomScore,
    /// Init makes the new root `/`.
    PivotRoot,
    /// Init sets the host name.
    SetHostName,
    /// Init brings the loopback interface up.
    LoopbackUp,
    /// Init starts a session and a session keyring.
    NewSession,
    /// Init forks the launcher.
    ForkLauncher,
    /// Init gives up its rights.
    ConfineInit,
    /// The launcher places its descriptors and closes all others.
    PlaceDescriptors,
    /// The launcher sets its resource limits.
    SetRlimits,
    /// The launcher switches to the function's uid.
    SwitchUid,
    /// The launcher empties its capability sets.
    DropCapabilities,
    /// The launcher sets no_new_privs.
    NoNewPrivs,
    /// The launcher forbids itself kinds of speculation.
    LimitSpeculation,
    /// The launcher restricts files by landlock.
    Landlock,
    /// The launcher tries what only landlock refuses.
    ProveLandlock,
    /// The launcher tries what only the maxima of the user namespace refuse.
    ProveCounters,
    /// The launcher looks for a key of the nursery.
    ProveKeyring,
    /// The launcher installs its system call filters.
    Seccomp,
    /// The launcher waits until init is confined.
    AwaitInit,
    /// The launcher says CONFINED and waits for START.
    AwaitStart,
    /// The launcher becomes the function, or serves it.
    Run,
}

impl StepId {
    /// Whether the step mounts something on a directory that the root must have. A root prepared by the operator can lack
    /// one; that is then the root's fault and not the host's.
    pub const fn needs_mount_point(self) -> bool {
        matches!(
            self,
            Self::MountRoot
                | Self::MountUsr
                | Self::MountDev
                | Self::MountProcAndSys
                | Self::MountTmp
                | Self::MountToken
        )
    }
}
