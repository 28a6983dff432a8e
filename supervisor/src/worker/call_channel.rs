//! What one call at a time needs of a worker that is ready.

use std::sync::Arc;

use super::{
    alarm::Alarm,
    busy_poll::{BusyPoll, Pace},
    channel::Channel,
};

/// The channel of a worker that is ready, with what the one call that has it needs beside it.
#[derive(Debug)]
pub struct CallChannel {
    /// To talk to it.
    pub channel: Channel,
    /// For how long.
    pub alarm: Alarm,
    /// How soon it answers as a rule.
    pub pace: Pace,
    /// How long others wait for it to become free, once it has answered.
    pub patience: Alarm,
}

impl CallChannel {
    /// Of a worker that is ready. Must be called inside a tokio runtime.
    pub fn new(channel: Channel, busy_poll: &Arc<BusyPoll>) -> Self {
        let pace = Pace::new(busy_poll.clone());
        Self { channel, alarm: Alarm::new(), pace, patience: Alarm::new() }
    }
}
