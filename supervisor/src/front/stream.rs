//! An answer in chunks: what the function has made so far, then the rest, then the receipt; or, wherever it broke off, why.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use sublet_proto::v1::{InvokeStreamEnd, InvokeStreamResponse, invoke_stream_response::Part};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::{
    driver::call::{Cancel, Held},
    logs::words::Words,
};

/// Largest chunk in bytes: far below what clients take as a message without being told to.
const CHUNK_MAX_BYTES: usize = 256 * 1024;

/// The messages of one InvokeStream. Its call is cancelled when it is dropped before its end.
#[derive(Debug)]
pub struct AnswerStream {
    pieces: mpsc::Receiver<Bytes>,
    /// None once it has come.
    answer: Option<oneshot::Receiver<Held>>,
    cancel: Option<Cancel>,
    /// What is left of a piece.
    rest: Bytes,
    /// What comes after that.
    last: Option<Result<InvokeStreamResponse, Status>>,
}

impl AnswerStream {
    /// Pieces come first, the answer when there are no more.
    pub fn new(pieces: mpsc::Receiver<Bytes>, answer: oneshot::Receiver<Held>, cancel: Cancel) -> Self {
        Self { pieces, answer: Some(answer), cancel: Some(cancel), rest: Bytes::new(), last: None }
    }

    fn end(&mut self, held: Result<Held, oneshot::error::RecvError>) {
        self.answer = None;
        if let Some(cancel) = self.cancel.take() {
            cancel.disarm();
        }
        self.last = Some(match held {
            Ok(Ok(answer)) => {
                self.rest = answer.payload;
                let Words { bytes: log_tail, platform_lines } = answer.log;
                let end = InvokeStreamEnd { receipt: Some(answer.receipt), log_tail, platform_lines };
                Ok(InvokeStreamResponse { part: Some(Part::End(end)) })
            }
            Ok(Err(failure)) => Err(status::of_failure(failure)),
            Err(_) => Err(status::internal("the call's task failed")),
        });
    }
}

impl Stream for AnswerStream {
    type Item = Result<InvokeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if !self.rest.is_empty() {
                let length = self.rest.len().min(CHUNK_MAX_BYTES);
                let chunk = self.rest.split_to(length);
                return Poll::Ready(Some(Ok(InvokeStreamResponse { part: Some(Part::Chunk(chunk)) })));
            }
            if self.answer.is_none() {
                return Poll::Ready(self.last.take());
            }
            match ready!(self.pieces.poll_recv(context)) {
                Some(piece) => self.rest = piece,
                None => {
                    let Some(answer) = &mut self.answer else { continue };
                    let held = ready!(Pin::new(answer).poll(context));
                    self.end(held);
                }
            }
        }
    }
}
