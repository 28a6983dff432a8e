//! What the terminal shows and how keys change it. Pure: samples, failures and keys go in, [`view`](super::view) reads.
//!
//! ```text
//!               enter                      /                 typed text, backspace
//!  sub-tenants -------> workers of one     '-> typing a filter <-'
//!       ^                 |                      | enter: keep it   esc: clear it
//!       '------ esc ------'                      '--> sub-tenants
//! ```
//! The selection is of a row, not of a place: who presses enter on a list that is sorted anew each second gets the
//! sub-tenant that was marked.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    mark::Mark,
    model::{Key, Sample, Snapshot, SubTenantRow, WorkerRow},
    sort::{Ranked, Sort, SortKey, is_match},
};

/// Longest filter that can be typed.
pub const FILTER_MAX_CHARS: usize = 64;
/// Rows that page up and page down move by: less than most terminals have, so that none is passed unseen.
const PAGE_ROWS: usize = 10;

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// All sub-tenants that the filter lets through.
    SubTenants,
    /// The workers of this one.
    Workers(Key),
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Draw again.
    Draw,
    /// Leave.
    Quit,
}

/// The state.
#[derive(Debug)]
pub struct Screen {
    sort: Sort,
    filter: String,
    is_typing: bool,
    is_paused: bool,
    level: Level,
    /// What is shown; older than `last` while paused.
    shown: Option<Snapshot>,
    last: Option<Sample>,
    trouble: Option<String>,
    /// Places of the rows of this level, in order.
    order: Vec<usize>,
    sub_tenants: Mark,
    workers: Mark,
}

impl Screen {
    /// Nothing seen yet.
    pub fn new(sort: SortKey, filter: &str) -> Self {
        Self {
            sort: Sort { key: sort, is_reversed: false },
            filter: filter.chars().take(FILTER_MAX_CHARS).collect(),
            is_typing: false,
            is_paused: false,
            level: Level::SubTenants,
            shown: None,
            last: None,
            trouble: None,
            order: Vec::new(),
            sub_tenants: Mark::default(),
            workers: Mark::default(),
        }
    }

    /// The supervisor answered.
    pub fn take(&mut self, sample: Sample) {
        if !self.is_paused || self.shown.is_none() {
            self.shown = Some(Snapshot::between(self.last.as_ref(), &sample));
        }
        self.last = Some(sample);
        self.trouble = None;
        self.arrange();
    }

    /// The supervisor did not answer. What is shown stays; the next sample is not compared with one from before the
    /// gap, as it may be another supervisor's.
    pub fn fail(&mut self, message: String) {
        self.trouble = Some(message);
        self.last = None;
    }

    /// Somebody pressed a key.
    pub fn press(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Draw };
        }
        if key.modifiers.contains(KeyModifiers::ALT) {
            // What a terminal sends for esc and a key soon after.
            self.press_plain(KeyCode::Esc);
        }
        self.press_plain(key.code)
    }

    fn press_plain(&mut self, code: KeyCode) -> Next {
        if !self.has_typed(code) {
            match code {
                KeyCode::Char('q') => return Next::Quit,
                code => self.command(code),
            }
        }
        self.arrange();
        Next::Draw
    }

    /// Whether the key was part of a filter.
    fn has_typed(&mut self, code: KeyCode) -> bool {
        if !self.is_typing {
            return false;
        }
        match code {
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_MAX_CHARS => self.filter.push(c),
            KeyCode::Char(_) => {}
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            // Arrows move in what the filter has left so far.
            _ => return false,
        }
        true
    }

    fn command(&mut self, code: KeyCode) {
        let at = self.marked();
        match code {
            KeyCode::Down | KeyCode::Char('j') => self.go(at.saturating_add(1)),
            KeyCode::Up | KeyCode::Char('k') => self.go(at.saturating_sub(1)),
            KeyCode::PageDown => self.go(at.saturating_add(PAGE_ROWS)),
            KeyCode::PageUp => self.go(at.saturating_sub(PAGE_ROWS)),
            KeyCode::Home => self.go(0),
            KeyCode::End => self.go(usize::MAX),
            KeyCode::Enter => self.open(),
            KeyCode::Esc if self.level == Level::SubTenants => self.filter.clear(),
            KeyCode::Esc => self.level = Level::SubTenants,
            KeyCode::Char('s') => self.next_key(1),
            KeyCode::Char('S') => self.next_key(self.keys().len() - 1),
            KeyCode::Char('r') => self.sort.is_reversed = !self.sort.is_reversed,
            KeyCode::Char('/') => self.is_typing = self.level == Level::SubTenants,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            _ => {}
        }
    }

    fn open(&mut self) {
        let key = self.sub_tenants().nth(self.marked()).map(|row| row.key.clone());
        // There are no sub-tenants where workers are listed.
        if let Some(key) = key {
            self.go(self.marked());
            self.level = Level::Workers(key);
            self.workers = Mark::default();
        }
    }

    /// What this level can be sorted by.
    fn keys(&self) -> &'static [SortKey] {
        match self.level {
            Level::SubTenants => &SortKey::ALL,
            Level::Workers(_) => &SortKey::OF_WORKERS,
        }
    }

    fn next_key(&mut self, steps: usize) {
        let keys = self.keys();
        let at = keys.iter().position(|key| *key == self.sort.key).unwrap_or(0);
        self.sort.key = keys[(at + steps) % keys.len()];
    }

    fn go(&mut self, at: usize) {
        self.with_mark(|mark, rows| mark.go(at, rows));
    }

    /// Sorts and filters anew, and finds the marked row again.
    fn arrange(&mut self) {
        let rows = self.shown.as_ref().map_or(&[][..], |shown| &shown.sub_tenants);
        self.order = match &self.level {
            Level::SubTenants => self.sort.order(rows, |row| is_match(row, &self.filter)),
            Level::Workers(_) => self.opened().map_or_else(Vec::new, |row| self.sort.order(&row.each, |_| true)),
        };
        self.with_mark(Mark::follow);
    }

    fn with_mark(&mut self, change: impl FnOnce(&mut Mark, &[(&str, &str)])) {
        let mut mark = match self.level {
            Level::SubTenants => std::mem::take(&mut self.sub_tenants),
            Level::Workers(_) => std::mem::take(&mut self.workers),
        };
        let rows: Vec<_> = match self.level {
            Level::SubTenants => self.sub_tenants().map(Ranked::name).collect(),
            Level::Workers(_) => self.workers().map(Ranked::name).collect(),
        };
        change(&mut mark, &rows);
        match self.level {
            Level::SubTenants => self.sub_tenants = mark,
            Level::Workers(_) => self.workers = mark,
        }
    }
}

/// What the view reads.
impl Screen {
    /// The rows of [`Level::SubTenants`], in order.
    pub fn sub_tenants(&self) -> impl Iterator<Item = &SubTenantRow> {
        let rows = self.shown.iter().flat_map(|shown| self.order.iter().filter_map(|at| shown.sub_tenants.get(*at)));
        rows.filter(|_| self.level == Level::SubTenants)
    }

    /// The rows of [`Level::Workers`], in order.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerRow> {
        self.opened().into_iter().flat_map(|row| self.order.iter().filter_map(|at| row.each.get(*at)))
    }

    /// The sub-tenant whose workers are listed; None too when it is gone.
    pub fn opened(&self) -> Option<&SubTenantRow> {
        match &self.level {
            Level::SubTenants => None,
            Level::Workers(key) => self.shown.as_ref()?.sub_tenants.iter().find(|row| row.key == *key),
        }
    }

    /// Place of the marked row among those listed.
    pub fn marked(&self) -> usize {
        match self.level {
            Level::SubTenants => self.sub_tenants.at(),
            Level::Workers(_) => self.workers.at(),
        }
    }

    /// What is listed.
    pub fn level(&self) -> &Level {
        &self.level
    }

    /// By what it is sorted.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// Only rows with this text are listed.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether keys go to the filter.
    pub fn is_typing(&self) -> bool {
        self.is_typing
    }

    /// Whether what is shown stands still.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Why there is no news.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The numbers; None before the first answer.
    pub fn shown(&self) -> Option<&Snapshot> {
        self.shown.as_ref()
    }
}

#[cfg(test)]
mod tests;
