//! The hash by which revisions and code are told apart.

/// FNV-1a, 64 bit (RFC 9923): a dozen lines, the same on every machine, and nobody gains from a collision but the
/// operator who writes the file.
pub struct Fnv(u64);

impl Fnv {
    /// Of nothing yet.
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes more bytes in.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash of all that was taken in.
    pub const fn finish(self) -> u64 {
        self.0
    }
}

/// A hash as operators see it: eight hexadecimal digits.
pub fn short(hash: u64) -> String {
    // Both halves take part: FNV mixes its high bits better than its low ones.
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}
