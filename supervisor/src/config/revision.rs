//! The revision of a function: a number that changes with its settings and with its code.

use super::{hash::Fnv, path::HostPath, types::RawFunction, units::ByteSize};

/// The revision. The `paths` it names come resolved as well: the same relative path below another base is another function.
///
/// # Errors
/// The settings cannot be serialised; a bug, and worth its name.
pub fn revision(raw: &RawFunction, paths: [Option<&HostPath>; 3], tmp_size: ByteSize) -> Result<u64, toml::ser::Error> {
    let mut hash = Fnv::new();
    // Fields in order of declaration, absent ones left out, texts quoted: equal settings give equal texts, and only they.
    hash.write(toml::to_string(raw)?.as_bytes());
    // Where nobody wrote it, it depends on memory_max, which is not part of the revision.
    hash.write(&tmp_size.bytes().to_le_bytes());
    for path in paths.into_iter().flatten() {
        // No path contains a NUL, so the pieces cannot run into each other.
        hash.write(b"\0");
        hash.write(path.as_str().as_bytes());
    }
    Ok(hash.finish())
}

/// The revision of settings with the code that is in the directories they name: the real path of each, and the hash of what is
/// in there.
pub fn with_code(settings: u64, parts: &[(HostPath, u64)]) -> u64 {
    let mut hash = Fnv::new();
    hash.write(&settings.to_le_bytes());
    for (place, manifest) in parts {
        hash.write(place.as_str().as_bytes());
        hash.write(b"\0");
        hash.write(&manifest.to_le_bytes());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_agrees_with_the_published_vectors() {
        for (text, expected) in
            [("", 0xcbf2_9ce4_8422_2325_u64), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            let mut hash = Fnv::new();
            hash.write(text.as_bytes());
            assert_eq!(hash.finish(), expected, "{text}");
        }
    }
}
