//! The last records of all workers, in a bounded room. Readers keep their own place and learn what they have missed.

use std::{collections::VecDeque, sync::Arc};

use super::record::Record;

/// Counted for each record beside its text.
const RECORD_COST: usize = 160;

/// The room.
#[derive(Debug)]
pub struct Ring {
    records: VecDeque<Arc<Record>>,
    /// Number of the first one there; they are numbered from 0 on.
    first: u64,
    bytes: usize,
    limit: usize,
}

/// What a reader gets at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// In their order.
    pub records: Vec<Arc<Record>>,
    /// Number of the one after the last.
    pub next: u64,
    /// Those that were gone before this reader came for them.
    pub lost: u64,
}

impl Ring {
    /// An empty room of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { records: VecDeque::new(), first: 0, bytes: 0, limit }
    }

    /// Takes one in; the oldest make room.
    pub fn push(&mut self, record: Record) {
        self.bytes += cost(&record);
        self.records.push_back(Arc::new(record));
        while self.bytes > self.limit {
            let Some(oldest) = self.records.pop_front() else { return };
            self.bytes -= cost(&oldest);
            self.first += 1;
        }
    }

    /// Number of the first record that is there.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Number of the next record to come.
    pub fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// From number `next` on, at most `most` of them.
    pub fn read(&self, next: u64, most: usize) -> Batch {
        let from = next.max(self.first);
        let skip = usize::try_from(from - self.first).unwrap_or(usize::MAX);
        let records: Vec<_> = self.records.iter().skip(skip).take(most).cloned().collect();
        Batch { next: from + records.len() as u64, lost: from - next, records }
    }
}

fn cost(record: &Record) -> usize {
    RECORD_COST + record.text().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::record::tests::line;

    #[test]
    fn oldest_make_room_and_readers_learn_of_it() {
        let mut ring = Ring::new(3 * (RECORD_COST + 1));
        for text in ["0", "1", "2", "3", "4"] {
            ring.push(line(text));
        }
        assert_eq!((ring.first(), ring.end()), (2, 5));
        let texts = |batch: &Batch| batch.records.iter().map(|record| record.text().to_owned()).collect::<Vec<_>>();
        let batch = ring.read(0, 2);
        assert_eq!((texts(&batch), batch.next, batch.lost), (vec!["2".into(), "3".into()], 4, 2));
        let batch = ring.read(batch.next, 2);
        assert_eq!((texts(&batch), batch.next, batch.lost), (vec!["4".into()], 5, 0));
        assert_eq!(ring.read(5, 2).records.len(), 0);
    }

    #[test]
    fn one_that_is_larger_than_the_room_is_not_kept() {
        let mut ring = Ring::new(RECORD_COST);
        ring.push(line("x"));
        assert_eq!((ring.first(), ring.end()), (1, 1));
        assert_eq!(ring.read(0, 1).lost, 1);
    }
}
