//! Lines out of bytes that come as they come.

/// Longest line in bytes. What is longer is given out in parts.
pub const LINE_MAX_BYTES: usize = 16 * 1024;

/// Puts lines together.
#[derive(Debug, Default)]
pub struct Lines {
    /// Of a line that has not ended yet.
    begun: Vec<u8>,
}

/// A line, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Without its end.
    pub bytes: &'a [u8],
    /// Whether the next one goes on with it.
    pub is_cut: bool,
}

impl Lines {
    /// Takes bytes in and gives out what they complete.
    pub fn take_in(&mut self, mut bytes: &[u8], mut give: impl FnMut(Line<'_>)) {
        while !bytes.is_empty() {
            let (now, rest, has_ended) = match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&bytes[..at], &bytes[at + 1..], true),
                None => (bytes, &[][..], false),
            };
            bytes = rest;
            if has_ended && self.begun.is_empty() && now.len() <= LINE_MAX_BYTES {
                give(Line { bytes: without_return(now), is_cut: false });
                continue;
            }
            self.begun.extend_from_slice(now);
            while self.begun.len() > LINE_MAX_BYTES {
                let at = boundary(&self.begun, LINE_MAX_BYTES);
                give(Line { bytes: &self.begun[..at], is_cut: true });
                self.begun.drain(..at);
            }
            if has_ended {
                give(Line { bytes: without_return(&self.begun), is_cut: false });
                self.begun.clear();
            }
        }
    }

    /// Gives out what has begun and will not be ended.
    pub fn flush(&mut self, mut give: impl FnMut(Line<'_>)) {
        if !self.begun.is_empty() {
            give(Line { bytes: without_return(&self.begun), is_cut: false });
            self.begun.clear();
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// At most `most`, and not inside a character of UTF-8.
fn boundary(bytes: &[u8], most: usize) -> usize {
    let is_inside = |at: &usize| bytes[*at] & 0xC0 == 0x80;
    (most - 3..=most).rev().find(|at| !is_inside(at)).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines, bytes: &[u8]) -> Vec<(String, bool)> {
        let mut seen = Vec::new();
        lines.take_in(bytes, |line| seen.push((String::from_utf8_lossy(line.bytes).into_owned(), line.is_cut)));
        seen
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        assert_eq!(all(&mut lines, b"one\ntw"), [("one".into(), false)]);
        assert_eq!(all(&mut lines, b"o\r\n\nthree"), [("two".into(), false), (String::new(), false)]);
        let mut rest = Vec::new();
        lines.flush(|line| rest.push(line.bytes.to_vec()));
        assert_eq!(rest, [b"three".to_vec()]);
        lines.flush(|_| panic!("it has been given out"));
    }

    #[test]
    fn long_line_comes_in_parts_that_do_not_split_characters() {
        let mut lines = Lines::default();
        let text = "é".repeat(LINE_MAX_BYTES);
        let mut seen = all(&mut lines, b"a");
        seen.extend(all(&mut lines, text.as_bytes()));
        seen.extend(all(&mut lines, b"\n"));
        assert!(
            seen.iter().all(|(part, _)| !part.contains(char::REPLACEMENT_CHARACTER) && part.len() <= LINE_MAX_BYTES)
        );
        assert_eq!(seen.iter().map(|(part, _)| part.as_str()).collect::<String>(), format!("a{text}"));
        let cuts: Vec<bool> = seen.iter().map(|(_, is_cut)| *is_cut).collect();
        assert_eq!(cuts, [true, true, false]);
    }

    #[test]
    fn bytes_that_are_no_text_are_cut_all_the_same() {
        let mut lines = Lines::default();
        let seen = all(&mut lines, &[0x80; LINE_MAX_BYTES + 1]);
        assert_eq!(seen.len(), 1);
    }
}
