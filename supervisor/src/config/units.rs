//! Values that carry their unit: sizes, shares of a CPU, durations, file modes.
//!
//! Each is parsed once, printed in the form it is read in, and serialised as it is printed.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// Why a text is not the value it should be. Shows a right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what(), self.remedy())]
pub enum UnitError {
    /// Not a [`ByteSize`].
    Size,
    /// Not a [`CpuMillis`].
    Cpu,
    /// Not a duration.
    Duration,
    /// Not a [`SocketMode`].
    Mode,
    /// Not a [`CallRate`].
    Rate,
}

impl UnitError {
    /// What is wrong.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Size => "not a size",
            Self::Cpu => "not an amount of CPU",
            Self::Duration => "not a duration",
            Self::Mode => "not a file mode",
            Self::Rate => "not a rate",
        }
    }

    /// What is right.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Size => "write a whole number and its unit, B, KiB, MiB or GiB, in quotes, such as \"128MiB\"",
            Self::Cpu => "write thousandths of a CPU, such as \"500m\", or whole CPUs, such as \"2\", in quotes",
            Self::Duration => "write a whole number and its unit, ms, s, m or h, in quotes, such as \"30s\"",
            Self::Mode => "write permission bits in octal and in quotes, such as \"0660\"",
            Self::Rate => "write a whole number of calls per second in quotes, such as \"100/s\"",
        }
    }
}

/// A number of bytes, written "4KiB", "128MiB", "8GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Largest first: a size prints in the largest unit that leaves no rest.
pub(super) const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// A size of so many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub(super) const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    pub(super) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl TryFrom<&str> for ByteSize {
    type Error = UnitError;

    fn try_from(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = split(text).ok_or(UnitError::Size)?;
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Size)?;
        count.checked_mul(*factor).map(Self).ok_or(UnitError::Size)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_units(self.0, &SIZE_UNITS))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Thousandths of one CPU, written "500m", or "2" for two whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuMillis(u32);

impl CpuMillis {
    /// So many thousandths.
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// Thousandths of a CPU.
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl TryFrom<&str> for CpuMillis {
    type Error = UnitError;

    fn try_from(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = split(text).ok_or(UnitError::Cpu)?;
        let factor = match unit {
            "m" => 1,
            "" => 1000,
            _ => return Err(UnitError::Cpu),
        };
        let millis = count.checked_mul(factor).and_then(|millis| u32::try_from(millis).ok());
        millis.map(Self).ok_or(UnitError::Cpu)
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl Serialize for CpuMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Calls per second, written "100/s".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallRate(u32);

impl CallRate {
    /// So many calls per second.
    pub const fn per_second(count: u32) -> Self {
        Self(count)
    }

    /// Calls per second.
    pub const fn count(self) -> u32 {
        self.0
    }
}

impl TryFrom<&str> for CallRate {
    type Error = UnitError;

    fn try_from(text: &str) -> Result<Self, UnitError> {
        let (count, unit) = split(text).ok_or(UnitError::Rate)?;
        let rate = u32::try_from(count).ok().filter(|_| unit == "/s");
        rate.map(Self).ok_or(UnitError::Rate)
    }
}

impl fmt::Display for CallRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl Serialize for CallRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Milliseconds; largest first.
pub(super) const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads "100ms", "30s", "10m", "1h".
///
/// # Errors
/// [`UnitError::Duration`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (count, unit) = split(text).ok_or(UnitError::Duration)?;
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::Duration)?;
    count.checked_mul(*factor).map(Duration::from_millis).ok_or(UnitError::Duration)
}

/// Prints what [`parse_duration`] reads. Parts of a millisecond, which it cannot give, are dropped.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { "0s".to_owned() } else { in_units(millis, &DURATION_UNITS) }
}

/// Permission bits of a socket, written in octal: "0660".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketMode(u32);

impl SocketMode {
    pub(super) const OWNER_ONLY: Self = Self(0o600);

    /// The bits, for chmod.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<&str> for SocketMode {
    type Error = UnitError;

    fn try_from(text: &str) -> Result<Self, UnitError> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777);
        bits.map(Self).ok_or(UnitError::Mode)
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for SocketMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Digits, then whatever follows. No sign, no space, no fraction: one way to write a value.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    Some((count.parse().ok()?, unit))
}

/// In the largest unit that leaves no rest.
fn in_units(value: u64, units: &[(&str, u64)]) -> String {
    let fitting = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    match fitting.or(units.last()) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_unit_and_printed_back() {
        for (text, bytes, printed) in [
            ("0B", 0, "0B"),
            ("1B", 1, "1B"),
            ("1024B", 1024, "1KiB"),
            ("1025B", 1025, "1025B"),
            ("4KiB", 4096, "4KiB"),
            ("128MiB", 128 << 20, "128MiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("8GiB", 8 << 30, "8GiB"),
            ("18446744073709551615B", u64::MAX, "18446744073709551615B"),
        ] {
            let size = ByteSize::try_from(text).expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed));
        }
    }

    #[test]
    fn texts_that_are_no_size_are_refused() {
        for text in [
            "",
            "128",
            "128M",
            "128MB",
            "128mib",
            "MiB",
            "1.5GiB",
            "-1MiB",
            "+1MiB",
            " 1MiB",
            "1 MiB",
            "1MiB ",
            "0x10B",
            "18446744073709551616B",
            "17179869184GiB",
        ] {
            assert_eq!(ByteSize::try_from(text), Err(UnitError::Size), "{text:?}");
        }
    }

    #[test]
    fn cpu_is_read_in_thousandths_or_whole_cpus() {
        for (text, millis) in
            [("500m", 500), ("2", 2000), ("0m", 0), ("4294967295m", u32::MAX), ("4294967", 4_294_967_000)]
        {
            assert_eq!(CpuMillis::try_from(text).map(CpuMillis::millis), Ok(millis), "{text}");
        }
        assert_eq!(CpuMillis::from_millis(2000).to_string(), "2000m");
        for text in ["", "m", "1.5", "500M", "50%", "-1", "4294967296m", "4294968", "18446744073709551615"] {
            assert_eq!(CpuMillis::try_from(text), Err(UnitError::Cpu), "{text:?}");
        }
    }

    #[test]
    fn durations_are_read_in_their_unit_and_printed_back() {
        for (text, millis, printed) in [
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("100ms", 100, "100ms"),
            ("30s", 30_000, "30s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("10m", 600_000, "10m"),
            ("1h", 3_600_000, "1h"),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!((duration.as_millis(), format_duration(duration).as_str()), (millis, printed));
        }
        for text in ["", "30", "s", "1.5s", "1d", "30 s", "-1s", "1h30m", "18446744073709551615s"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text:?}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, bits, printed) in [("0660", 0o660, "0660"), ("600", 0o600, "0600"), ("0777", 0o777, "0777")] {
            let mode = SocketMode::try_from(text).expect(text);
            assert_eq!((mode.bits(), mode.to_string().as_str()), (bits, printed));
        }
        for text in ["", "0", "66", "0680", "1777", "06600", "0o660", "+660", "rw-"] {
            assert_eq!(SocketMode::try_from(text), Err(UnitError::Mode), "{text:?}");
        }
    }

    #[test]
    fn unit_errors_show_a_right_value() {
        for (error, example) in [
            (UnitError::Size, "\"128MiB\""),
            (UnitError::Cpu, "\"500m\""),
            (UnitError::Duration, "\"30s\""),
            (UnitError::Mode, "\"0660\""),
        ] {
            assert!(error.to_string().contains(example), "{error}");
        }
    }
}
