//! The least a server of the Lambda Runtime API can be: what a stock client takes by itself, outside of any cage.
//!
//! ```text
//!   warm-floor runtime-api --event TEXT -- COMMAND     starts COMMAND with AWS_LAMBDA_RUNTIME_API, gives it calls until it has had enough
//! ```
//! Blocking reads and writes, a thread for each connection, no checks but those that keep the figure honest: every call is
//! answered, by its own id, with a 2xx of ours. A sample is a whole turn, from the moment a call is there to be written until the
//! client asks for the next one: that is how long a client is taken up by a call. Prints the same line as the client does.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Args;

use crate::{Error, client};

/// A client that does not ask, or answer, for so long ends the run.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line of a head, and most bytes of a body.
const LINE_MAX: u64 = 64 << 10;
const BODY_MAX: usize = 16 << 20;
const VERSION: &str = "/2018-06-01/runtime";

/// Arguments of the role.
#[derive(Args)]
pub struct RuntimeApi {
    /// What each call carries.
    #[arg(long)]
    event: String,
    /// Calls measured.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
    /// Calls given first and not measured.
    #[arg(long, default_value_t = 200)]
    warm_up: u32,
    /// Name in the output.
    #[arg(long, default_value = "runtime-api")]
    name: String,
    /// The client, as its function would start it.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What all connections know.
#[derive(Default)]
struct Turn {
    /// Calls given out; the number of the last is its id.
    given: usize,
    /// Whether the last one has been answered.
    is_answered: bool,
    since: Option<Instant>,
    samples: Vec<u64>,
}

/// Serves the client and prints the report.
pub fn run(arguments: &RuntimeApi) -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::io("listen on loopback"))?;
    let address = listener.local_addr().map_err(Error::io("look at the listener"))?;
    let (done, ends) = channel();
    let turn = Arc::new(Mutex::new(Turn::default()));
    let warm_up = arguments.warm_up as usize;
    let wanted = warm_up + arguments.calls as usize;
    let (shared, event) = (turn.clone(), arguments.event.clone());
    std::thread::spawn(move || accept(&listener, &shared, &event, wanted, &done));
    let mut client = start(&arguments.command, &address.to_string())?;
    let outcome = wait(&ends, &turn, &mut client);
    // Whatever came of it, the client goes.
    client.kill().ok();
    client.wait().map_err(Error::io("wait for the client"))?;
    outcome?;
    let samples = std::mem::take(&mut lock(&turn).samples).split_off(warm_up);
    // One turn follows the other, so their sum is the time; the client's start and the warm-up are not in it.
    let rate = samples.len() as f64 / Duration::from_nanos(samples.iter().sum()).as_secs_f64();
    client::print(&arguments.name, 1, arguments.event.len(), rate, &samples)
}

fn lock(turn: &Mutex<Turn>) -> std::sync::MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(command: &[String], address: &str) -> Result<Child, Error> {
    let Some((program, rest)) = command.split_first() else { return Err(Error::Protocol("no command".into())) };
    let mut client = Command::new(program);
    client.args(rest).env("AWS_LAMBDA_RUNTIME_API", address).stdin(Stdio::null()).stdout(Stdio::null());
    client.env("AWS_LAMBDA_FUNCTION_NAME", "floor").env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST");
    client.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256").env("AWS_LAMBDA_LOG_GROUP_NAME", "floor");
    client.env("AWS_LAMBDA_LOG_STREAM_NAME", "floor").env("AWS_REGION", "local");
    client.spawn().map_err(Error::io(format!("start {program}")))
}

/// Until the last call has been answered, or nothing comes any more.
fn wait(ends: &Receiver<Result<(), Error>>, turn: &Mutex<Turn>, client: &mut Child) -> Result<(), Error> {
    let mut before = 0;
    let mut since = Instant::now();
    loop {
        if let Ok(end) = ends.recv_timeout(Duration::from_millis(20)) {
            return end;
        }
        let now = lock(turn).samples.len();
        if now > before {
            (before, since) = (now, Instant::now());
        }
        if let Some(status) = client.try_wait().map_err(Error::io("look at the client"))? {
            return Err(Error::Protocol(format!("the client ended early, after {now} calls: {status}")));
        }
        if since.elapsed() > PATIENCE {
            return Err(Error::Protocol(format!("the client has said nothing for {} s", PATIENCE.as_secs())));
        }
    }
}

fn accept(
    listener: &TcpListener,
    turn: &Arc<Mutex<Turn>>,
    event: &str,
    wanted: usize,
    done: &Sender<Result<(), Error>>,
) {
    for stream in listener.incoming() {
        let (turn, event, done) = (turn.clone(), event.to_owned(), done.clone());
        let serve = move || {
            let served = stream.and_then(|stream| serve(stream, &turn, &event, wanted));
            match served {
                Ok(false) => {}
                Ok(true) => drop(done.send(Ok(()))),
                Err(error) => drop(done.send(Err(Error::io("talk to the client")(error)))),
            }
        };
        std::thread::spawn(serve);
    }
}

/// One connection, to its end. Whether that is the end of all.
fn serve(stream: TcpStream, turn: &Mutex<Turn>, event: &str, wanted: usize) -> io::Result<bool> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    while let Some((line, _body)) = request(&mut from)? {
        if line == format!("GET {VERSION}/invocation/next") {
            let now = Instant::now();
            let id = {
                let mut turn = lock(turn);
                if let Some(since) = turn.since.take() {
                    if !turn.is_answered {
                        return Err(io::Error::other("the next call was asked for before the last was answered"));
                    }
                    turn.samples.push(u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX));
                }
                if turn.samples.len() == wanted {
                    return Ok(true);
                }
                turn.given += 1;
                turn.is_answered = false;
                turn.since = Some(Instant::now());
                turn.given
            };
            let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() + 60_000;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: {id}\r\n\
                 Lambda-Runtime-Deadline-Ms: {deadline}\r\nLambda-Runtime-Invoked-Function-Arn: \
                 arn:aws:lambda:local:000000000000:function:floor\r\nContent-Length: {}\r\n\r\n{event}",
                event.len()
            );
            out.write_all(head.as_bytes())?;
        } else {
            let mut turn = lock(turn);
            if line != format!("POST {VERSION}/invocation/{}/response", turn.given) || turn.is_answered {
                return Err(io::Error::other(format!("{line:?} where call {} was to be answered", turn.given)));
            }
            turn.is_answered = true;
            drop(turn);
            out.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
    Ok(false)
}

/// Method and path, and the body. None at the end of the connection.
fn request(from: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let Some(first) = line(from)? else { return Ok(None) };
    let request = first.rsplit_once(' ').map_or(first.as_str(), |(request, _)| request).to_owned();
    let (mut length, mut is_chunked) = (0, false);
    while let Some(header) = line(from)?.filter(|line| !line.is_empty()) {
        let Some((name, value)) = header.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !is_chunked {
        read(from, length, &mut body)?;
        return Ok(Some((request, body)));
    }
    loop {
        let size = line(from)?.unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        read(from, size, &mut body)?;
        line(from)?;
        if size == 0 {
            return Ok(Some((request, body)));
        }
    }
}

fn read(from: &mut BufReader<TcpStream>, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    if body.len() + length > BODY_MAX {
        return Err(io::Error::other(format!("a body of more than {BODY_MAX} bytes")));
    }
    let filled = body.len();
    body.resize(filled + length, 0);
    from.read_exact(&mut body[filled..])
}

fn line(from: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    if from.take(LINE_MAX).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}
