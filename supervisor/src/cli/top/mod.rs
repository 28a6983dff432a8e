//! `sublet top`: who uses what, live in a terminal or once.
//!
//! ```text
//!  supervisor --data--> samples --model--> rows --sort--> screen --view--> terminal
//!                          |                                ^
//!                          '--once--> text or JSON          '-- keys
//! ```
//! Only `data` knows the socket, only `terminal` the terminal's modes, and this module joins them; the rest is pure.

mod columns;
mod data;
#[cfg(test)]
mod fixture;
mod mark;
mod model;
mod once;
mod palette;
mod screen;
mod sort;
mod terminal;
mod view;

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use crossterm::event::{Event, EventStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;

use self::{
    data::Source,
    palette::Palette,
    screen::{Next, Screen},
    sort::SortKey,
    terminal::{Signals, Terminal},
};
use super::{AdminSocket, Failed, WrongArgument, client};

/// Shortest time between samples: less would show more of the asking than of the work.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// What `sublet top` is told.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Two samples, one interval apart, printed once; --json implies it.
    #[arg(long)]
    once: bool,
    /// Time between samples, for example 2s.
    #[arg(long, value_parser = every, default_value = "1s")]
    every: Duration,
    /// What comes first.
    #[arg(long, value_enum, default_value_t)]
    sort: SortKey,
    /// Only sub-tenants whose tenant, hash or class has this text in it.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    socket: AdminSocket,
}

fn every(text: &str) -> Result<Duration, WrongArgument> {
    let every = super::duration(text)?;
    if every < EVERY_MIN {
        return Err(WrongArgument(format!("less than {} ms is too often", EVERY_MIN.as_millis())));
    }
    Ok(every)
}

impl TopArgs {
    /// Whether it stays, rather than print once.
    pub fn is_live(&self, json: bool) -> bool {
        !self.once && !json
    }
}

/// `sublet top`.
pub fn run(args: TopArgs, json: bool) -> Result<(), Failed> {
    if !args.is_live(json) {
        return once::run(&args, json);
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failed::new("standard output is no terminal; use `sublet top --once`, for programs with --json"));
    }
    client::block_on(live(args))
}

async fn live(args: TopArgs) -> Result<(), Failed> {
    let mut screen = Screen::new(args.sort, &args.filter);
    let palette = Palette::from_environment();
    let (sender, mut samples) = mpsc::channel(1);
    tokio::spawn(Source::new(&args.socket.path, args.tenant).poll(args.every, sender));
    // Before the terminal is taken: a signal must not find it taken and nobody to give it back.
    let mut signals = Signals::new()?;
    let mut terminal = Terminal::take()?;
    let mut events = EventStream::new();
    loop {
        terminal.draw(|frame| view::draw(frame, &screen, palette))?;
        tokio::select! {
            sample = samples.recv() => match sample {
                Some(Ok(sample)) => screen.take(sample),
                Some(Err(failed)) => screen.fail(failed.message),
                None => return Err(Failed::new("nobody asks the supervisor any more")),
            },
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) => if screen.press(key) == Next::Quit { return Ok(()) },
                // A new size is drawn as everything else is.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            () = signals.any() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        top: TopArgs,
    }

    fn parse(line: &str) -> Result<TopArgs, String> {
        let line = Line::try_parse_from(std::iter::once("top").chain(line.split_whitespace()));
        line.map(|line| line.top).map_err(|error| error.to_string())
    }

    #[test]
    fn bare_top_is_live_by_cpu_each_second() {
        let args = parse("").expect("nothing is required");
        assert_eq!((args.every, args.sort, args.filter.as_str()), (Duration::from_secs(1), SortKey::Cpu, ""));
        assert!(args.is_live(false));
        assert!(!args.is_live(true), "--json is one value, here too");
        assert!(!parse("--once").expect("it is a flag").is_live(false));
    }

    #[test]
    fn every_key_can_be_named_and_no_other() {
        for key in SortKey::ALL {
            assert_eq!(parse(&format!("--sort {}", key.name())).expect("it is a key").sort, key);
        }
        assert!(parse("--sort pid").expect_err("no key").contains("throttled"), "the keys are named");
    }

    #[test]
    fn time_between_samples_has_a_least() {
        assert_eq!(parse("--every 2s").expect("it is a time").every, Duration::from_secs(2));
        assert_eq!(parse("--every 100ms").expect("just enough").every, EVERY_MIN);
        for too_often in ["--every 99ms", "--every 0s"] {
            assert!(parse(too_often).expect_err("too often").contains("100 ms"));
        }
        assert!(parse("--every fast").is_err());
    }
}
