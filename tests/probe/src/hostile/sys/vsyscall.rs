//! The page that older programs call instead of the kernel. It is at the same address in every process, and the kernel answers
//! for what is called there.

use nix::errno::Errno;

/// A call of the page.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    name: &'static str,
    address: usize,
    /// The system call that it stands for.
    pub number: libc::c_long,
}

/// All there are.
const CALLS: [Call; 3] = [
    Call { name: "gettimeofday", address: 0xffff_ffff_ff60_0000, number: libc::SYS_gettimeofday },
    Call { name: "time", address: 0xffff_ffff_ff60_0400, number: libc::SYS_time },
    Call { name: "getcpu", address: 0xffff_ffff_ff60_0800, number: libc::SYS_getcpu },
];

/// The call of a name.
pub fn find(name: &str) -> Option<Call> {
    CALLS.into_iter().find(|call| call.name == name)
}

/// Makes it. There must be such a page.
pub fn call(call: Call) -> nix::Result<()> {
    type Function = extern "C" fn(*mut u64, *mut u64, *mut u64) -> i64;
    let mut places = [0_u64; 6];
    let [first, second, third] = [0, 2, 4].map(|at| (&raw mut places[at]));
    // WHY UNSAFE: the function is an address, which every kernel with that page has had since 2002.
    // SAFETY: none of the three writes more than 16 bytes to any of its arguments, and each has as many.
    let result = unsafe { std::mem::transmute::<usize, Function>(call.address)(first, second, third) };
    if (-4095..0).contains(&result) { Err(Errno::from_raw(-result as i32)) } else { Ok(()) }
}
