//! A worker that does what a test says.

use std::{future::poll_fn, os::fd::OwnedFd, time::Duration};

use sublet_proto::link::{
    frame::{HEADER_LEN, Header, Kind, PAYLOAD_LIMIT},
    init::ToInit,
    nursery::InitReport,
};
use tokio::time::sleep;

use super::{
    FakeGroup, Sandbox,
    control::{MemoryControl, Talk},
    wire::{MemoryWire, Pipe},
};

/// A call, as a worker has got it.
#[derive(Clone, Debug)]
pub struct Request {
    /// With its lease and its label.
    pub header: Header,
    /// For the function.
    pub payload: Vec<u8>,
}

/// The inside of a sandbox: launcher, function and init in one.
#[derive(Debug)]
pub struct FakeWorker {
    /// Its number.
    pub number: u64,
    /// Its group.
    pub group: FakeGroup,
    incoming: Pipe,
    outgoing: Pipe,
    talk: Talk,
    log: OwnedFd,
}

impl FakeWorker {
    pub(super) fn new(number: u64, group: FakeGroup) -> (Self, Sandbox) {
        let (incoming, outgoing, talk) = (Pipe::default(), Pipe::default(), Talk::default());
        let (read, log) = nix::unistd::pipe().expect("there is room for a pipe");
        let reaped = group.holds(vec![incoming.clone(), outgoing.clone()], talk.clone());
        let sandbox = Sandbox {
            pid: 1000 + u32::try_from(number).expect("a small number"),
            wire: Box::new(MemoryWire { incoming: outgoing.clone(), outgoing: incoming.clone() }),
            control: Box::new(MemoryControl { talk: talk.clone(), group: group.clone() }),
            log: read,
            reaped,
        };
        (Self { number, group, incoming, outgoing, talk, log }, sandbox)
    }

    /// Is confined, is started by its owner, and is ready.
    pub async fn start(&self) {
        self.say(Kind::Confined, b"");
        self.started().await;
        self.say(Kind::Ready, b"");
    }

    /// Waits for START; returns the function's environment.
    pub async fn started(&self) -> Vec<u8> {
        let request = self.request().await;
        assert_eq!(request.header.kind, Kind::Start);
        request.payload
    }

    /// Answers each call with its payload, for as long as it lives.
    pub async fn serve(&self) {
        loop {
            let request = self.request().await;
            self.answer(&request, &request.payload);
        }
    }

    /// Waits for the next frame. Never returns once the channel is closed. One that is frozen reads nothing.
    pub async fn request(&self) -> Request {
        let head = self.take(HEADER_LEN).await;
        let header = Header::decode(head.as_slice().try_into().expect("its length was asked for"), PAYLOAD_LIMIT);
        let header = header.expect("the supervisor keeps the protocol");
        let payload = self.take(header.length as usize).await;
        self.group.thawed().await;
        Request { header, payload }
    }

    async fn take(&self, count: usize) -> Vec<u8> {
        match poll_fn(|cx| self.incoming.poll_take(cx, count)).await {
            Some(bytes) => bytes,
            None => std::future::pending().await,
        }
    }

    /// A frame without lease or label.
    pub fn say(&self, kind: Kind, payload: &[u8]) {
        self.frame(Header::bare(kind), payload);
    }

    /// Any frame; its length is put right.
    pub fn frame(&self, header: Header, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small payload");
        self.bytes(&[&Header { length, ..header }.encode(), payload].concat());
    }

    /// Whatever it likes to say.
    pub fn bytes(&self, bytes: &[u8]) {
        self.outgoing.write(bytes);
    }

    /// A frame of a call.
    pub fn reply(&self, to: &Request, kind: Kind, aux: u32, payload: &[u8]) {
        let Header { lease, label, .. } = to.header;
        self.frame(Header { aux, lease, label, ..Header::bare(kind) }, payload);
    }

    /// The answer.
    pub fn answer(&self, to: &Request, payload: &[u8]) {
        self.reply(to, Kind::Response, 0, payload);
    }

    /// The answer, later.
    pub async fn answer_after(&self, time: Duration, to: &Request, payload: &[u8]) {
        sleep(time).await;
        self.answer(to, payload);
    }

    /// Init reports something.
    pub fn report(&self, report: InitReport) {
        self.talk.say(report);
    }

    /// What init was told so far.
    pub fn told(&self) -> Vec<ToInit> {
        self.talk.told()
    }

    /// The function lets go of its channel and goes on.
    pub fn close_channel(&self) {
        self.outgoing.close();
        self.incoming.close();
    }

    /// Reading what it says fails from now on, for a reason of the host's.
    pub fn break_channel(&self) {
        self.outgoing.break_it();
    }

    /// Waits for init to be given a token with a higher number than this; returns its number. It is not acknowledged.
    pub async fn token_after(&self, last: u64) -> u64 {
        loop {
            let numbers = self.talk.told().into_iter().filter_map(|told| match told {
                ToInit::Token { number, .. } => Some(number),
                ToInit::Limits { .. } | ToInit::CallBegins => None,
            });
            if let Some(number) = numbers.max().filter(|number| *number > last) {
                return number;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The function writes to its log.
    pub fn log(&self, text: &str) {
        nix::unistd::write(&self.log, text.as_bytes()).expect("somebody reads it");
    }

    /// The function's process ends, init tells how, and ends too.
    pub fn exit(&self, code: Option<i32>, signal: Option<i32>) {
        self.report(InitReport::FunctionEnded { code, signal, tmp: None });
        self.group.end(None);
    }

    /// A process of it is ended for memory.
    pub fn lose_a_process(&self) {
        self.group.counters().bites.oom_kills += 1;
    }
}
