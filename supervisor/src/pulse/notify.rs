//! systemd's notifications (sd_notify(3)): that we serve, that we stop, and that the loop runs.
//!
//! The socket is connected before the supervisor confines itself, as afterwards it can make none. Without NOTIFY_SOCKET there
//! is nothing to tell anybody.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Told so many times in the time after which systemd takes us for dead: one that is late, or lost, must not end us.
const TOLD_PER_LIMIT: u32 = 3;
/// The loop may be a little later than it means to be.
const BEATS_PER_LIMIT: u32 = 6;

/// What the environment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where: a path, or behind `@` an abstract name.
    socket: String,
    /// After so long without a word we are taken for dead.
    limit: Option<Duration>,
}

/// What the environment asks for cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Of another kind.
    #[error("NOTIFY_SOCKET={0:?} is neither a path nor an abstract name (\"@...\"); systemd is told nothing")]
    Socket(String),
    /// Nobody is there.
    #[error("connect to NOTIFY_SOCKET={socket:?}: {error}; systemd is told nothing")]
    Connect {
        /// The value of NOTIFY_SOCKET.
        socket: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl Asked {
    /// `variable` gives a variable of the environment. `pid` is ours: whoever started us may have been meant instead.
    ///
    /// # Errors
    /// The socket is of a kind that is not known.
    pub fn of(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Result<Option<Self>, NotifyError> {
        let Some(socket) = variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return Ok(None) };
        if !socket.starts_with(['/', '@']) {
            return Err(NotifyError::Socket(socket));
        }
        let is_meant = variable("WATCHDOG_PID").is_none_or(|meant| meant.trim() == pid.to_string());
        let limit = variable("WATCHDOG_USEC").filter(|_| is_meant).and_then(|text| text.trim().parse().ok());
        let limit = limit.filter(|usec| *usec > 0).map(Duration::from_micros);
        Ok(Some(Self { socket, limit }))
    }

    /// Connects, which a confined process cannot.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn connect(self) -> Result<Notify, NotifyError> {
        let connect = || -> io::Result<UnixDatagram> {
            let address = match self.socket.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&self.socket)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            // Nobody of ours waits for whoever reads it.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Ok(Notify { socket, limit: self.limit, told: Mutex::default() }),
            Err(error) => Err(NotifyError::Connect { socket: self.socket, error }),
        }
    }
}

/// What the environment of this process asks for.
///
/// # Errors
/// It cannot be done.
pub fn connect() -> Result<Option<Notify>, NotifyError> {
    let asked = Asked::of(|name| std::env::var(name).ok(), std::process::id())?;
    asked.map(Asked::connect).transpose()
}

/// systemd, or whoever else was named.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    limit: Option<Duration>,
    /// When it was last told that the loop runs.
    told: Mutex<Option<Instant>>,
}

impl Notify {
    fn tell(&self, words: &str) {
        // There is no room now: the next word comes soon. Nobody is there any more: then nobody has to be told.
        self.socket.send(words.as_bytes()).ok();
    }

    /// Calls are taken.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=lets accepted calls end");
    }

    /// How often the loop has to beat at the least.
    pub fn beats_every(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / BEATS_PER_LIMIT)
    }

    /// The loop runs. Told as often as was asked for.
    pub fn beat(&self, now: Instant) {
        let Some(limit) = self.limit else { return };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.saturating_duration_since(told) >= limit / TOLD_PER_LIMIT) {
            *told = Some(now);
            self.tell("WATCHDOG=1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(variables: &[(&str, &str)]) -> Result<Option<Asked>, NotifyError> {
        let find = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Asked::of(find, 17)
    }

    #[test]
    fn environment_asks_for_a_socket_and_perhaps_a_watchdog_of_this_process() {
        assert_eq!(asked(&[]).unwrap(), None);
        assert_eq!(asked(&[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "1")]).unwrap(), None);
        let limit = |variables: &[(&str, &str)]| {
            let all = [&[("NOTIFY_SOCKET", "/run/systemd/notify")], variables].concat();
            asked(&all).unwrap().unwrap().limit
        };
        assert_eq!(limit(&[]), None);
        let usec = ("WATCHDOG_USEC", "30000000");
        assert_eq!(limit(&[usec]), Some(Duration::from_secs(30)));
        assert_eq!(limit(&[usec, ("WATCHDOG_PID", "17")]), Some(Duration::from_secs(30)));
        assert_eq!(limit(&[usec, ("WATCHDOG_PID", "18")]), None);
        for wrong in ["0", "-1", "soon", ""] {
            assert_eq!(limit(&[("WATCHDOG_USEC", wrong)]), None, "{wrong}");
        }
        let error = asked(&[("NOTIFY_SOCKET", "vsock:2:1")]).unwrap_err();
        assert!(error.to_string().contains("vsock:2:1"), "{error}");
    }

    #[test]
    fn words_arrive_by_path_and_abstract_name_and_the_watchdog_no_oftener_than_asked() {
        let path = std::env::temp_dir().join(format!("sublet-notify-{}", std::process::id()));
        let name = format!("sublet-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let shown = path.display().to_string();
        for (socket, address) in [(by_path, shown), (by_name, format!("@{name}"))] {
            socket.set_nonblocking(true).unwrap();
            let limit = Some(Duration::from_secs(3));
            let notify = Asked { socket: address, limit }.connect().unwrap();
            let start = Instant::now();
            notify.ready();
            for millis in [0, 500, 999, 1000, 1500, 2000] {
                notify.beat(start + Duration::from_millis(millis));
            }
            notify.stopping();
            let mut words = Vec::new();
            let mut bytes = [0; 100];
            while let Ok(length) = socket.recv(&mut bytes) {
                words.push(String::from_utf8_lossy(&bytes[..length]).lines().next().unwrap_or_default().to_owned());
            }
            assert_eq!(words, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(Asked { socket: path.display().to_string(), limit: None }.connect().is_err());
    }
}
