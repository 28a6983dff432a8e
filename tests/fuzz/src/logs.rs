//! What functions write to their log, as lines and as a Lambda client's records.

use sublet_shim::fuzz::log_records;
use sublet_supervisor::logs::lines::{LINE_MAX_BYTES, Lines};

use crate::target;

/// Lines and parts of lines that came of these pieces, with whether they are cut.
fn lines(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
    let (mut lines, mut seen) = (Lines::default(), Vec::new());
    for piece in pieces {
        lines.take_in(piece, |line| seen.push((line.bytes.to_vec(), line.is_cut)));
    }
    lines.flush(|line| seen.push((line.bytes.to_vec(), line.is_cut)));
    seen
}

/// The same bytes in one piece and in three.
type WholeAndCut<'a> = ([&'a [u8]; 1], [&'a [u8]; 3]);

/// The input from its third byte on, once whole and once cut where the first two say.
fn whole_and_cut(input: &[u8]) -> Option<WholeAndCut<'_>> {
    let (at, bytes) = input.split_first_chunk::<2>()?;
    let (rest, last) = bytes.split_at(bytes.len() - bytes.len() * usize::from(at[1]) / 512);
    let (first, second) = rest.split_at(rest.len() * usize::from(at[0]) / 256);
    Some(([bytes], [first, second, last]))
}

#[test]
fn lines_are_the_same_however_they_come_and_lose_nothing() {
    target!(64 * 1024).for_each(|input: &[u8]| {
        let Some((whole, cut)) = whole_and_cut(input) else { return };
        let (of_whole, of_cut) = (lines(&whole), lines(&cut));
        assert!(of_whole == of_cut);
        assert!(of_whole.iter().all(|(part, _)| part.len() <= LINE_MAX_BYTES && !part.contains(&b'\n')));
        // Put together again it is what was written, but for the carriage return before an end.
        let mut again = Vec::new();
        for (part, is_cut) in &of_whole {
            again.extend_from_slice(part);
            if !is_cut {
                again.push(b'\n');
            }
        }
        let mut written: Vec<Vec<u8>> = whole[0].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let last = written.pop().unwrap_or_default();
        let stripped = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        let mut expected: Vec<u8> = written.iter().flat_map(|line| [stripped(line), vec![b'\n']].concat()).collect();
        if !last.is_empty() {
            expected.extend([stripped(&last), vec![b'\n']].concat());
        }
        assert!(again == expected);
    });
}

#[test]
fn records_are_the_same_however_they_come_and_make_no_more_than_they_are() {
    target!(64 * 1024).for_each(|input: &[u8]| {
        let Some((whole, cut)) = whole_and_cut(input) else { return };
        let of_whole = log_records(whole);
        assert!(of_whole == log_records(cut));
        // A record has 16 bytes of header and makes one line end; nothing else is added.
        assert!(of_whole.len() <= whole[0].len());
        // One record is one line: a line end inside of one is a carriage return in the log.
        let records = of_whole.iter().filter(|byte| **byte == b'\n').count();
        assert!(records <= whole[0].len() / 16);
    });
}
