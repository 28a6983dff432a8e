//! The unsafe corner of the sweep: one memory that parent and child share, and raw system calls.

#![allow(unsafe_code)]

use std::{io, ptr::NonNull};

use nix::{sys::wait::WaitStatus, unistd::ForkResult};

/// Answers of a child, one for each question, in memory that both processes see.
#[derive(Debug)]
pub struct Answers {
    start: NonNull<i32>,
    len: usize,
}

impl Answers {
    /// Room for `len` answers, each -1.
    pub fn new(len: usize) -> io::Result<Self> {
        let bytes = len.max(1) * size_of::<i32>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // WHY UNSAFE: std has no shared memory.
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at null"))?;
        let answers = Self { start, len };
        for at in 0..len {
            answers.set(at, -1);
        }
        Ok(answers)
    }

    /// Writes one.
    pub fn set(&self, at: usize, answer: i32) {
        assert!(at < self.len);
        // WHY UNSAFE: memory that another process sees as well.
        // SAFETY: inside the mapping, aligned; the parent reads after the child has ended.
        unsafe { self.start.add(at).write_volatile(answer) }
    }

    /// Reads one.
    pub fn get(&self, at: usize) -> i32 {
        assert!(at < self.len);
        // WHY UNSAFE: as in `set`.
        // SAFETY: as in `set`.
        unsafe { self.start.add(at).read_volatile() }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // WHY UNSAFE: std has no shared memory.
        // SAFETY: what `new` mapped, and nobody borrows from it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1) * size_of::<i32>()) };
    }
}

/// One system call as it stands: its errno, or 0.
pub fn call(number: i64, arguments: &[u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = *arguments;
    // WHY UNSAFE: the numbers are the test's.
    // SAFETY: called under filters that let no call be done but exit_group and seccomp, neither of which touches memory
    // here.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { nix::errno::Errno::last_raw() } else { 0 }
}

/// getpid by the 32-bit ABI.
pub fn foreign_call() -> i32 {
    let mut result: i32 = 20;
    // WHY UNSAFE: there is no other way to make a call of this kind.
    // SAFETY: getpid takes no arguments and touches no memory; int 0x80 preserves all other registers but r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

/// Runs `body` in a copy of this process and waits for its end.
pub fn in_child(body: impl FnOnce()) -> nix::Result<WaitStatus> {
    // WHY UNSAFE: of a process with threads only the calling one goes on in the child.
    // SAFETY: `body` takes no lock and allocates nothing: it makes system calls and writes answers.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => {
            body();
            // SAFETY: takes any number and does not return.
            unsafe { libc::_exit(99) }
        }
        ForkResult::Parent { child } => nix::sys::wait::waitpid(child, None),
    }
}
