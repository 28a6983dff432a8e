//! `sublet.v1.Invoker`: words in, words out; the call itself is the driver's.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sublet_proto::v1::{InvokeRequest, InvokeResponse, invoker_server::Invoker};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{status, stream::AnswerStream};
use crate::driver::{
    Driver,
    call::{Cancel, Held, Invocation, Outlet},
};

/// Pieces of an answer that wait for their caller, beside what HTTP/2's window holds.
const PIECES_WAITING_MAX: usize = 2;

/// The service.
#[derive(Clone, Debug)]
pub struct InvokerService(pub Arc<Driver>);

#[tonic::async_trait]
impl Invoker for InvokerService {
    type InvokeStreamStream = AnswerStream;

    async fn invoke(&self, request: Request<InvokeRequest>) -> Result<Response<InvokeResponse>, Status> {
        let (answer, cancel) = self.begin(request, None)?;
        let answer = answer.await;
        cancel.disarm();
        match answer {
            Ok(Ok(answer)) => Ok(Response::new(InvokeResponse {
                payload: answer.payload,
                receipt: Some(answer.receipt),
                log_tail: answer.log.bytes,
                platform_lines: answer.log.platform_lines,
            })),
            Ok(Err(failure)) => Err(status::of_failure(failure)),
            Err(_) => Err(status::internal("the call's task failed")),
        }
    }

    async fn invoke_stream(&self, request: Request<InvokeRequest>) -> Result<Response<AnswerStream>, Status> {
        let (pieces, taken) = mpsc::channel(PIECES_WAITING_MAX);
        let (answer, cancel) = self.begin(request, Some(pieces))?;
        Ok(Response::new(AnswerStream::new(taken, answer, cancel)))
    }
}

impl InvokerService {
    /// Takes a call on and sees to it that it runs. What comes out is its answer, and what cancels it when dropped.
    fn begin(
        &self,
        request: Request<InvokeRequest>,
        pieces: Option<mpsc::Sender<Bytes>>,
    ) -> Result<(oneshot::Receiver<Held>, Cancel), Status> {
        let deadline = grpc_timeout(request.metadata())?;
        let InvokeRequest { tenant, function, sub_tenant, payload, timeout, want_log } = request.into_inner();
        // Negative: the deadline lies in the past.
        let own = timeout.map(|timeout| Duration::try_from(timeout).unwrap_or(Duration::ZERO));
        let timeout = [deadline, own].into_iter().flatten().min();
        let invocation = Invocation { tenant, function, sub_tenant, payload, timeout, want_log };
        let (call, cancel) = self.0.accept(invocation).map_err(|rejection| {
            self.0.counters.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            status::of_rejection(&rejection)
        })?;
        // A task of its own: when this future is dropped with the caller's connection, `cancel` says so to the pool, and
        // the task sees the call to its end.
        let (outlet, answer) = Outlet::new(pieces);
        tokio::spawn(call.run(outlet));
        Ok((answer, cancel))
    }
}

/// The client's deadline (PROTOCOL-HTTP2.md: `grpc-timeout`, at most 8 digits and a unit).
pub(crate) fn grpc_timeout(metadata: &MetadataMap) -> Result<Option<Duration>, Status> {
    let Some(value) = metadata.get("grpc-timeout") else { return Ok(None) };
    let invalid = || {
        let shown = value.as_encoded_bytes().escape_ascii();
        Status::invalid_argument(format!("grpc-timeout \"{shown}\" is not of the form 1 to 8 digits and a unit"))
    };
    let text = value.to_str().map_err(|_| invalid())?;
    let unit = text.chars().next_back().ok_or_else(invalid)?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let count: u64 = digits.parse().map_err(|_| invalid())?;
    Ok(Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return Err(invalid()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&metadata).ok().flatten()
    }

    #[test]
    fn grpc_timeouts_are_read_and_nothing_else_is() {
        assert_eq!(parse("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "5", "m", "1s", "123456789m", "-1m", "1.5S"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
