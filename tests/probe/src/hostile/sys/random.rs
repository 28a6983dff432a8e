//! A process that makes random system calls.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use sublet_proto::link::CHANNEL_FD;

/// What has become of the calls, in memory that parent and children share.
#[derive(Debug, Default)]
pub struct Counters {
    made: AtomicU64,
    worked: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    /// New ones, until the process ends.
    pub fn shared() -> nix::Result<&'static Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // WHY UNSAFE: memory that is shared with children has no owner in Rust.
        // SAFETY: the page is zeros, which are valid counters, is aligned, and is never unmapped by us.
        unsafe {
            match libc::mmap(std::ptr::null_mut(), size_of::<Self>(), protection, flags, -1, 0) {
                libc::MAP_FAILED => Err(Errno::last()),
                page => Ok(&*page.cast::<Self>()),
            }
        }
    }

    /// Calls that were begun.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Calls that succeeded.
    pub fn worked(&self) -> u64 {
        self.worked.load(Ordering::Relaxed)
    }

    /// Calls that returned an error.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Numbers of calls that every kernel of these years has.
const KNOWN: u64 = 470;
/// They only end this process, or go on in its stack.
const LEFT_OUT: [u64; 4] = [15, 58, 60, 231];
const SCRATCH: usize = 64 * 1024;

/// Xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

extern "C" fn nothing(_: i32) {}

/// Makes random calls until `limit` of them were made by all, and ends.
pub fn storm(seed: u64, limit: u64, counters: &Counters) -> ! {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let every = libc::timeval { tv_sec: 0, tv_usec: 2000 };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // WHY UNSAFE: random calls are what this is for.
    // SAFETY: none. This is a child that is made to be destroyed: it may write over its own memory, and ends by a signal then.
    // It uses nothing of the parent's but the counters, which are numbers and no more.
    unsafe {
        // A broken channel would end the worker, and shows nothing.
        libc::close(CHANNEL_FD);
        // A call that waits is interrupted.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let scratch = libc::mmap(std::ptr::null_mut(), SCRATCH, protection, flags, -1, 0) as u64;
        let paths =
            [c"/tmp/random", c"/proc/self/mem", c"/usr/bin/env", c"/dev/zero", c"/tmp"].map(|p| p.as_ptr() as u64);
        while counters.made() < limit {
            let number = match next(&mut state) % 16 {
                0 => next(&mut state) & 0xffff_ffff,
                1 => 0x4000_0000 + next(&mut state) % 600,
                _ => next(&mut state) % KNOWN,
            };
            if LEFT_OUT.contains(&number) {
                continue;
            }
            let mut arguments = [0_u64; 6];
            for argument in &mut arguments {
                let random = next(&mut state);
                *argument = match random % 12 {
                    0 | 1 => (random >> 32) & 0xf,
                    2 => 0,
                    3 => u64::MAX,
                    4 | 5 => scratch + (random >> 32) % SCRATCH as u64,
                    6 => scratch,
                    7 => paths[(random >> 32) as usize % paths.len()],
                    8 => 1 << ((random >> 32) & 63),
                    9 => 4096 << ((random >> 32) & 7),
                    10 => (random >> 32) & 0xffff,
                    _ => next(&mut state),
                };
            }
            counters.made.fetch_add(1, Ordering::Relaxed);
            let [a, b, c, d, e, f] = arguments;
            let result = libc::syscall(number as i64, a, b, c, d, e, f);
            let of = if result == -1 { &counters.refused } else { &counters.worked };
            of.fetch_add(1, Ordering::Relaxed);
        }
        libc::_exit(0)
    }
}
