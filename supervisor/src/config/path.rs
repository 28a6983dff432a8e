//! Paths on the host, as the nursery takes them: absolute, plain, UTF-8.

use std::{fmt, path::Path, sync::Arc};

use serde::{Serialize, Serializer};

/// Longest path in bytes: what the kernel takes in one call (PATH_MAX, less its ending NUL).
pub const PATH_MAX_BYTES: usize = 4095;

/// Absolute path on the host without `.`, `..`, empty components, trailing slash or control characters.
///
/// The nursery refuses any other form, and it must travel to it as JSON. Whether something is there is another
/// question: see [`check_disk`](super::check_disk). Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPath(Arc<str>);

/// Why a text is not a [`HostPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No character at all.
    #[error("the path is empty")]
    Empty,
    /// A NUL or another control character.
    #[error("the path contains the control character {0:?}")]
    Control(char),
    /// A `..` that does not lead a relative path. What it means depends on links, and so on the day.
    #[error("the path contains \"..\" after another component")]
    Parent,
    /// A relative path, and nothing to take it relative to.
    #[error("the path is relative and the configuration's directory {0:?} is not an absolute UTF-8 path")]
    Base(String),
    /// Above [`PATH_MAX_BYTES`].
    #[error("the path has {0} bytes, the most is {PATH_MAX_BYTES}")]
    TooLong(usize),
}

impl HostPath {
    /// Makes `text` absolute: a relative path is taken below `base`, and may begin with `..`.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn resolve(text: &str, base: &Path) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(PathError::Control(control));
        }
        let is_absolute = text.starts_with('/');
        let mut parts = if is_absolute { Vec::new() } else { base_parts(base)? };
        let mut only_parents_so_far = !is_absolute;
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." if only_parents_so_far => {
                    parts.pop();
                }
                ".." => return Err(PathError::Parent),
                part => {
                    only_parents_so_far = false;
                    parts.push(part);
                }
            }
        }
        let path = format!("/{}", parts.join("/"));
        if path.len() > PATH_MAX_BYTES {
            return Err(PathError::TooLong(path.len()));
        }
        Ok(Self(path.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for std's functions.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// Whether `other` is this path or lies below it. Compares texts: links are not followed.
    pub fn contains(&self, other: &Self) -> bool {
        other.as_path().starts_with(self.as_path())
    }

    /// `file` in this directory. `file` is one of our own constants, a plain component.
    pub(super) fn join(&self, file: &str) -> Self {
        Self(format!("{}/{file}", self.0.trim_end_matches('/')).into())
    }
}

/// Control characters in `base` are refused as they are in a setting: the result must hold the same promise.
fn base_parts(base: &Path) -> Result<Vec<&str>, PathError> {
    let refused = || PathError::Base(base.display().to_string());
    let text = base.to_str().filter(|text| text.starts_with('/')).ok_or_else(refused)?;
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || text.chars().any(char::is_control) { Err(refused()) } else { Ok(parts) }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl Serialize for HostPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<String, PathError> {
        HostPath::resolve(text, Path::new("/etc/sublet")).map(|path| path.to_string())
    }

    #[test]
    fn absolute_paths_are_made_plain() {
        for text in ["/srv/f", "/srv/f/", "//srv//f", "/srv/./f/."] {
            assert_eq!(resolve(text), Ok("/srv/f".into()), "{text}");
        }
        assert_eq!(resolve("/"), Ok("/".into()));
    }

    #[test]
    fn relative_paths_lie_below_the_base() {
        assert_eq!(resolve("f"), Ok("/etc/sublet/f".into()));
        assert_eq!(resolve("./f"), Ok("/etc/sublet/f".into()));
        assert_eq!(resolve("."), Ok("/etc/sublet".into()));
        assert_eq!(resolve("../f"), Ok("/etc/f".into()));
        assert_eq!(resolve("../../../.."), Ok("/".into()));
    }

    #[test]
    fn paths_that_are_not_plain_are_refused() {
        assert_eq!(resolve(""), Err(PathError::Empty));
        assert_eq!(resolve("/srv/\0f"), Err(PathError::Control('\0')));
        assert_eq!(resolve("/srv/\nf"), Err(PathError::Control('\n')));
        assert_eq!(resolve("/srv/../etc"), Err(PathError::Parent));
        assert_eq!(resolve("f/../g"), Err(PathError::Parent));
    }

    #[test]
    fn relative_path_needs_an_absolute_plain_base() {
        for base in ["", "etc", "/etc/../srv", "/etc/\n"] {
            assert_eq!(HostPath::resolve("f", Path::new(base)), Err(PathError::Base(base.into())));
            assert!(HostPath::resolve("/f", Path::new(base)).is_ok(), "an absolute path needs no base");
        }
    }

    #[test]
    fn path_one_byte_too_long_is_refused() {
        let longest = format!("/{}", "a".repeat(PATH_MAX_BYTES - 1));
        assert!(resolve(&longest).is_ok());
        assert_eq!(resolve(&format!("{longest}a")), Err(PathError::TooLong(PATH_MAX_BYTES + 1)));
    }

    #[test]
    fn containment_is_by_whole_components() {
        let path = |text| HostPath::resolve(text, Path::new("/")).expect("plain");
        assert!(path("/srv").contains(&path("/srv")));
        assert!(path("/srv").contains(&path("/srv/f")));
        assert!(!path("/srv").contains(&path("/srvx")));
        assert!(!path("/srv/f").contains(&path("/srv")));
    }
}
