//! The probe: a function that does what its payload says, `verb argument ...`, and tells what came of it.
//!
//! As a `stream` function it speaks the frames itself rather than through the crate for authors, because half of its verbs
//! break them. As an `exec` function (first argument `exec`) it reads the verb from stdin. Started by hand with a verb as
//! its arguments it does the same outside of any sandbox: a kernel test first shows that a thing is possible there.

mod attack;
mod counters;
mod descriptors;
mod frames;
mod hostile;
mod limits;
mod pieces;
mod shared;
mod state;
mod sys;

use std::{
    env,
    io::{Read, Write},
    process::ExitCode,
    time::Duration,
};

/// What a verb gives: bytes for the caller, or why not.
pub type Outcome = Result<Vec<u8>, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        None => {
            before_ready();
            frames::serve()
        }
        Some("exec") => {
            let mut verb = String::new();
            if let Err(error) = std::io::stdin().read_to_string(&mut verb) {
                eprintln!("read the payload: {error}");
                return ExitCode::from(2);
            }
            if let Some(arguments) = verb.strip_prefix("pieces ") {
                let mut stdout = std::io::stdout();
                return tell(pieces::run(arguments, |piece| stdout.write_all(piece).and_then(|()| stdout.flush())));
            }
            tell(perform(&mut state::State::default(), &verb))
        }
        Some("without-landlock") => {
            eprintln!("{}", sys::become_without_landlock(&arguments[1..]));
            ExitCode::from(9)
        }
        Some("with-key") => {
            eprintln!("{}", sys::become_with_key(&arguments[1..]));
            ExitCode::from(9)
        }
        Some(_) => tell(perform(&mut state::State::default(), &arguments.join(" "))),
    }
}

fn tell(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(answer) => {
            // A closed stdout is the caller's business.
            std::io::stdout().write_all(&answer).ok();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(9)
        }
    }
}

/// Ways to fail before READY, chosen by the configuration.
fn before_ready() {
    match env::var("PROBE_START").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("hang") => std::thread::sleep(Duration::from_secs(3600)),
        Ok("garbage") => frames::garbage(),
        Ok("segv") => sys::raise(libc::SIGSEGV),
        Ok("eat") => drop(limits::alloc(4096)),
        Ok(_) | Err(_) => {}
    }
}

/// Does one verb.
pub fn perform(state: &mut state::State, text: &str) -> Outcome {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |at: usize| -> Result<u64, String> {
        let word = words.get(at).ok_or_else(|| format!("{text:?} lacks a number"))?;
        word.parse().map_err(|_| format!("{word:?} is no number"))
    };
    let word = |at: usize| words.get(at).copied().ok_or_else(|| format!("{text:?} lacks an argument"));
    match word(0)? {
        "echo" => Ok(text.trim_start_matches("echo").trim_start().as_bytes().to_vec()),
        "id" => state.id(),
        // Answers with who it is and what it was asked, and works for a moment.
        "token" => {
            let mut answer = state.id()?;
            answer.extend_from_slice(format!("token={}\n", word(1)?).as_bytes());
            Ok(answer)
        }
        // What the crate for Rust functions finds.
        "credential" => {
            let token = sublet_function::token().map_err(|error| error.to_string())?;
            Ok(token.unwrap_or_default().into_bytes())
        }
        "put" => state.put(word(1)?, word(2)?),
        "get" => state.get(word(1)?),
        "count" => state.count(),
        "background" => state.background(),
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number(1)?));
            Ok(b"slept".to_vec())
        }
        // Goes on writing to its log after the answer.
        "mumble" => {
            let time = Duration::from_millis(number(1)?);
            std::thread::spawn(move || {
                let end = std::time::Instant::now() + time;
                while std::time::Instant::now() < end {
                    println!("mumble");
                    std::thread::sleep(Duration::from_millis(2));
                }
                println!("mumble done");
            });
            Ok(Vec::new())
        }
        "spin" => limits::spin(Duration::from_millis(number(1)?)),
        "spin-all" => limits::spin_all(number(1)?, Duration::from_millis(number(2)?)),
        "alloc" => limits::alloc(number(1)?),
        "tcp" => limits::tcp(number(1)?),
        // Both keep what they took, as a function that leaks.
        "hold" => state.hold(number(1)?),
        "leak" => state.leak(number(1)?),
        "let-go" => state.let_go(),
        "fork" => limits::fork(number(1)?),
        // Three that meet a limit and go on: with an answer, with an answer, with an error of their own.
        "lose-child" => limits::lose_child(number(1)?),
        "caught" => Ok(format!("caught {:?}", limits::fork(number(1)?)).into_bytes()),
        "caught-error" => limits::fork(number(1)?).and(Err(String::new())).or(Err("my own words".into())),
        "bomb" => {
            let generations = u32::try_from(number(1)?).map_err(|e| e.to_string())?;
            limits::bomb(generations.min(limits::GENERATIONS_MAX), Duration::from_millis(number(2)?))
        }
        "fill" => limits::fill(number(1)?),
        "stuff" => limits::stuff(number(1)?),
        "files" => limits::files(number(1)?),
        "open" => limits::open(number(1)?),
        "flood" => limits::flood(number(1)?),
        // One byte at a time, for so many milliseconds.
        "drip" => {
            let end = std::time::Instant::now() + Duration::from_millis(number(1)?);
            let mut log = std::io::stderr();
            while std::time::Instant::now() < end {
                log.write_all(b"x").map_err(|error| error.to_string())?;
            }
            Ok(Vec::new())
        }
        "limits" => limits::rlimits(),
        "inotify" => counters::instances(number(1)?),
        "watches" => counters::watches(number(1)?),
        "signals" => counters::signals(number(1)?),
        "clocks" => counters::clocks(),
        "owner" => counters::owner(word(1)?),
        "answer" => Ok(vec![b'x'; usize::try_from(number(1)?).map_err(|e| e.to_string())?]),
        "signal" => {
            sys::raise(i32::try_from(number(1)?).map_err(|e| e.to_string())?);
            Ok(b"survived".to_vec())
        }
        "exit" => std::process::exit(i32::try_from(number(1)?).map_err(|e| e.to_string())?),
        "error" => Err("as asked".into()),
        "read" => attack::read(word(1)?),
        "write" => attack::write(word(1)?),
        "list" => attack::list(word(1)?),
        "connect" => attack::connect(word(1)?),
        "kill" => attack::kill(i32::try_from(number(1)?).map_err(|e| e.to_string())?),
        "try" => attack::try_call(word(1)?),
        "daemon" => attack::daemon(),
        "flock" => shared::flock(word(1)?),
        "read-lock" => shared::read_lock(word(1)?),
        "look-for-locks" => shared::look_for_locks(word(1)?),
        "watch" => shared::watch(word(1)?),
        "watched" => shared::watched(),
        "mark-stdin" => shared::mark_stdin(),
        "stdin-flags" => shared::stdin_flags(),
        "hostile" => hostile::perform(words.get(1..).unwrap_or_default()),
        other => Err(format!("unknown verb {other:?}")),
    }
}
