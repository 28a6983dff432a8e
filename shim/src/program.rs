//! What the kernel needs beside a program to start it. execve answers ENOENT for a file that is there when the interpreter in
//! its first line, or the loader an ELF file names, is not; so that is looked at before, and told by name.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};

/// What is read of a program: its first line, or ELF headers and the loader's name, which linkers put right behind them.
pub const HEAD_BYTES: usize = 4096;
/// What the kernel reads of a first line (BINPRM_BUF_SIZE).
const LINE_MAX_BYTES: usize = 256;
/// Scripts whose interpreters are scripts; the kernel follows no more.
const DEPTH_MAX: usize = 5;

/// What a program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing that can be seen in its head.
    Nothing,
    /// The interpreter of a script.
    Interpreter {
        /// As it is written.
        path: PathBuf,
        /// Whether the line ends with CR LF: then the CR is the last character of the path or of its argument.
        is_crlf: bool,
        /// What `env` is asked for, where the interpreter is `env`.
        program: Option<String>,
    },
    /// The loader of a dynamically linked program.
    Loader(PathBuf),
}

impl Needs {
    /// By the first [`HEAD_BYTES`] bytes of a file.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [b'#', b'!', rest @ ..] => script(&rest[..rest.len().min(LINE_MAX_BYTES - 2)]),
            [0x7f, b'E', b'L', b'F', 2, 1, ..] => loader(head).map_or(Self::Nothing, Self::Loader),
            _ => Self::Nothing,
        }
    }

    /// What must be there.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Nothing => None,
            Self::Interpreter { path, .. } | Self::Loader(path) => Some(path),
        }
    }

    /// What is said when that is not there, of this program.
    pub fn missing(&self, program: &Path) -> String {
        let program = program.display();
        match self {
            Self::Nothing => format!("{program} does not exist"),
            // Its CR is visible in the path. Short, because callers are shown the beginning of a sentence.
            Self::Interpreter { path, is_crlf: true, .. } => format!(
                "the interpreter {path:?} of {program} does not exist: save it with LF line ends instead of CR LF"
            ),
            Self::Interpreter { path, is_crlf: false, .. } => {
                format!("the interpreter {path:?} of {program} does not exist")
            }
            Self::Loader(path) => format!(
                "the loader {path:?} of {program} does not exist: link it statically, or give it a layout that has it"
            ),
        }
    }
}

fn script(line: &[u8]) -> Needs {
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let line = line[..end].trim_ascii_end_of(is_space);
    let start = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
    let mut words = line[start..].splitn(2, is_space);
    let path = words.next().unwrap_or_default();
    if path.is_empty() {
        return Needs::Nothing;
    }
    let argument =
        words.next().map(|argument| String::from_utf8_lossy(argument).trim_start_matches([' ', '\t']).to_owned());
    let path = PathBuf::from(OsStr::from_bytes(path));
    let is_env = path.file_name().is_some_and(|name| name == "env");
    Needs::Interpreter { is_crlf: line.ends_with(b"\r"), program: argument.filter(|_| is_env), path }
}

/// The end of a line without what the kernel does not look at.
trait TrimEnd {
    fn trim_ascii_end_of(&self, is_space: impl Fn(&u8) -> bool) -> &[u8];
}

impl TrimEnd for [u8] {
    fn trim_ascii_end_of(&self, is_space: impl Fn(&u8) -> bool) -> &[u8] {
        let end = self.iter().rposition(|byte| !is_space(byte)).map_or(0, |at| at + 1);
        &self[..end]
    }
}

/// PT_INTERP of a 64-bit little-endian ELF file; none when it is not in the head.
fn loader(head: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (table, entry, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(entry)?)?;
        if number(at, 4)? == PT_INTERP as usize {
            let (offset, length) = (number(at.checked_add(8)?, 8)?, number(at.checked_add(32)?, 8)?);
            let name = head.get(offset..offset.checked_add(length)?)?;
            let name = name.split(|byte| *byte == 0).next()?;
            return Some(PathBuf::from(OsStr::from_bytes(name))).filter(|path| path.is_absolute());
        }
    }
    None
}

/// The head of a file.
///
/// # Errors
/// What open and read say.
pub fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let length = File::open(path)?.read_at(&mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

/// Looks at all that a program needs, as the process sees it that asks. A program that may be run and not read is left to
/// execve.
///
/// # Errors
/// What is missing, by name.
pub fn check(program: &Path) -> io::Result<()> {
    let mut at = program.to_owned();
    for _ in 0..DEPTH_MAX {
        let Ok(head) = head(&at) else { return Ok(()) };
        let needs = Needs::of(&head);
        let Some(next) = needs.path() else { return Ok(()) };
        match access(next, AccessFlags::X_OK) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(io::Error::other(needs.missing(&at))),
            Err(error) => return Err(io::Error::other(format!("{next:?}, which {} needs: {error}", at.display()))),
        }
        at = next.to_owned();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter(path: &str, is_crlf: bool, program: Option<&str>) -> Needs {
        Needs::Interpreter { path: path.into(), is_crlf, program: program.map(str::to_owned) }
    }

    #[test]
    fn first_line_is_read_as_the_kernel_reads_it() {
        let cases = [
            ("#!/bin/sh\necho", interpreter("/bin/sh", false, None)),
            ("#! \t/bin/sh -e \nx", interpreter("/bin/sh", false, None)),
            ("#!/bin/sh", interpreter("/bin/sh", false, None)),
            ("#!/bin/sh\r\necho\r\n", interpreter("/bin/sh\r", true, None)),
            ("#!/bin/sh -e\r\n", interpreter("/bin/sh", true, None)),
            ("#!/usr/bin/env python3\n", interpreter("/usr/bin/env", false, Some("python3"))),
            ("#!/usr/bin/env python3\r\n", interpreter("/usr/bin/env", true, Some("python3\r"))),
            ("#!\n", Needs::Nothing),
            ("#", Needs::Nothing),
            ("", Needs::Nothing),
            ("echo\n", Needs::Nothing),
            ("\x7fELF", Needs::Nothing),
        ];
        for (head, expected) in cases {
            assert_eq!(Needs::of(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn loader_of_an_elf_file_is_found_and_a_wrong_file_is_no_trouble() {
        let mut elf = vec![0; 512];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&2_u16.to_le_bytes());
        elf[120..124].copy_from_slice(&3_u32.to_le_bytes());
        elf[128..136].copy_from_slice(&300_u64.to_le_bytes());
        elf[152..160].copy_from_slice(&12_u64.to_le_bytes());
        elf[300..312].copy_from_slice(b"/lib64/ld.x\0");
        assert_eq!(Needs::of(&elf), Needs::Loader("/lib64/ld.x".into()));
        for length in 0..elf.len() {
            // Cut anywhere it has no loader, or the whole name.
            assert!(matches!(Needs::of(&elf[..length]), Needs::Nothing) || length >= 312, "{length}");
        }
        for at in 32..64 {
            let mut wrong = elf.clone();
            wrong[at] = 0xff;
            Needs::of(&wrong);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let file = std::env::temp_dir().join(format!("sublet-program-{}", std::process::id()));
        let said = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let said = check(&file).map_err(|error| error.to_string().replace(file.to_str().unwrap(), "FILE"));
            std::fs::remove_file(&file).unwrap();
            said
        };
        assert_eq!(said("#!/bin/sh\n"), Ok(()));
        assert_eq!(said("no script"), Ok(()));
        let crlf = said("#!/bin/sh\r\n").unwrap_err();
        assert!(
            crlf.starts_with("the interpreter \"/bin/sh\\r\" of FILE does not exist") && crlf.contains("CR LF"),
            "{crlf}"
        );
        assert_eq!(
            said("#!/nowhere/python\n").unwrap_err(),
            "the interpreter \"/nowhere/python\" of FILE does not exist"
        );
    }
}
