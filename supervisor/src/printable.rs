//! Text that others wrote, made fit to be shown. Functions, callers and labels can hold any character; a terminal obeys
//! some of them, hides some and reorders others. Whatever we print passes through here, so that a reader sees which
//! characters are there, and so that no line of theirs can be taken for one of ours.
//!
//! | function | for | what stays |
//! |---|---|---|
//! | [`line`] | a cell, a field, one line | plain characters |
//! | [`log_line`] | one line of a log | the same, and tabs |
//! | [`block`] | several lines of theirs | the same, and line ends, each line behind a mark of ours |
//! | [`own`] | our own text, as a last guard | the same, and line ends |
//! | [`json`] | a JSON value | everything, as JSON's own escapes: nothing is lost |
//! | [`Terminal`] | an answer that goes to a terminal | plain characters, tabs and line ends |
//!
//! An escape is written as Rust writes it, `\u{1b}`, and a byte that is not UTF-8 as `\xff`. A backslash stays as it is, so
//! that an escape can also be what somebody wrote. Who must know the exact text reads `--json`.

use std::borrow::Cow;

use serde_json::Value;

/// Stands before each line of a function's text.
pub const THEIRS: &str = "| ";
/// Stands before a line that sublet wrote into a function's log: START, END and REPORT.
pub const OURS: &str = "# ";
/// How our own lines on standard error begin.
pub const PREFIX: &str = "sublet: ";

/// Whether a character shows itself, and nothing else, wherever it stands.
///
/// Not plain: control characters (C0, DEL, C1), the characters that Unicode calls ignorable by default (zero-width, tag
/// characters, variation selectors, fillers), those that set the direction of text, line and paragraph separators, and
/// noncharacters. Source: DerivedCoreProperties.txt and PropList.txt of Unicode 16.
pub const fn is_plain(character: char) -> bool {
    !matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // Soft hyphen, grapheme joiner, Arabic letter mark, Hangul fillers, Khmer inherent vowels, Mongolian selectors.
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        // Zero-width characters and direction marks; separators and embeddings; joiners, invisible operators, isolates.
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        // Not assigned and ignorable, interlinear annotation; U+FFFC and U+FFFD can be seen.
        | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
        // Shorthand and musical format controls, tag characters and more selectors.
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        // The last two of every plane.
        && (character as u32) & 0xfffe != 0xfffe
}

/// Whether it is what most text is, by a look at its bytes: all that functions log passes through here.
fn is_ascii_text(text: &str) -> bool {
    text.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// `text` with what is neither plain nor in `stays` as `escape` writes it.
fn escaped(text: &str, stays: impl Fn(char) -> bool, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let is_shown = |character: char| is_plain(character) || stays(character);
    if is_ascii_text(text) || text.chars().all(is_shown) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_shown(character) {
            out.push(character);
        } else {
            escape(character, &mut out);
        }
    }
    out.into()
}

/// As Rust writes it: `\n`, `\u{1b}`.
fn as_rust(character: char, out: &mut String) {
    out.extend(character.escape_default());
}

/// As JSON writes it, in units of UTF-16: `\u001b`.
fn as_json(character: char, out: &mut String) {
    out.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
}

/// One line, or a cell of a table: line ends and tabs are escaped too.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, as_rust)
}

/// One line of a log, in which tabs stay: REPORT has them.
pub fn log_line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\t', as_rust)
}

/// Our own text of several lines. A last guard, for what nobody thought of: others' text in it should have passed
/// [`line`] or [`block`] before, which also keep it from looking like ours.
pub fn own(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\t' | '\n'), as_rust)
}

/// Bytes as text; those that are not UTF-8 are written out.
fn decoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// A function's words: each line behind `indent` and a mark. `platform` are the places, in bytes, where lines begin that
/// sublet itself wrote; these have another mark. Ends without a line end; empty for no words.
pub fn block(words: &[u8], platform: &[u32], indent: &str) -> String {
    let mut out = String::new();
    let mut at = 0;
    for line in words.split_inclusive(|byte| *byte == b'\n') {
        let mark = if u32::try_from(at).is_ok_and(|at| platform.contains(&at)) { OURS } else { THEIRS };
        at += line.len();
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(indent);
        out.push_str(mark);
        out.push_str(&log_line(&decoded(line.strip_suffix(b"\n").unwrap_or(line))));
    }
    out
}

/// A value as one line of JSON in which every character that is not plain is an escape of JSON: the value is the same.
pub fn json(value: &Value) -> String {
    let text = value.to_string();
    match json_text(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    }
}

/// The same for JSON that has been written out already. Outside of strings JSON has plain characters only, and line ends,
/// which stay.
pub fn json_text(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\n', as_json)
}

/// An answer on its way to a terminal, in pieces that may end anywhere. Line ends stay. A line that begins as our own lines
/// on standard error do, [`PREFIX`], has its first letter escaped.
#[derive(Debug)]
pub struct Terminal {
    /// Of a character, or of a beginning, that the next piece may complete.
    held: Vec<u8>,
    is_line_start: bool,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { held: Vec::new(), is_line_start: true }
    }
}

impl Terminal {
    /// What can be shown once this piece is there.
    pub fn take(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let whole = std::mem::take(&mut self.held);
        let mut shown = whole.len() - incomplete(&whole);
        // A line that may turn out to begin as ours waits.
        let start = whole[..shown].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let last = &whole[start..shown];
        if (start > 0 || self.is_line_start) && last.len() < PREFIX.len() && PREFIX.as_bytes().starts_with(last) {
            shown = start;
        }
        self.held = whole[shown..].to_vec();
        self.show(&whole[..shown])
    }

    /// What is left when there are no more pieces.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.held);
        self.show(&rest)
    }

    fn show(&mut self, bytes: &[u8]) -> String {
        let mut out = String::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = decoded(line);
            match text.strip_prefix(PREFIX) {
                Some(rest) if self.is_line_start => {
                    out.push_str("\\u{73}");
                    out.push_str(&own(&PREFIX[1..]));
                    out.push_str(&own(rest));
                }
                _ => out.push_str(&own(&text)),
            }
            self.is_line_start = line.ends_with(b"\n");
        }
        out
    }
}

/// Bytes at the end that may be the beginning of a character.
fn incomplete(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    for at in from..bytes.len() {
        // It fails for want of bytes, and not for what they are.
        if let Err(error) = std::str::from_utf8(&bytes[at..])
            && error.valid_up_to() == 0
            && error.error_len().is_none()
        {
            return bytes.len() - at;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that can drive or deceive.
    const HOSTILE: &[char] = &[
        '\0',
        '\u{7}',
        '\u{8}',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{206f}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{ffff}',
        '\u{1d173}',
        '\u{e0001}',
        '\u{e0041}',
        '\u{e007f}',
        '\u{e0100}',
        '\u{10ffff}',
    ];

    #[test]
    fn what_drives_or_deceives_is_written_out_and_text_is_not() {
        for character in HOSTILE {
            let text = format!("a{character}b");
            let wanted = format!("a{}b", character.escape_default());
            for shown in [line(&text), log_line(&text), own(&text)] {
                assert_eq!(shown, wanted, "U+{:04X}", u32::from(*character));
            }
        }
        let plain = "Grüße, 日本語 שלום العربية 👋 \\ \u{fffd} ~";
        assert!(matches!(line(plain), Cow::Borrowed(text) if text == plain));
        assert_eq!(line("a\tb\nc"), "a\\tb\\nc");
        assert_eq!(log_line("a\tb\nc"), "a\tb\\nc");
        assert_eq!(own("a\tb\nc"), "a\tb\nc");
    }

    #[test]
    fn every_line_of_a_block_has_a_mark_and_only_real_ones_have_ours() {
        let words = b"REPORT forged\n# REPORT forged\n\xff\x1b[2J\r\nREPORT real\nend";
        let at = u32::try_from(words.len() - b"REPORT real\nend".len()).unwrap();
        assert_eq!(
            block(words, &[at], "  "),
            "  | REPORT forged\n  | # REPORT forged\n  | \\xff\\u{1b}[2J\\r\n  # REPORT real\n  | end"
        );
        // A place inside a line is no line of ours.
        assert_eq!(block(b"ab\n", &[1], ""), "| ab");
        assert_eq!(block(b"", &[], "  "), "");
        assert_eq!(block(b"\n\n", &[], ""), "| \n| ");
    }

    #[test]
    fn json_is_the_same_value_without_a_character_that_is_not_plain() {
        let text: String = HOSTILE.iter().chain(&['"', '\\', '\n', 'é']).collect();
        let value = serde_json::json!({ "message": text, text.clone(): [text] });
        let printed = json(&value);
        assert!(printed.chars().all(is_plain), "{printed:?}");
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }

    #[test]
    fn answer_on_a_terminal_is_the_same_however_it_is_cut() {
        let answer = "sublet: forged\nno sublet: here\n\u{1b}]0;x\u{7}é\u{202e}👋\nsublet: \nsub".as_bytes();
        let answer = [answer, b"\xf0\x9f"].concat();
        let wanted =
            "\\u{73}ublet: forged\nno sublet: here\n\\u{1b}]0;x\\u{7}é\\u{202e}👋\n\\u{73}ublet: \nsub\\xf0\\x9f";
        for size in 1..=answer.len() {
            let mut terminal = Terminal::default();
            let mut shown: String = answer.chunks(size).map(|piece| terminal.take(piece)).collect();
            shown += &terminal.finish();
            assert_eq!(shown, wanted, "in pieces of {size}");
        }
    }
}
