//! The clocks of a worker's time namespace. CLOCK_MONOTONIC and CLOCK_BOOTTIME of the host tell how long it has been up,
//! and are the same in every worker, which tells workers that they share a host. So both begin anew at a random age.
//!
//! The wall clock is the host's: there is no namespace for it. The processor's time stamp counter is readable as well, and
//! tells since when the processor runs.

use std::{fs, io, time::Duration};

use nix::time::{ClockId, clock_gettime};

use crate::plan::{CLOCK_AGE_MAX_SECONDS, CLOCK_AGE_MIN_SECONDS};

/// Sets both clocks of the namespace that children will enter to the same random age, as on a machine that never slept.
/// Nobody may have entered it yet.
///
/// # Errors
/// What the clocks or the file say.
pub fn set_random_age() -> io::Result<()> {
    let age = age_of(getrandom::u64()?);
    let now = |clock| -> io::Result<Duration> { Ok(clock_gettime(clock)?.into()) };
    let line = |name, now| {
        let (seconds, nanoseconds) = offset(now, age);
        format!("{name} {seconds} {nanoseconds}\n")
    };
    let text = line("monotonic", now(ClockId::CLOCK_MONOTONIC)?) + &line("boottime", now(ClockId::CLOCK_BOOTTIME)?);
    fs::write("/proc/self/timens_offsets", text)
}

/// An age within the bounds, any nanosecond of which is as likely as another to within one in a thousand.
fn age_of(random: u64) -> Duration {
    let span = (CLOCK_AGE_MAX_SECONDS - CLOCK_AGE_MIN_SECONDS) * 1_000_000_000;
    Duration::from_secs(CLOCK_AGE_MIN_SECONDS) + Duration::from_nanos(random % span)
}

/// What added to `now` gives `age`: whole seconds, rounded down, and nanoseconds from 0 to 999,999,999, as the kernel
/// takes them.
fn offset(now: Duration, age: Duration) -> (i64, u32) {
    let difference = age.as_nanos() as i128 - now.as_nanos() as i128;
    (difference.div_euclid(1_000_000_000) as i64, difference.rem_euclid(1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_within_the_bounds_for_any_random_number() {
        for random in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let age = age_of(random).as_secs();
            assert!((CLOCK_AGE_MIN_SECONDS..CLOCK_AGE_MAX_SECONDS).contains(&age), "{age}");
        }
    }

    #[test]
    fn offset_leads_from_now_to_the_age_whichever_is_greater() {
        let at = |seconds, nanoseconds| Duration::new(seconds, nanoseconds);
        assert_eq!(offset(at(100, 0), at(3600, 5)), (3500, 5));
        assert_eq!(offset(at(3600, 5), at(100, 0)), (-3501, 999_999_995));
        assert_eq!(offset(at(7, 7), at(7, 7)), (0, 0));
    }
}
