//! The types of settings: how each is read, and how it is shown.

use std::{fmt, time::Duration};

use serde::Serializer;

use super::{
    super::{
        bounds::Bounds,
        reader::{Origin, Reader, Setting, Value},
        scalar::Scalar,
        units::{ByteSize, CallRate, CpuMillis, format_duration},
    },
    Flag, Kind, NEVER,
};

/// A value that is held against bounds of its own kind.
pub trait Bounded: Value + fmt::Debug + 'static {
    /// What the reference says of it.
    fn kind(bounds: &'static Bounds<Self>) -> Kind;
}

macro_rules! bounded {
    ($($type:ty => $kind:ident,)*) => {
        $(impl Bounded for $type {
            fn kind(bounds: &'static Bounds<Self>) -> Kind {
                Kind::$kind(bounds)
            }
        })*
    };
}
bounded! { u32 => Count, ByteSize => Size, CpuMillis => Cpu, Duration => Time, CallRate => Rate, }

/// The type of a setting's value. It says how the setting is read.
pub trait Typed: Sized {
    /// What its values are held against.
    type Bounds: 'static;
    /// What it is when nothing is written; () where it is then nothing.
    type Default;
    /// The setting as read: its value, its name and where it comes from.
    type Read: Clone + fmt::Debug;

    /// What the reference says of it.
    fn kind(bounds: &'static Self::Bounds) -> Kind;

    /// A default as TOML has it.
    fn written(default: &Self::Default) -> String;

    /// Reads it. What is wrong is told.
    fn read(
        r: &Reader<'_>,
        key: &str,
        raw: Option<&Scalar>,
        bounds: &Self::Bounds,
        default: Self::Default,
    ) -> Self::Read;

    /// This one where it is written, and otherwise the one below.
    fn over(upper: &Self::Read, below: &Self::Read) -> Self::Read;

    /// What the rest of the program works with, taken from what was read.
    fn value(read: &Self::Read) -> Self;
}

fn nearest<T: Clone>(upper: &Setting<T>, below: &Setting<T>) -> Setting<T> {
    if upper.origin == Origin::Default { below.clone() } else { upper.clone() }
}

impl<T: Bounded> Typed for T {
    type Bounds = Bounds<T>;
    type Default = T;
    type Read = Setting<T>;

    fn kind(bounds: &'static Bounds<T>) -> Kind {
        T::kind(bounds)
    }

    fn written(default: &T) -> String {
        default.to_toml()
    }

    fn read(r: &Reader<'_>, key: &str, raw: Option<&Scalar>, bounds: &Bounds<T>, default: T) -> Setting<T> {
        r.or(key, raw, bounds, default)
    }

    fn over(upper: &Setting<T>, below: &Setting<T>) -> Setting<T> {
        nearest(upper, below)
    }

    fn value(read: &Setting<T>) -> T {
        read.value
    }
}

impl<T: Bounded> Typed for Option<T> {
    type Bounds = Bounds<T>;
    type Default = ();
    type Read = Option<Setting<T>>;

    fn kind(bounds: &'static Bounds<T>) -> Kind {
        T::kind(bounds)
    }

    fn written((): &()) -> String {
        "none".to_owned()
    }

    fn read(r: &Reader<'_>, key: &str, raw: Option<&Scalar>, bounds: &Bounds<T>, (): ()) -> Self::Read {
        r.optional(key, raw, bounds)
    }

    fn over(upper: &Self::Read, below: &Self::Read) -> Self::Read {
        upper.clone().or_else(|| below.clone())
    }

    fn value(read: &Self::Read) -> Self {
        read.as_ref().map(|setting| setting.value)
    }
}

impl Typed for bool {
    type Bounds = Flag;
    type Default = Self;
    type Read = Setting<Self>;

    fn kind(_: &'static Flag) -> Kind {
        Kind::Flag
    }

    fn written(default: &Self) -> String {
        default.to_string()
    }

    fn read(r: &Reader<'_>, key: &str, raw: Option<&Scalar>, _: &Flag, default: Self) -> Setting<Self> {
        let origin = if raw.is_some() { Origin::Written } else { Origin::Default };
        Setting { name: r.name(key), value: r.flag(key, raw, default), origin }
    }

    fn over(upper: &Setting<Self>, below: &Setting<Self>) -> Setting<Self> {
        nearest(upper, below)
    }

    fn value(read: &Setting<Self>) -> Self {
        read.value
    }
}

/// A duration, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Not at all.
    Never,
    /// So long after its last call; zero is at once.
    After(Duration),
}

impl Typed for Freeze {
    type Bounds = Bounds<Duration>;
    type Default = Duration;
    type Read = Setting<Self>;

    fn kind(bounds: &'static Bounds<Duration>) -> Kind {
        Kind::TimeOrNever(bounds)
    }

    fn written(default: &Duration) -> String {
        default.to_toml()
    }

    fn read(
        r: &Reader<'_>,
        key: &str,
        raw: Option<&Scalar>,
        bounds: &Bounds<Duration>,
        default: Duration,
    ) -> Setting<Self> {
        if let Some(Scalar::Text(text)) = raw
            && text == NEVER
        {
            r.note_written(key);
            return Setting { name: r.name(key), value: Self::Never, origin: Origin::Written };
        }
        let Setting { name, value, origin } = r.or(key, raw, bounds, default);
        Setting { name, value: Self::After(value), origin }
    }

    fn over(upper: &Setting<Self>, below: &Setting<Self>) -> Setting<Self> {
        nearest(upper, below)
    }

    fn value(read: &Setting<Self>) -> Self {
        read.value
    }
}

/// A value as operators see it.
pub trait Shown {
    /// As `sublet limits` has it: in the configuration's form, without quotes.
    fn text(&self) -> String;

    /// In the kernel's unit: bytes of a size, and otherwise the same.
    fn number(&self) -> String {
        self.text()
    }

    /// As it stands in the JSON of `limits` and `describe`.
    ///
    /// # Errors
    /// What the serializer says.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl Shown for u32 {
    fn text(&self) -> String {
        self.to_string()
    }

    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(*self)
    }
}

impl Shown for bool {
    fn text(&self) -> String {
        self.to_string()
    }

    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self)
    }
}

impl Shown for ByteSize {
    fn text(&self) -> String {
        self.to_string()
    }

    fn number(&self) -> String {
        self.bytes().to_string()
    }
}

impl Shown for CpuMillis {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Shown for CallRate {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    fn text(&self) -> String {
        format_duration(*self)
    }
}

impl Shown for Freeze {
    fn text(&self) -> String {
        match self {
            Self::Never => NEVER.to_owned(),
            Self::After(after) => after.text(),
        }
    }
}

impl<T: Shown> Shown for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Shown::text)
    }

    fn number(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Shown::number)
    }

    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// For serde: a value as it is shown.
///
/// # Errors
/// What the serializer says.
pub fn serialize<T: Shown, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}
