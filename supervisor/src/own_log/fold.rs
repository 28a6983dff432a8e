//! Equal lines folded: of a kind, and of one function, some are written at once, then one from time to time, and how many
//! there were beside is told. Customers can make what is told happen as often as they like, and must not fill a disk.

use std::{
    collections::HashMap,
    fmt::{Debug, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Lines of a kind that are written at once.
const BURST: u32 = 20;
/// After these one is written in so long.
const ONE_EVERY: Duration = Duration::from_secs(10);
/// Kinds that are told apart by function; beyond, all functions are one. A kind that is quiet makes room.
const KINDS_MAX: usize = 1024;
/// Of a folded line so much is shown, in bytes.
const MESSAGE_MAX_BYTES: usize = 256;

/// What makes lines equal: where in our code they come from, and whose function they are about.
type Key = (Identifier, Option<Box<str>>);

#[derive(Debug)]
struct Kind {
    level: Level,
    left: u32,
    filled: Instant,
    folded: u64,
    message: String,
}

/// What was folded of one kind since it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// How many lines were not written.
    pub times: u64,
    /// Their level.
    pub level: String,
    /// Whose function they are about, TENANT/FUNCTION; empty for none or several.
    pub of: String,
    /// The last of them.
    pub message: String,
}

/// All kinds. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct Fold(Arc<Mutex<HashMap<Key, Kind>>>);

impl Fold {
    fn kinds(&self) -> MutexGuard<'_, HashMap<Key, Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been folded and not told yet.
    pub fn due(&self) -> Vec<Folded> {
        let mut kinds = self.kinds();
        let folded = kinds.iter_mut().filter(|(_, kind)| kind.folded > 0).map(|((_, of), kind)| Folded {
            times: std::mem::take(&mut kind.folded),
            level: kind.level.to_string(),
            of: of.as_deref().unwrap_or_default().to_owned(),
            message: std::mem::take(&mut kind.message),
        });
        folded.collect()
    }
}

impl Kind {
    fn new(level: Level, now: Instant) -> Self {
        Self { level, left: BURST, filled: now, folded: 0, message: String::new() }
    }

    fn fill(&mut self, now: Instant) {
        let steps = now.saturating_duration_since(self.filled).as_nanos() / ONE_EVERY.as_nanos();
        if steps > 0 {
            self.left = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(self.left).min(BURST);
            self.filled = now;
        }
    }

    /// Whether one more line of it is written.
    fn takes(&mut self, now: Instant) -> bool {
        self.fill(now);
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }

    fn is_quiet(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left == BURST && self.folded == 0
    }
}

/// The kind of a line; made when it is new.
fn kind_of(kinds: &mut HashMap<Key, Kind>, mut key: Key, level: Level, now: Instant) -> &mut Kind {
    if kinds.len() >= KINDS_MAX && !kinds.contains_key(&key) {
        kinds.retain(|_, kind| !kind.is_quiet(now));
        if kinds.len() >= KINDS_MAX {
            // There are only so many places in our code.
            key.1 = None;
        }
    }
    kinds.entry(key).or_insert_with(|| Kind::new(level, now))
}

/// What of an event counts.
#[derive(Debug, Default)]
struct Seen {
    tenant: String,
    function: String,
    text: String,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a String does not fail.
        match field.name() {
            "tenant" => drop(write!(self.tenant, "{value:?}")),
            "function" => drop(write!(self.function, "{value:?}")),
            "message" => drop(write!(self.text, "{value:?}")),
            name => drop(write!(self.text, " {name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl<S: Subscriber> Layer<S> for Fold {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let level = *event.metadata().level();
        // Whoever asks for more than is told by default wants all of it.
        if level > Level::INFO {
            return true;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        let of = match (seen.tenant.as_str(), seen.function.as_str()) {
            ("", "") => None,
            (tenant, function) => Some(format!("{tenant}/{function}").into_boxed_str()),
        };
        let now = Instant::now();
        let mut kinds = self.kinds();
        let kind = kind_of(&mut kinds, (event.metadata().callsite(), of), level, now);
        let takes = kind.takes(now);
        if !takes {
            kind.folded += 1;
            let kept = (0..=MESSAGE_MAX_BYTES).rev().find(|at| seen.text.is_char_boundary(*at));
            seen.text.truncate(kept.unwrap_or(0));
            kind.message = seen.text;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Counts what gets through.
    struct Counter(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Counter {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted(tell: impl FnOnce()) -> (u32, Vec<Folded>) {
        let (fold, count) = (Fold::default(), Arc::new(AtomicU32::new(0)));
        let subscriber = tracing_subscriber::registry().with(fold.clone()).with(Counter(count.clone()));
        tracing::subscriber::with_default(subscriber, tell);
        (count.load(Ordering::Relaxed), fold.due())
    }

    #[test]
    fn flood_of_one_function_is_folded_and_another_ones_lines_are_written() {
        let (written, folded) = counted(|| {
            for number in 0..1000 {
                for (tenant, function) in [("acme", "loud"), ("acme", "quiet"), ("other", "loud")] {
                    if function == "loud" && tenant == "acme" || number < 5 {
                        tracing::warn!(tenant, function, number, "unfit");
                    }
                }
            }
        });
        assert_eq!(written, BURST + 5 + 5);
        let wanted = Folded {
            times: 1000 - u64::from(BURST),
            level: "WARN".into(),
            of: "acme/loud".into(),
            message: "unfit number=999".into(),
        };
        assert_eq!(folded, [wanted]);
    }

    #[test]
    fn what_is_asked_for_is_not_folded() {
        let (written, folded) = counted(|| (0..1000).for_each(|_| tracing::debug!("detail")));
        assert_eq!((written, folded.len()), (1000, 0));
    }

    #[test]
    fn some_are_written_at_once_and_one_from_time_to_time() {
        let start = Instant::now();
        let mut kind = Kind::new(Level::WARN, start);
        let takes = |kind: &mut Kind, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            (0..1000).filter(|_| kind.takes(now)).count()
        };
        assert_eq!(takes(&mut kind, 0), BURST as usize);
        assert_eq!((takes(&mut kind, 9), takes(&mut kind, 10), takes(&mut kind, 11)), (0, 1, 0));
        assert_eq!(takes(&mut kind, 100_000), BURST as usize, "no more than at first");
    }

    #[test]
    fn kinds_are_bounded_and_quiet_ones_make_room() {
        let (fold, start) = (Fold::default(), Instant::now());
        let subscriber = tracing_subscriber::registry().with(fold.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..3 * KINDS_MAX {
                tracing::warn!(function = number, "one place");
            }
        });
        let mut kinds = fold.kinds();
        assert!(kinds.len() <= KINDS_MAX + 1, "{}", kinds.len());
        let identifier = kinds.keys().next().unwrap().0.clone();
        let later = start + 100 * ONE_EVERY;
        kinds.values_mut().for_each(|kind| kind.folded = 0);
        kind_of(&mut kinds, (identifier, Some("new".into())), Level::WARN, later);
        assert_eq!(kinds.len(), 1);
    }
}
