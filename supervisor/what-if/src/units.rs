//! Values as the configuration writes them. Its own readers are in the supervisor, which depends on this crate; these
//! read the same texts and no others.

use std::time::Duration;

use sublet_pool::Rate;

/// Digits, then whatever follows. No sign, no space, no fraction: one way to write a value.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    Some((count.parse().ok()?, unit))
}

/// Reads "7".
pub fn count(text: &str) -> Option<u64> {
    split(text).filter(|(_, unit)| unit.is_empty()).map(|(count, _)| count)
}

/// Reads "100ms", "30s", "10m", "1h".
pub fn duration(text: &str) -> Option<Duration> {
    let (count, unit) = split(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    count.checked_mul(factor).map(Duration::from_millis)
}

/// Reads "4KiB", "128MiB", "8GiB".
pub fn size(text: &str) -> Option<u64> {
    let (count, unit) = split(text)?;
    let factor = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(factor)
}

/// Reads "100/s" and "100/s burst 20". Without a burst it is a second's worth.
pub fn rate(text: &str) -> Option<Rate> {
    let (per_second, rest) = split(text)?;
    let burst = match rest.strip_prefix("/s")? {
        "" => per_second,
        rest => count(rest.strip_prefix(" burst ")?)?,
    };
    Some(Rate { per_second: per_second.try_into().ok()?, burst: burst.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_configuration_writes_them() {
        assert_eq!([count("0"), count("7")], [Some(0), Some(7)]);
        for (text, millis) in [("0s", 0), ("100ms", 100), ("30s", 30_000), ("10m", 600_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for (text, bytes) in [("1B", 1), ("4KiB", 4096), ("128MiB", 128 << 20), ("8GiB", 8 << 30)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        assert_eq!(rate("100/s"), Some(Rate { per_second: 100, burst: 100 }));
        assert_eq!(rate("100/s burst 20"), Some(Rate { per_second: 100, burst: 20 }));
    }

    #[test]
    fn other_texts_are_no_values() {
        for text in ["", "-1", "+1", "1.5", " 1", "1 ", "0x10", "1_000", "18446744073709551616"] {
            assert_eq!(count(text), None, "{text:?}");
        }
        for text in ["", "30", "s", "1.5s", "1d", "30 s", "-1s", "1h30m", "18446744073709551615s"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        for text in ["", "128", "128M", "128MB", "128mib", "MiB", "1.5GiB", "1 MiB", "17179869184GiB"] {
            assert_eq!(size(text), None, "{text:?}");
        }
        for text in ["", "100", "/s", "100/m", "100/s ", "100/s 20", "100/s burst", "100/s burst -1", "4294967296/s"] {
            assert_eq!(rate(text), None, "{text:?}");
        }
    }
}
