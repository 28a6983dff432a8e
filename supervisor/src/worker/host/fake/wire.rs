//! A stream of bytes in memory.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::BytesMut;

use super::lock;
use crate::worker::wire::{Received, Wire};

/// One direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    is_closed: bool,
    /// Reading it fails, as when the kernel has no memory.
    is_broken: bool,
    reader: Option<Waker>,
}

impl Pipe {
    /// False when nobody reads it any more.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let mut state = lock(&self.0);
        if state.is_closed {
            return false;
        }
        state.bytes.extend(bytes);
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
        true
    }

    pub(super) fn close(&self) {
        let mut state = lock(&self.0);
        state.is_closed = true;
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn break_it(&self) {
        let mut state = lock(&self.0);
        state.is_broken = true;
        if let Some(waker) = state.reader.take() {
            waker.wake();
        }
    }

    /// Takes exactly so many bytes once they are there; none at the end of the stream.
    pub(super) fn poll_take(&self, cx: &Context<'_>, count: usize) -> Poll<Option<Vec<u8>>> {
        let mut state = lock(&self.0);
        if state.bytes.len() >= count {
            return Poll::Ready(Some(state.bytes.drain(..count).collect()));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_ready(&self) -> bool {
        let state = lock(&self.0);
        state.is_closed || !state.bytes.is_empty()
    }

    fn read(&self, buffer: &mut BytesMut, most: usize) -> Option<Received> {
        if !self.is_ready() {
            return None;
        }
        let (mut state, began) = (lock(&self.0), Instant::now());
        let count = state.bytes.len().min(most);
        let taken: Vec<u8> = state.bytes.drain(..count).collect();
        buffer.extend_from_slice(&taken);
        Some(Received { bytes: count, began })
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct MemoryWire {
    pub(super) incoming: Pipe,
    pub(super) outgoing: Pipe,
}

impl Wire for MemoryWire {
    fn poll_write(&mut self, _cx: &mut Context<'_>, parts: [&[u8]; 2]) -> Poll<io::Result<usize>> {
        let bytes = parts.concat();
        Poll::Ready(if self.outgoing.write(&bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut, most: usize) -> Poll<io::Result<Received>> {
        if lock(&self.incoming.0).is_broken {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        match self.incoming.read(buffer, most) {
            Some(received) => Poll::Ready(Ok(received)),
            None => {
                lock(&self.incoming.0).reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn try_read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<Received> {
        self.incoming.read(buffer, most).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn has_input(&self) -> bool {
        self.incoming.is_ready()
    }

    fn unwatch(&mut self) {}
}

impl Drop for MemoryWire {
    fn drop(&mut self) {
        self.incoming.close();
        self.outgoing.close();
    }
}
