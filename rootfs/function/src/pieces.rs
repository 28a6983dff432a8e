//! Parts of one answer, ahead of its end.

use std::{
    borrow::Cow,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use sublet_proto::link::frame::{FLAG_IN_PIECES, Header, Kind};

use crate::channel::{Sender, check_length};

/// Where they go: to the caller at once, or to the rest of the answer.
#[derive(Clone, Debug)]
pub enum Pieces {
    /// The caller takes them.
    Sent { sender: Sender, frame: Header },
    /// It takes one answer.
    Kept(Arc<Mutex<Vec<u8>>>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::Kept(Arc::default())
    }
}

impl Pieces {
    /// As the request says.
    pub fn new(sender: &Sender, request: &Header) -> Self {
        if request.flags & FLAG_IN_PIECES == 0 {
            return Self::default();
        }
        let frame = Header { lease: request.lease, label: request.label, ..Header::bare(Kind::Piece) };
        Self::Sent { sender: sender.clone(), frame }
    }

    /// Gives the next one out. Nothing is sent for an empty piece: sublet takes a PIECE frame without bytes for a breach of
    /// the protocol.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Sent { .. } if bytes.is_empty() => Ok(()),
            Self::Sent { sender, frame } => {
                check_length(bytes)?;
                sender.send(*frame, bytes)
            }
            Self::Kept(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// What was kept, and the end of the answer after it.
    pub fn before<'a>(&self, end: &'a [u8]) -> Cow<'a, [u8]> {
        match self {
            Self::Sent { .. } => end.into(),
            Self::Kept(kept) => {
                let mut kept = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
                if kept.is_empty() {
                    return end.into();
                }
                kept.extend_from_slice(end);
                kept.into()
            }
        }
    }
}
