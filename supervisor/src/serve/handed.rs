//! Sockets that were handed in, each found its place in the configuration: by what it is bound to, and by nothing else. One
//! that has no place is refused by name, because its callers would wait for ever.

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
};

use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::{config::Host, process::handed::Handed};

/// Why a socket that was handed in is not used.
#[derive(Debug, thiserror::Error)]
pub enum MisplacedError {
    /// It takes no connections.
    #[error("{who} is {what}; hand in stream sockets that listen: ListenStream= of a socket unit, with Accept=no")]
    NotAListener {
        /// The descriptor and the name that it came with.
        who: String,
        /// What it is.
        what: &'static str,
    },
    /// The configuration has no such socket.
    #[error("{who} listens on {address}, which is neither {known}; correct the address there or here")]
    Unknown {
        /// The descriptor and the name that it came with.
        who: String,
        /// What it is bound to.
        address: String,
        /// What the configuration has.
        known: String,
    },
    /// Two have one place.
    #[error("{who} listens on {address}, as another one does that was handed in; hand in each socket once")]
    Twice {
        /// The descriptor and the name that it came with.
        who: String,
        /// What it is bound to.
        address: String,
    },
}

/// What a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// Neither has a form in the configuration.
    Other(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// What is known of a socket.
#[derive(Clone, Debug)]
struct Facts {
    who: String,
    address: Address,
    is_stream: bool,
    is_listening: bool,
}

impl Facts {
    fn of(Handed { name, number, socket }: &Handed) -> Self {
        Self {
            who: format!("descriptor {number} ({name:?}), which was handed in by LISTEN_FDS,"),
            address: address(socket),
            // Of what is no socket at all nothing is so.
            is_stream: getsockopt(socket, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream),
            is_listening: getsockopt(socket, sockopt::AcceptConn).unwrap_or(false),
        }
    }
}

fn address(socket: &OwnedFd) -> Address {
    let copy = || socket.try_clone();
    if let Ok(Ok(address)) = copy().map(|socket| UnixListener::from(socket).local_addr()) {
        return match address.as_pathname() {
            Some(path) => Address::Unix(path.to_owned()),
            None => Address::Other("a UNIX socket without a path".to_owned()),
        };
    }
    match copy().map(|socket| TcpListener::from(socket).local_addr()) {
        Ok(Ok(address)) => Address::Tcp(address),
        Ok(Err(_)) | Err(_) => Address::Other("no UNIX socket and no address of TCP".to_owned()),
    }
}

/// A socket of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Call,
    Admin,
    Tcp,
}

/// The place of one socket.
fn place(facts: &Facts, host: &Host) -> Result<Place, MisplacedError> {
    let who = || facts.who.clone();
    let what = match (facts.is_stream, facts.is_listening) {
        (true, true) => None,
        (true, false) => Some("a stream socket that does not listen"),
        (false, _) => Some("not a stream socket"),
    };
    if let Some(what) = what {
        return Err(MisplacedError::NotAListener { who: who(), what });
    }
    let sockets = [(Place::Call, "host.socket", &host.socket), (Place::Admin, "host.admin_socket", &host.admin_socket)];
    let found = match &facts.address {
        Address::Unix(path) => sockets.iter().find(|(_, _, own)| own.as_path() == path).map(|(place, ..)| *place),
        Address::Tcp(address) => (host.listen == Some(*address)).then_some(Place::Tcp),
        Address::Other(_) => None,
    };
    found.ok_or_else(|| {
        let mut known: Vec<String> =
            sockets.iter().map(|(_, key, path)| format!("{key} = {:?}", path.as_str())).collect();
        known.extend(host.listen.map(|address| format!("host.listen = \"{address}\"")));
        MisplacedError::Unknown { who: who(), address: facts.address.to_string(), known: known.join(" nor ") }
    })
}

/// The sockets of the configuration that were handed in.
#[derive(Debug, Default)]
pub struct Listening {
    /// The UNIX socket of callers: `host.socket`.
    pub call: Option<UnixListener>,
    /// The UNIX socket of operators: `host.admin_socket`.
    pub admin: Option<UnixListener>,
    /// The TCP socket of callers, on loopback: `host.listen`.
    pub tcp: Option<TcpListener>,
}

impl Listening {
    /// Gives each its place.
    ///
    /// # Errors
    /// The first that has none.
    pub fn of(handed: Vec<Handed>, host: &Host) -> Result<Self, MisplacedError> {
        let mut listening = Self::default();
        for socket in handed {
            let facts = Facts::of(&socket);
            let socket = socket.socket;
            let is_taken = match place(&facts, host)? {
                Place::Call => listening.call.replace(socket.into()).is_some(),
                Place::Admin => listening.admin.replace(socket.into()).is_some(),
                Place::Tcp => listening.tcp.replace(socket.into()).is_some(),
            };
            if is_taken {
                return Err(MisplacedError::Twice { who: facts.who, address: facts.address.to_string() });
            }
        }
        Ok(listening)
    }

    /// Whether the UNIX sockets were handed in: that of callers, that of operators.
    pub const fn has_unix(&self) -> [bool; 2] {
        [self.call.is_some(), self.admin.is_some()]
    }

    /// Whether callers wait at a socket of somebody else, which outlives this process.
    pub const fn has_callers(&self) -> bool {
        self.call.is_some() || self.tcp.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        os::{
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr as UnixAddress, UnixStream},
        },
        path::Path,
    };

    use super::*;
    use crate::config::Config;

    fn host(dir: &Path, more: &str) -> Host {
        let text = format!("[host]\nstate_dir = {:?}\n{more}", dir.display().to_string());
        Config::parse(&text, Path::new("/")).unwrap().host
    }

    fn handed(socket: impl Into<OwnedFd>) -> Handed {
        Handed { name: "web".into(), number: 3, socket: socket.into() }
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-handed-{name}-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            Self(dir)
        }

        fn listener(&self, name: &str) -> UnixListener {
            UnixListener::bind(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn each_socket_is_found_by_what_it_is_bound_to() {
        let dir = Dir::new("each");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = host(&dir.0, &format!("listen = \"{}\"", tcp.local_addr().unwrap()));
        // In any order, whatever they are called.
        let all = vec![handed(tcp), handed(dir.listener("admin.sock")), handed(dir.listener("call.sock"))];
        let found = Listening::of(all, &host).unwrap();
        let path = |listener: &Option<UnixListener>| {
            listener.as_ref().unwrap().local_addr().unwrap().as_pathname().unwrap().to_owned()
        };
        assert_eq!(path(&found.call), dir.0.join("call.sock"));
        assert_eq!(path(&found.admin), dir.0.join("admin.sock"));
        assert_eq!(found.tcp.as_ref().map(|tcp| tcp.local_addr().unwrap()), host.listen);
        assert!(found.has_callers() && !Listening::default().has_callers());
    }

    #[test]
    fn socket_without_a_place_is_refused_by_name() {
        let dir = Dir::new("wrong");
        let host = host(&dir.0, "listen = \"127.0.0.1:1\"");
        let refused = |socket: OwnedFd| Listening::of(vec![handed(socket)], &host).unwrap_err().to_string();
        let told = refused(dir.listener("other.sock").into());
        for words in
            ["descriptor 3 (\"web\")", "/other.sock", "host.socket = ", "host.admin_socket = ", "host.listen = "]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        assert!(refused(tcp.into()).contains(&address));
        let name = UnixAddress::from_abstract_name(format!("sublet-handed-{}", std::process::id())).unwrap();
        let told = refused(UnixListener::bind_addr(&name).unwrap().into());
        assert!(told.contains("a UNIX socket without a path"), "{told}");
        assert!(refused(UdpSocket::bind("127.0.0.1:0").unwrap().into()).contains("not a stream socket"));
        assert!(refused(UnixStream::pair().unwrap().0.into()).contains("that does not listen"));
        assert!(refused(std::fs::File::open("/dev/null").unwrap().into()).contains("not a stream socket"));
        let call = dir.listener("call.sock");
        let twice = vec![handed(call.try_clone().unwrap()), handed(call)];
        assert!(Listening::of(twice, &host).unwrap_err().to_string().contains("hand in each socket once"));
    }
}
