//! The macro that makes the table of one level.

/// The raw form where a row names none: one value that may be absent.
macro_rules! raw_type {
    () => {
        $crate::config::scalar::Maybe
    };
    ($raw:ty) => {
        $raw
    };
}

/// The kind of a row.
macro_rules! kind {
    ($kind:expr) => {
        $kind
    };
    ($bounds:expr, $type:ty) => {
        <$type as $crate::config::settings::Typed>::kind(&$bounds)
    };
}

/// The first of two: the second says that there is a type.
macro_rules! first {
    ($value:expr, $type:ty) => {
        $value
    };
}

/// A row's default as a value.
macro_rules! default_value {
    ((is $value:expr)) => {
        $value
    };
    ((inherits $words:literal => $value:expr)) => {
        $value
    };
    (($words:expr => $value:expr)) => {
        $value
    };
    (($words:expr)) => {
        ()
    };
}

/// A row's default as the reference has it.
macro_rules! default_text {
    ((is $value:expr), $type:ty) => {
        $crate::config::settings::Initial::Is(<$type as $crate::config::settings::Typed>::written(&$value))
    };
    ((inherits $words:literal => $value:expr) $(, $type:ty)?) => {
        $crate::config::settings::Initial::Inherited($words)
    };
    (($words:expr => $value:expr) $(, $type:ty)?) => {
        $crate::config::settings::Initial::Words($words.to_string())
    };
    (($words:expr) $(, $type:ty)?) => {
        $crate::config::settings::Initial::Words($words.to_string())
    };
}

/// Makes the table of one level. The module's text says what its rows are.
macro_rules! settings {
    (
        $(#[$of_raw:meta])* raw $Raw:ident;
        $(#[$of_read:meta])* read $Read:ident ($above:ident: $Above:ty);
        $(
            $(#[$of_values:meta])* values $Values:ident,
            $(#[$of_beside:meta])* beside $Beside:ident {
                $($(#[$of_field:meta])* $field:ident: $field_type:ty,)*
            }
            rows {$(
                $key:ident $(: $type:ty)? $(=> $read:ty)? $(as {$raw:ty})?
                    [$what:expr] $default:tt $changes:expr, $kept:expr, $help:literal;
            )*}
        )*
    ) => {
        #[derive(Clone, Debug, Default, serde::Deserialize)]
        $(#[$of_raw])*
        pub struct $Raw {
            $($(#[doc = $help] pub $key: $crate::config::settings::raw_type!($($raw)?),)*)*
        }

        impl $Raw {
            /// Every setting of the table, in the order of the pages.
            pub fn rows() -> &'static [$crate::config::settings::Row] {
                use $crate::config::settings::Row;
                static ROWS: std::sync::LazyLock<Vec<Row>> = std::sync::LazyLock::new(|| vec![
                    $($(Row {
                        key: stringify!($key),
                        kind: $crate::config::settings::kind!($what $(, $type)? $(, $read)?),
                        initial: $crate::config::settings::default_text!($default $(, $type)? $(, $read)?),
                        changes: $changes,
                        kept: $kept,
                        help: $help,
                    },)*)*
                ]);
                &ROWS
            }

            /// The place of a setting that is one value; none when there is none of the name.
            pub fn slot(&mut self, key: &str) -> Option<&mut $crate::config::scalar::Maybe> {
                match key {
                    $($(stringify!($key) => $crate::config::settings::Raw::slot(&mut self.$key),)*)*
                    _ => None,
                }
            }
        }

        /// What makes a worker different, for the revision: in the order of the rows, lists and tables last.
        impl serde::Serialize for $Raw {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                use $crate::config::settings::{Changes, Raw as _};
                let mut state = serializer.serialize_struct(stringify!($Raw), Self::rows().len())?;
                for is_compound in [false, true] {
                    $($(
                        if matches!($changes, Changes::NewWorkers) && self.$key.is_compound() == is_compound {
                            state.serialize_field(stringify!($key), &self.$key)?;
                        }
                    )*)*
                }
                state.end()
            }
        }

        $(#[$of_read])*
        #[derive(Clone, Debug)]
        pub struct $Read {
            $($(
                $(#[doc = $help] pub $key: <$type as $crate::config::settings::Typed>::Read,)?
                $(#[doc = $help] pub $key: <$read as $crate::config::settings::Typed>::Read,)?
            )*)*
        }

        impl $Read {
            /// Reads a table. What is wrong is told.
            pub fn new(raw: &$Raw, r: &$crate::config::reader::Reader<'_>, $above: &$Above) -> Self {
                $($(
                    $(let $key = <$type as $crate::config::settings::Typed>::read(
                        r, stringify!($key), raw.$key.as_ref(), &$what, $crate::config::settings::default_value!($default),
                    );)?
                    $(let $key = <$read as $crate::config::settings::Typed>::read(
                        r, stringify!($key), raw.$key.as_ref(), &$what, $crate::config::settings::default_value!($default),
                    );)?
                )*)*
                Self {
                    $($(
                        $($key: $crate::config::settings::first!($key, $type),)?
                        $($key: $crate::config::settings::first!($key, $read),)?
                    )*)*
                }
            }

            /// Laid over what another table says: each setting is this one's where it is written here.
            #[allow(dead_code, reason = "only tables of sub-tenants are laid over each other")]
            pub fn over(&self, below: &Self) -> Self {
                Self {
                    $($(
                        $($key: <$type as $crate::config::settings::Typed>::over(&self.$key, &below.$key),)?
                        $($key: <$read as $crate::config::settings::Typed>::over(&self.$key, &below.$key),)?
                    )*)*
                }
            }
        }

        $(
            #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
            $(#[$of_values])*
            #[non_exhaustive]
            pub struct $Values {
                $($(#[$of_field])* pub $field: $field_type,)*
                $($(
                    #[doc = $help]
                    #[serde(serialize_with = "crate::config::settings::serialize")]
                    pub $key: $type,
                )?)*
            }

            #[derive(Debug)]
            $(#[$of_beside])*
            pub struct $Beside {
                $(#[allow(missing_docs, reason = "as in the values")] pub $field: $field_type,)*
            }

            impl $Values {
                /// The values of settings that were read, with those that were made by hand.
                pub(in crate::config) fn new(read: &$Read, beside: $Beside) -> Self {
                    let $Beside { $($field,)* } = beside;
                    Self {
                        $($field,)*
                        $($($key: <$type as $crate::config::settings::Typed>::value(&read.$key),)?)*
                    }
                }

                /// A setting's value for people; none when it is not among these, or was made by hand.
                pub fn shown(&self, key: &str) -> Option<String> {
                    match key {
                        $($(stringify!($key) => Some(<$type as $crate::config::settings::Shown>::text(&self.$key)),)?)*
                        _ => None,
                    }
                }

                /// The same in the kernel's unit.
                pub fn number(&self, key: &str) -> Option<String> {
                    match key {
                        $($(stringify!($key) => Some(<$type as $crate::config::settings::Shown>::number(&self.$key)),)?)*
                        _ => None,
                    }
                }
            }
        )*
    };
}
pub(in crate::config) use {default_text, default_value, first, kind, raw_type, settings};
