//! A part of a log that goes with an answer, a verdict or a description: bytes, and which of its lines are sublet's own.

use bytes::Bytes;

/// Places of own lines that are kept of one part. A call has three.
const PLATFORM_MAX: usize = 16;

/// The part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// As they were written.
    pub bytes: Bytes,
    /// Where lines begin that sublet wrote, in bytes from the beginning, in order. The bytes alone do not tell: a function
    /// can write the same.
    pub platform_lines: Vec<u32>,
}

impl Words {
    /// The last `most` bytes of it. A line of sublet's own that has lost its beginning does not count as one any more.
    pub fn last(mut self, most: usize) -> Self {
        let cut = self.bytes.len().saturating_sub(most);
        let moved = |at: u32| u32::try_from((at as usize).checked_sub(cut)?).ok();
        self.platform_lines = self.platform_lines.into_iter().filter_map(moved).collect();
        let over = self.platform_lines.len().saturating_sub(PLATFORM_MAX);
        self.platform_lines.drain(..over);
        Self { bytes: self.bytes.slice(cut..), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_move_with_what_is_cut_off() {
        let words = Words { bytes: "START\nabc\nEND\n".into(), platform_lines: vec![0, 10] };
        assert_eq!(words.clone().last(100), words);
        let wanted = Words { bytes: "bc\nEND\n".into(), platform_lines: vec![3] };
        assert_eq!(words.clone().last(7), wanted);
        assert_eq!(words.last(3).platform_lines, [] as [u32; 0], "half of one of ours is none");
    }
}
