//! The row that is marked, in a list that is sorted anew each second. Pure.

/// The marked row.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// The row's name; None until somebody moves: the first row is marked then, whichever it is.
    name: Option<(String, String)>,
    at: usize,
}

fn owned((of, name): (&str, &str)) -> (String, String) {
    (of.to_owned(), name.to_owned())
}

impl Mark {
    /// Its place among the rows.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Finds the row among these again; when it is gone, the one that is now in its place.
    pub fn follow(&mut self, rows: &[(&str, &str)]) {
        let Some((of, name)) = &self.name else {
            self.at = 0;
            return;
        };
        match rows.iter().position(|row| *row == (of.as_str(), name.as_str())) {
            Some(at) => self.at = at,
            None => self.go(self.at, rows),
        }
    }

    /// Marks the row at this place, or the last one.
    pub fn go(&mut self, at: usize, rows: &[(&str, &str)]) {
        self.at = at.min(rows.len().saturating_sub(1));
        self.name = rows.get(self.at).copied().map(owned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: [(&str, &str); 3] = [("t", "a"), ("t", "b"), ("t", "c")];

    #[test]
    fn first_row_is_marked_until_somebody_moves() {
        let mut mark = Mark::default();
        mark.follow(&ABC);
        assert_eq!(mark.at(), 0);
        mark.follow(&[("t", "c"), ("t", "a")]);
        assert_eq!(mark.at(), 0, "whichever it is");
    }

    #[test]
    fn marked_row_is_followed_to_its_new_place() {
        let mut mark = Mark::default();
        mark.go(1, &ABC);
        mark.follow(&[("t", "c"), ("t", "a"), ("t", "b")]);
        assert_eq!(mark.at(), 2);
        mark.follow(&[("u", "b"), ("t", "b")]);
        assert_eq!(mark.at(), 1, "another tenant's row of the same hash is another row");
    }

    #[test]
    fn gone_row_leaves_the_mark_to_the_one_in_its_place() {
        let mut mark = Mark::default();
        mark.go(1, &ABC);
        mark.follow(&[("t", "a"), ("t", "c")]);
        assert_eq!(mark.at(), 1);
        mark.follow(&[("t", "c"), ("t", "a")]);
        assert_eq!(mark.at(), 0, "and it is followed from then on");
    }

    #[test]
    fn mark_stays_within_the_rows() {
        let mut mark = Mark::default();
        mark.go(usize::MAX, &ABC);
        assert_eq!(mark.at(), 2);
        mark.follow(&[("t", "a")]);
        assert_eq!(mark.at(), 0);
        mark.follow(&[]);
        assert_eq!(mark.at(), 0, "no rows are no reason to fail");
        mark.go(7, &[]);
        assert_eq!(mark.at(), 0);
    }
}
