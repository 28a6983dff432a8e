//! Calls over gRPC, as any caller makes them.

use std::{path::Path, time::Duration};

use prost::{Message, bytes::Bytes};
use sublet_proto::v1::{
    InvokeRequest, InvokeResponse, InvokeStreamEnd, InvokeStreamResponse, Receipt, Remark, Verdict, VerdictKind,
    invoke_stream_response::Part, invoker_client::InvokerClient,
};
use tokio::runtime::Runtime;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::supervisor::Supervisor;

/// A client with a runtime of its own.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    client: InvokerClient<Channel>,
    /// What no caller may be told: where the supervisor keeps things on the host.
    secrets: Vec<String>,
}

/// Of a case's supervisor.
fn secrets(supervisor: &Supervisor) -> Vec<String> {
    // Its state directory and the directories of its functions are below it.
    let place = supervisor.place.dir.display().to_string();
    // Instances are named in the paths of groups.
    [place, supervisor.place.instance.clone(), "/sys/fs/cgroup".to_owned(), "/proc/self/fd".to_owned()].into()
}

/// Connects.
pub async fn connect(socket: &Path) -> Result<InvokerClient<Channel>, String> {
    connect_by(endpoint(socket)?).await
}

fn endpoint(socket: &Path) -> Result<Endpoint, String> {
    Endpoint::from_shared(format!("unix:{}", socket.display())).map_err(|error| error.to_string())
}

async fn connect_by(endpoint: Endpoint) -> Result<InvokerClient<Channel>, String> {
    let channel = endpoint.connect().await.map_err(|error| format!("connect: {error:?}"))?;
    Ok(InvokerClient::new(channel).max_decoding_message_size(128 << 20).max_encoding_message_size(128 << 20))
}

/// A request to acme's function.
pub fn request(function: &str, sub_tenant: &str, payload: &str) -> InvokeRequest {
    InvokeRequest {
        tenant: "acme".into(),
        function: function.into(),
        sub_tenant: sub_tenant.into(),
        payload: payload.as_bytes().to_vec().into(),
        ..InvokeRequest::default()
    }
}

/// What came of an answer in chunks.
#[derive(Debug, Default)]
pub struct Streamed {
    /// In their order.
    pub chunks: Vec<Vec<u8>>,
    /// Its last message, if it was whole.
    pub end: Option<InvokeStreamEnd>,
    /// Why it broke off.
    pub status: Option<Status>,
}

impl Streamed {
    /// The chunks together.
    pub fn whole(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    /// The verdict by which it broke off.
    pub fn verdict(&self) -> Option<Verdict> {
        self.status.as_ref().and_then(verdict)
    }
}

impl Client {
    /// Connects to a supervisor.
    pub fn new(supervisor: &Supervisor) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let client = runtime.block_on(connect(&supervisor.socket()))?;
        Ok(Self { runtime, client, secrets: secrets(supervisor) })
    }

    /// Connects as one that takes no more than so many bytes of an answer before somebody has read them.
    pub fn with_window(supervisor: &Supervisor, bytes: u32) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let endpoint = endpoint(&supervisor.socket())?;
        let endpoint = endpoint.initial_stream_window_size(bytes).initial_connection_window_size(bytes);
        let client = runtime.block_on(connect_by(endpoint))?;
        Ok(Self { runtime, client, secrets: secrets(supervisor) })
    }

    /// Fails the case when an answer tells its caller anything of the host. Every status of every case that calls by this client
    /// passes here, with its details; and the receipt of an answer.
    fn looked_through<T>(&self, answer: Result<T, Status>, told: impl Fn(&T) -> String) -> Result<T, Status> {
        let text = match &answer {
            Ok(answer) => told(answer),
            Err(status) => said_by_us(status),
        };
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            assert!(!text.contains(secret.as_str()), "a caller is told of {secret}: {text}");
        }
        answer
    }

    /// Calls once.
    pub fn call(&mut self, request: InvokeRequest) -> Result<InvokeResponse, Status> {
        let client = &mut self.client;
        let answer = self.runtime.block_on(client.invoke(request)).map(tonic::Response::into_inner);
        self.looked_through(answer, |answer| format!("{:?}", answer.receipt))
    }

    /// Calls once and takes the answer in chunks.
    pub fn begin_stream(&mut self, request: InvokeRequest) -> Result<Streaming<InvokeStreamResponse>, Status> {
        let client = &mut self.client;
        let begun = self.runtime.block_on(client.invoke_stream(request)).map(tonic::Response::into_inner);
        self.looked_through(begun, |_| String::new())
    }

    /// The next message of such an answer.
    pub fn next(
        &mut self,
        stream: &mut Streaming<InvokeStreamResponse>,
    ) -> Result<Option<InvokeStreamResponse>, Status> {
        let message = self.runtime.block_on(stream.message());
        self.looked_through(message, |message| match message.as_ref().and_then(|message| message.part.as_ref()) {
            Some(Part::End(end)) => format!("{:?}", end.receipt),
            Some(Part::Chunk(_)) | None => String::new(),
        })
    }

    /// All of an answer in chunks, to its end or to where it breaks off.
    pub fn stream(&mut self, request: InvokeRequest) -> Streamed {
        let mut streamed = Streamed::default();
        let mut stream = match self.begin_stream(request) {
            Ok(stream) => stream,
            Err(status) => return Streamed { status: Some(status), ..streamed },
        };
        loop {
            match self.next(&mut stream) {
                Ok(Some(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })) => {
                    streamed.chunks.push(chunk.to_vec())
                }
                Ok(Some(InvokeStreamResponse { part: Some(Part::End(end)) })) => streamed.end = Some(end),
                Ok(Some(InvokeStreamResponse { part: None })) => {}
                Ok(None) => return streamed,
                Err(status) => return Streamed { status: Some(status), ..streamed },
            }
        }
    }

    /// Calls `acme/probe` and wants an answer.
    pub fn probe(&mut self, sub_tenant: &str, verb: &str) -> Result<(String, Receipt), String> {
        self.ask("probe", sub_tenant, verb)
    }

    /// Calls a function of acme and wants an answer.
    pub fn ask(&mut self, function: &str, sub_tenant: &str, verb: &str) -> Result<(String, Receipt), String> {
        let response = self.call(request(function, sub_tenant, verb)).map_err(|status| {
            let said = verdict(&status).map(|v| String::from_utf8_lossy(&v.function_error).into_owned());
            format!("{verb}: {:?} {} {}", status.code(), status.message(), said.unwrap_or_default())
        })?;
        let receipt = response.receipt.ok_or("no receipt")?;
        Ok((String::from_utf8_lossy(&response.payload).into_owned(), receipt))
    }

    /// Calls a function of acme and wants a verdict of this kind and code.
    pub fn verdict(&mut self, function: &str, verb: &str, kind: VerdictKind, code: Code) -> Result<Verdict, String> {
        self.verdict_of(request(function, "s1", verb), kind, code)
    }

    /// The same for any request.
    pub fn verdict_of(&mut self, request: InvokeRequest, kind: VerdictKind, code: Code) -> Result<Verdict, String> {
        let verb = String::from_utf8_lossy(&request.payload).chars().take(40).collect::<String>();
        match self.call(request) {
            Ok(response) => Err(format!("{verb}: answered {:?}", String::from_utf8_lossy(&response.payload))),
            Err(status) => {
                let found = verdict(&status).ok_or_else(|| format!("{verb}: no verdict in {status:?}"))?;
                if found.kind() != kind || status.code() != code {
                    return Err(format!("{verb}: expected {kind:?} as {code:?}, got {:?}: {found:?}", status.code()));
                }
                Ok(found)
            }
        }
    }

    /// Lets time pass for the supervisor.
    pub fn rest(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// All of a status but the words of the function itself, which may have been asked for a path by its payload.
fn said_by_us(status: &Status) -> String {
    let details = tonic_types::pb::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    let detail = |any: &prost_types::Any| match Verdict::decode(any.value.as_slice()) {
        Ok(verdict) if any.type_url.ends_with("/sublet.v1.Verdict") => {
            format!("{:?}", Verdict { function_error: Bytes::new(), log_tail: Bytes::new(), ..verdict })
        }
        Ok(_) | Err(_) => String::from_utf8_lossy(&any.value).into_owned(),
    };
    let details: Vec<String> = details.iter().map(detail).collect();
    format!("{:?} {} {}", status.code(), status.message(), details.join(" "))
}

/// A limit that was hit beside.
pub fn remark(receipt: Option<&Receipt>, kind: VerdictKind) -> Result<Remark, String> {
    let receipt = receipt.ok_or("no receipt")?;
    let found = receipt.remarks.iter().find(|remark| remark.kind() == kind);
    found.cloned().ok_or_else(|| format!("no remark on {kind:?}: {receipt:?}"))
}

/// The verdict in a status.
pub fn verdict(status: &Status) -> Option<Verdict> {
    let details = tonic_types::pb::Status::decode(status.details()).ok()?.details;
    let found = details.iter().find(|any| any.type_url.ends_with("/sublet.v1.Verdict"))?;
    Verdict::decode(found.value.as_slice()).ok()
}

/// The reason in a status's ErrorInfo.
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
