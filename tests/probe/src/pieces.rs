//! Answers in pieces: `pieces COUNT BYTES MILLISECONDS THEN`, where THEN is end, fail, exit or hang.

use std::{io, time::Duration};

use crate::Outcome;

/// Gives COUNT pieces of BYTES bytes to `sink`, so many milliseconds apart, and then does what comes THEN.
pub fn run(arguments: &str, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> Outcome {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let [count, bytes, pause, then] = words[..] else { return Err(format!("not four words: {arguments:?}")) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let (count, bytes, pause) = (number(count)?, number(bytes)?, Duration::from_millis(number(pause)?));
    for at in 0..count {
        // Every piece tells its place, so that one that is lost, doubled or moved is seen.
        let piece: Vec<u8> = format!("{at:07} ").bytes().cycle().take(usize::try_from(bytes).unwrap_or(0)).collect();
        sink(&piece).map_err(|error| error.to_string())?;
        std::thread::sleep(pause);
    }
    match then {
        "end" => Ok(b"end".to_vec()),
        "fail" => Err("in the middle".into()),
        "exit" => std::process::exit(5),
        "hang" => {
            std::thread::sleep(Duration::from_secs(3600));
            Ok(Vec::new())
        }
        other => Err(format!("{other:?} is no end")),
    }
}
