//! Takes the terminal, and gives it back on every way out: return, error, signal, panic.

use std::{
    io::{self, Stdout},
    mem::ManuallyDrop,
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, backend::CrosstermBackend};
use tokio::signal::unix::{Signal, SignalKind};

use crate::cli::signals;

/// Best effort: who leaves cannot do more about a terminal that is gone.
fn give_back() {
    disable_raw_mode().ok();
    execute!(io::stdout(), LeaveAlternateScreen, Show).ok();
}

/// Gives the terminal back when it is dropped, half taken as well.
#[derive(Debug)]
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// The terminal, as long as it is ours.
#[derive(Debug)]
pub struct Terminal {
    /// Never dropped: it would show the cursor, as [`give_back`] does, and complain when it cannot; on a standard error
    /// that has gone with the terminal that panics.
    inner: ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stdout>>>,
    _taken: Taken,
}

impl Terminal {
    /// Takes it: keys come one by one, and what was on the screen is kept aside.
    ///
    /// # Errors
    /// It is no terminal, or it has gone.
    pub fn take() -> io::Result<Self> {
        // A release build aborts on panic and drops nothing; and the message belongs on the screen that stays.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            report(info);
        }));
        let taken = Taken;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        let inner = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Self { inner: ManuallyDrop::new(inner), _taken: taken })
    }

    /// Draws one frame, at the size the terminal has now.
    ///
    /// # Errors
    /// It has gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.inner.draw(draw).map(drop)
    }
}

/// The signals that end a program.
#[derive(Debug)]
pub struct Signals([Signal; 4]);

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel refuses the handler.
    pub fn new() -> io::Result<Self> {
        let kinds = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()];
        signals::listen(kinds).map(Self)
    }

    /// Waits for one of them.
    pub async fn any(&mut self) {
        let [hangup, interrupt, quit, terminate] = &mut self.0;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
