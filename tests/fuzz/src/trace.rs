//! Recorded traces, which may come from another host.

use sublet_what_if::{Reader, Row, TIME_MAX_US, TraceError, Writer};

use crate::target;

fn rows(bytes: &[u8]) -> Result<Vec<Row>, TraceError> {
    Reader::new(bytes)?.collect()
}

#[test]
fn trace_is_refused_by_line_or_written_again_as_it_was() {
    target!(8192).for_each(|input: &[u8]| match rows(input) {
        Ok(rows) => {
            assert!(rows.is_sorted_by_key(|row| row.at_us));
            assert!(rows.iter().all(|row| row.at_us.max(row.service_us) <= TIME_MAX_US));
            assert!(rows.iter().all(|row| !row.tenant.is_empty() && !row.function.is_empty()));
            let mut writer = Writer::new(Vec::new()).expect("memory takes it");
            for row in &rows {
                writer.write(row).expect("memory takes it");
            }
            let written = writer.finish().expect("memory takes it");
            assert!(self::rows(&written).is_ok_and(|again| again == rows));
        }
        Err(error) => {
            let told = error.to_string();
            assert!(told.starts_with("line "), "{told}");
            assert!(!told.chars().any(char::is_control) && told.chars().count() < 1000, "{told:?}");
        }
    });
}

/// The rows a reader gives before the broken one are no more than there are lines.
#[test]
fn nothing_comes_after_a_broken_row() {
    target!(8192).for_each(|input: &[u8]| {
        let Ok(mut reader) = Reader::new(input) else { return };
        let mut is_over = false;
        for row in reader.by_ref().take(10_000) {
            assert!(!is_over);
            is_over = row.is_err();
        }
        assert!(reader.next().is_none());
    });
}
