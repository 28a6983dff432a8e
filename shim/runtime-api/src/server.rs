//! HTTP for one runtime: routes, headers, bounds.

use std::{cell::RefCell, convert::Infallible, fmt, io, rc::Rc, str::Utf8Error};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::spawn_local,
};

use crate::{
    Event, Link, Outbound,
    machine::{Machine, News, Next, Refusal},
    reply::{Answer, accepted, answer, refused, said, unknown},
    token,
};

/// Connections at a time. Stock clients have one, or two while they report a failed start.
const CONNECTIONS_MAX: usize = 64;
/// Request line and headers: a client may send an X-Ray cause of 1 MiB in one.
const HEAD_MAX_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// Header fields of a request.
const HEADERS_MAX: usize = 100;
/// What is kept of what a runtime says about a failed start or a failed call, in bytes; the rest of it is dropped.
pub const ERROR_MAX_BYTES: usize = 64 * 1024;
const VERSION: &str = "/2018-06-01";

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");
const DEADLINE_MS: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const FUNCTION_ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TENANT_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-tenant-id");
const RESPONSE_MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");
const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");

/// What does not change from call to call.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Of the function.
    pub arn: String,
    /// The sub-tenant; empty for none.
    pub tenant_id: String,
    /// Largest answer in bytes.
    pub answer_max_bytes: usize,
    /// Where the sub-tenant's token is, when the function is given one.
    pub token_file: Option<&'static str>,
}

/// The API of one worker.
pub struct Server<L> {
    machine: RefCell<Machine>,
    link: L,
    /// What the supervisor is told once the runtime has its own answer.
    held: RefCell<Option<(Rc<Event>, Outbound)>>,
    identity: Identity,
}

/// An answer that begins to arrive; given up when dropped before its end.
struct Arriving<'a>(&'a RefCell<Machine>);

impl Arriving<'_> {
    fn end(self) {
        self.0.borrow_mut().end_answer();
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        // After its end there is nothing to give up.
        self.0.borrow_mut().give_up_answer();
    }
}

/// Why a body was not read to its end.
enum Cut {
    TooLarge,
    Broken,
}

impl<L: Link + 'static> Server<L> {
    /// Of a runtime that has not started.
    pub fn new(link: L, identity: Identity) -> Rc<Self> {
        Rc::new(Self { machine: RefCell::default(), link, held: RefCell::default(), identity })
    }

    /// A call has come.
    pub fn call(&self, event: Event) {
        let event =
            Event { payload: if event.payload.is_empty() { Bytes::from("{}") } else { event.payload }, ..event };
        // Node's client parses outside of its try block: what is no JSON would end the worker.
        if let Err(why) = check_json(&event.payload) {
            self.tell(Some(&event), Outbound::BadPayload(why.to_string()));
            return self.tell(Some(&event), Outbound::Idle);
        }
        self.machine.borrow_mut().deliver(Rc::new(event));
    }

    /// Tells the supervisor, in the order of things.
    fn tell(&self, event: Option<&Event>, what: Outbound) {
        self.send_held();
        self.link.send(event, what);
    }

    /// Tells the supervisor of an answer as soon as the runtime has been told that it was taken: the runtime has the longer way
    /// to its next call than the caller, and whoever is told first may take the processor.
    fn hold(&self, event: Rc<Event>, what: Outbound) {
        self.send_held();
        *self.held.borrow_mut() = Some((event, what));
    }

    /// Sends what is held back. To be called before the launcher ends.
    pub fn send_held(&self) {
        if let Some((event, what)) = self.held.take() {
            self.link.send(Some(&event), what);
        }
    }

    /// Takes connections until the listener fails; within a `LocalSet`.
    ///
    /// # Errors
    /// What accept says.
    pub async fn listen(self: Rc<Self>, listener: TcpListener) -> io::Result<()> {
        let open = Rc::new(());
        loop {
            let (stream, _) = listener.accept().await?;
            if Rc::strong_count(&open) > CONNECTIONS_MAX {
                // Closed at once: whoever opens so many is not waiting for an answer on each.
                continue;
            }
            stream.set_nodelay(true)?;
            let (server, open) = (self.clone(), open.clone());
            spawn_local(async move {
                let _open = open;
                server.serve(stream).await;
            });
        }
    }

    /// Serves one connection to its end; within a `LocalSet`.
    pub async fn serve(self: Rc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| {
            let server = self.clone();
            async move {
                let answer = server.route(request).await;
                if server.held.borrow().is_some() {
                    // Runs when this task has written what it has to write.
                    spawn_local(async move { server.send_held() });
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_MAX_BYTES).max_headers(HEADERS_MAX).title_case_headers(true);
        // How a connection ends is the runtime's business.
        http.serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let Some(rest) = path.strip_prefix(VERSION) else {
            return match (request.method(), path.as_str()) {
                (&Method::GET, "/ping") => Response::new("pong".into()),
                (method, token::PATH) => token::answer_to(method, self.identity.token_file),
                _ => unknown(&path),
            };
        };
        let parts: Vec<&str> = rest.split('/').skip(1).collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["runtime", "invocation", "next"]) => self.next().await,
            (&Method::POST, ["runtime", "invocation", id, "response"]) => self.response(id, request).await,
            (&Method::POST, ["runtime", "invocation", id, "error"]) => self.error(id, request).await,
            (&Method::POST, ["runtime", "init", "error"]) => self.init_error(request).await,
            _ => unknown(&path),
        }
    }

    async fn next(&self) -> Answer {
        let (next, news) = match self.machine.borrow_mut().poll() {
            Ok(told) => told,
            Err(refusal) => return refused(refusal),
        };
        match news {
            News::None => {}
            News::Ready => self.tell(None, Outbound::Ready),
            News::Idle(event) => self.tell(Some(&event), Outbound::Idle),
        }
        let event = match next {
            Next::Now(event) => event,
            Next::Later(event) => match event.await {
                Ok(event) => event,
                // Only when another poll has taken its place, and that only when this one's connection is gone.
                Err(_) => return refused(Refusal::InvalidStateTransition),
            },
        };
        let mut answer = Response::new(Full::new(event.payload.clone()));
        let headers = answer.headers_mut();
        let mut put = |name: HeaderName, value: &str| {
            // A label is any text without control characters, and a header takes those as bytes.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        };
        // Exactly so: with anything behind it, one client hands its handler the bytes and not what they say.
        put(CONTENT_TYPE, "application/json");
        put(REQUEST_ID, &event.request_id());
        put(INVOCATION_ID, &event.invocation_id());
        put(DEADLINE_MS, &event.deadline_ms.to_string());
        put(FUNCTION_ARN, &self.identity.arn);
        if !self.identity.tenant_id.is_empty() {
            put(TENANT_ID, &self.identity.tenant_id);
        }
        answer
    }

    fn begin(&self, id: &str, headers: &HeaderMap) -> Result<(Rc<Event>, Arriving<'_>), Refusal> {
        let echo = headers.get(INVOCATION_ID).map(HeaderValue::as_bytes).filter(|echo| !echo.is_empty());
        let event = self.machine.borrow_mut().begin_answer(id, echo)?;
        Ok((event, Arriving(&self.machine)))
    }

    async fn response(&self, id: &str, request: Request<Incoming>) -> Answer {
        let (event, arriving) = match self.begin(id, request.headers()) {
            Ok(begun) => begun,
            Err(refusal) => return refused_after(request, refusal).await,
        };
        let is_streaming = match request.headers().get(RESPONSE_MODE).map(HeaderValue::as_bytes) {
            None | Some(b"") => false,
            Some(mode) if mode.eq_ignore_ascii_case(b"streaming") => true,
            Some(_) => {
                let said = said("Runtime.InvalidResponseModeHeader", "the response mode is not \"streaming\"");
                arriving.end();
                self.tell(Some(&event), Outbound::Failed(said.clone()));
                return answer(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", "unknown response mode");
            }
        };
        let limit = self.identity.answer_max_bytes;
        let mut body = request.into_body();
        let mut pass_on = |piece: Bytes| self.tell(Some(&event), Outbound::Piece(piece));
        let read = match is_streaming && event.in_pieces {
            // How much that may be is the supervisor's business, which counts.
            true => read(&mut body, usize::MAX, Some(&mut pass_on)).await,
            false => read(&mut body, limit, None).await,
        };
        let (bytes, trailers) = match read {
            Ok(read) => read,
            Err(Cut::Broken) => return answer(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "the body broke off"),
            Err(Cut::TooLarge) => {
                arriving.end();
                self.tell(Some(&event), Outbound::TooLarge);
                let said = format!("the answer has more than {limit} bytes");
                return answer(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &said);
            }
        };
        arriving.end();
        let failed = trailers.as_ref().and_then(failure_in);
        self.hold(event, failed.map_or(Outbound::Answer(bytes), Outbound::Failed));
        accepted()
    }

    async fn error(&self, id: &str, request: Request<Incoming>) -> Answer {
        let (event, arriving) = match self.begin(id, request.headers()) {
            Ok(begun) => begun,
            Err(refusal) => return refused_after(request, refusal).await,
        };
        match read_words(&mut request.into_body()).await {
            Ok(bytes) => {
                arriving.end();
                self.hold(event, Outbound::Failed(bytes));
                accepted()
            }
            Err(_) => answer(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "the body broke off"),
        }
    }

    async fn init_error(&self, request: Request<Incoming>) -> Answer {
        if let Err(refusal) = self.machine.borrow_mut().fail_init() {
            return refused(refusal);
        }
        let (bytes, is_whole) = match read_words(&mut request.into_body()).await {
            Ok(bytes) => (bytes, true),
            Err(_) => (said("Runtime.Unknown", "the runtime's own words could not be read"), false),
        };
        self.tell(None, Outbound::InitFailed(bytes));
        if is_whole {
            accepted()
        } else {
            answer(StatusCode::BAD_REQUEST, "TruncatedHTTPRequest", "the body broke off")
        }
    }
}

/// Reads a body of at most `limit` bytes, whole or piece by piece, and what trails it.
async fn read(
    body: &mut Incoming,
    limit: usize,
    mut in_pieces: Option<&mut dyn FnMut(Bytes)>,
) -> Result<(Bytes, Option<HeaderMap>), Cut> {
    // What is announced is refused before a byte of it is kept.
    if body.size_hint().lower() > limit as u64 {
        return Err(Cut::TooLarge);
    }
    let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or_default();
    let mut whole: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    let (mut total, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Cut::Broken)?;
        match frame.into_data() {
            Ok(data) => {
                total += data.len();
                if total > limit {
                    return Err(Cut::TooLarge);
                }
                match &mut in_pieces {
                    Some(pass_on) => pass_on(data),
                    // One that came at once is not copied.
                    None if total == announced && gathered.is_empty() => whole = Some(data),
                    None => {
                        gathered.reserve(announced.saturating_sub(gathered.len()));
                        gathered.extend_from_slice(&data);
                    }
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.unwrap_or_else(|| gathered.freeze()), trailers))
}

/// Reads what a runtime says of an error: its first [`ERROR_MAX_BYTES`], or a few less so that no character is cut in two. The
/// rest is read and dropped. A client that is refused its error ends, and with it a worker that is as fit as before; a long
/// error is nothing worse than a deep recursion.
///
/// # Errors
/// The body broke off.
async fn read_words(body: &mut (impl Body<Data = Bytes> + Unpin)) -> Result<Bytes, Broken> {
    let mut words = BytesMut::new();
    // One byte more than is kept tells whether the last character is whole.
    let most = ERROR_MAX_BYTES + 1;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Broken)?;
        if let Ok(data) = frame.into_data() {
            words.extend_from_slice(&data[..data.len().min(most - words.len())]);
        }
    }
    if words.len() == most {
        let is_inside = |at: &usize| words[*at] & 0xc0 == 0x80;
        // A character has four bytes at most; what is no UTF-8 is cut where it may be.
        let end = (ERROR_MAX_BYTES - 3..=ERROR_MAX_BYTES).rev().find(|at| !is_inside(at)).unwrap_or(ERROR_MAX_BYTES);
        words.truncate(end);
    }
    Ok(words.freeze())
}

/// A body that ended before its end.
#[derive(Debug, PartialEq, Eq)]
struct Broken;

/// Why a payload is not JSON.
#[derive(Debug)]
enum NotJson {
    /// It is no text.
    Utf8(Utf8Error),
    /// It is a text of another kind.
    Syntax(serde_json::Error),
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8(error) => write!(f, "it is not UTF-8: {error}"),
            Self::Syntax(error) => error.fmt(f),
        }
    }
}

/// Checks that a payload is JSON, which is UTF-8: clients differ in what they make of other bytes, and none says so.
///
/// # Errors
/// [`NotJson`], when it is not.
fn check_json(payload: &[u8]) -> Result<(), NotJson> {
    let text = std::str::from_utf8(payload).map_err(NotJson::Utf8)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(NotJson::Syntax)
}

/// What a runtime says that fails after it has begun to answer.
fn failure_in(trailers: &HeaderMap) -> Option<Bytes> {
    let kind = trailers.get(ERROR_TYPE)?;
    let body = trailers.get(ERROR_BODY).and_then(|body| BASE64_STANDARD.decode(body.as_bytes()).ok());
    Some(body.map_or_else(|| said(&String::from_utf8_lossy(kind.as_bytes()), "the answer broke off"), Bytes::from))
}

/// After the body: some clients wait with reading until they have written all of it.
async fn refused_after(request: Request<Incoming>, refusal: Refusal) -> Answer {
    let mut body = request.into_body();
    // What it is does not matter, nor how it ends.
    while let Some(Ok(_)) = body.frame().await {}
    refused(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(body: &[u8]) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_words(&mut Full::new(Bytes::copy_from_slice(body)))).unwrap()
    }

    #[test]
    fn error_is_kept_to_its_limit_and_no_character_is_cut() {
        assert_eq!(words(b"short"), "short");
        let most = vec![b'x'; ERROR_MAX_BYTES];
        assert_eq!(words(&most), most);
        assert_eq!(words(&[most.as_slice(), b"more"].concat()), most);
        for before in 0..4 {
            let text = "x".repeat(ERROR_MAX_BYTES - before) + &"\u{10348}".repeat(9);
            let kept = words(text.as_bytes());
            assert!(kept.len() > ERROR_MAX_BYTES - 4 && text.as_bytes().starts_with(&kept), "{before}");
            assert!(std::str::from_utf8(&kept).is_ok(), "{before}");
        }
        // What is no text at all is cut all the same.
        assert_eq!(words(&vec![0x80; ERROR_MAX_BYTES + 9]).len(), ERROR_MAX_BYTES);
    }

    #[test]
    fn payload_is_json_and_that_is_utf_8() {
        for good in ["{}", "1", " [\"é\"] ", "{\"x\":\"\\ud800\"}", "\"\u{10348}\""] {
            assert!(check_json(good.as_bytes()).is_ok(), "{good}");
        }
        let wrong = [
            &b"{"[..],
            b"",
            b"{} {}",
            b"{\"x\":\"caf\xe9\"}",
            b"\"\xc0\xaf\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xf0\x90\x8d\"",
        ];
        for wrong in wrong {
            assert!(check_json(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_json(b"{\"x\":\"caf\xe9\"}").unwrap_err().to_string().contains("not UTF-8"));
    }
}
