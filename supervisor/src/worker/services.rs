//! What the driver and all keepers share.

use std::sync::Arc;

use super::{busy_poll::BusyPoll, groups::Groups, host::GroupTree, host::Host, share::Shares, slots::Slots};
use crate::{catalogue::labels::Labels, events::troubles::Troubles, logs::Logs, token::Providers, usage::Ledger};

/// What the driver and all keepers share.
#[derive(Debug)]
pub struct Services {
    /// Where workers live.
    pub host: Arc<dyn Host>,
    /// All their groups, for those who look after them as a whole.
    pub tree: Arc<dyn GroupTree>,
    /// Which slots, and so which host ids, are free.
    pub slots: Slots,
    /// What everybody used.
    pub ledger: Ledger,
    /// What functions write.
    pub logs: Arc<Logs>,
    /// Which group is whose.
    pub groups: Groups,
    /// Names and tags.
    pub labels: Labels,
    /// Whom tokens are asked of.
    pub providers: Providers,
    /// How workers share the supervisor's time.
    pub shares: Arc<Shares>,
    /// Whether, and by whom, answers are polled for.
    pub busy_poll: Arc<BusyPoll>,
    /// What is wrong now.
    pub troubles: Arc<Troubles>,
}
