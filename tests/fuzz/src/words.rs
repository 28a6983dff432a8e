//! Single words: labels, names, levels, values with units, and settings on a command line.

use sublet_pool::{SUB_TENANT_MAX_BYTES, SubTenant};
use sublet_supervisor::config::{
    ByteSize, CallRate, CpuMillis, LevelPath, Name, SocketMode, format_duration, parse_duration,
};
use sublet_what_if::{Change, Token};

use crate::target;

/// What is taken is printed so that it is read again as the same.
fn is_read_again<T: PartialEq + std::fmt::Debug>(
    text: &str,
    read: impl Fn(&str) -> Option<T>,
    print: impl Fn(&T) -> String,
) {
    if let Some(value) = read(text) {
        assert_eq!(read(&print(&value)).as_ref(), Some(&value), "{text:?}");
    }
}

#[test]
fn values_with_units_are_refused_or_read_again_as_printed() {
    target!(64).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        is_read_again(text, |text| ByteSize::try_from(text).ok(), ToString::to_string);
        is_read_again(text, |text| CpuMillis::try_from(text).ok(), ToString::to_string);
        is_read_again(text, |text| CallRate::try_from(text).ok(), ToString::to_string);
        is_read_again(text, |text| SocketMode::try_from(text).ok(), ToString::to_string);
        is_read_again(text, |text| parse_duration(text).ok(), |duration| format_duration(*duration));
    });
}

#[test]
fn names_and_labels_are_refused_or_kept_byte_for_byte() {
    target!(SUB_TENANT_MAX_BYTES + 8).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let is_label = (1..=SUB_TENANT_MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        match SubTenant::try_from(text) {
            Ok(label) => assert_eq!((is_label, label.as_str(), label.is_shared()), (true, text, false)),
            Err(told) => assert!(!is_label && !told.to_string().is_empty()),
        }
        match Name::try_from(text) {
            // It becomes a directory below a control group.
            Ok(name) => {
                assert_eq!(name.as_str(), text);
                assert!(text.len() < 64 && !text.contains(['/', '.', '\0']) && !text.starts_with('-'));
            }
            Err(told) => assert!(!told.to_string().chars().any(char::is_control), "{told}"),
        }
        match Token::try_from(text) {
            // It stands between commas.
            Ok(token) => {
                assert_eq!(token.as_str(), text);
                assert!(!text.contains([',', '"', '\n']));
            }
            Err(told) => assert!(!told.to_string().is_empty()),
        }
    });
}

#[test]
fn levels_are_refused_or_read_again_as_printed() {
    target!(512).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        is_read_again(text, |text| LevelPath::try_from(text).ok(), ToString::to_string);
        if let Ok(level) = LevelPath::try_from(text) {
            assert_eq!(level.to_string(), text);
        }
    });
}

#[test]
fn changes_are_refused_by_their_key_or_taken() {
    target!(256).for_each(|input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match text.parse::<Change>() {
            Ok(change) => assert!(text.starts_with(change.key())),
            Err(told) => assert!(!told.to_string().is_empty()),
        }
    });
}
