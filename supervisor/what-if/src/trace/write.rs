//! Writes rows; and gives the rows of a live recording, which are known when calls end, the order of arrival.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use super::{HEADER, Outcome, Row};
use crate::token::Token;

/// Writes a trace. Give it a buffered output: each row is written in pieces.
#[derive(Debug)]
pub struct Writer<W: Write> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output's.
    pub fn new(mut output: W) -> io::Result<Self> {
        writeln!(output, "{HEADER}")?;
        Ok(Self { output })
    }

    /// Writes one row. The caller keeps the order; see [`InOrder`].
    ///
    /// # Errors
    /// The output's.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        let Row { at_us, tenant, function, sub_tenant, service_us, outcome } = row;
        let (tenant, function, sub_tenant) = (tenant.as_str(), function.as_str(), sub_tenant.as_str());
        writeln!(self.output, "{at_us},{tenant},{function},{sub_tenant},{service_us},{}", outcome.name())
    }

    /// What it writes to.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }

    /// The output, with everything handed on to it.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.flush()?;
        Ok(self.output)
    }
}

/// Calls that one recording holds back at the most: 200 bytes each.
pub const PENDING_MAX: usize = 1 << 18;

/// A call that has arrived and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

#[derive(Clone, Copy, Debug)]
enum Pending {
    /// Arrived.
    Open {
        at_us: u64,
        tenant: Token,
        function: Token,
        sub_tenant: Token,
    },
    Ended(Row),
    /// Nothing is to be written.
    Dropped,
}

/// Brings calls, which end in any order, into the order of their arrival.
///
/// ```text
///  arrived --ended--> held until all that arrived before it have ended --> row
///     '-----dropped--> nothing; those behind it go on
/// ```
/// One call that takes long holds those behind it back. When [`PENDING_MAX`] are held, the oldest that has not ended is
/// given up, and counted: a recording must not grow with the longest timeout. Take all rows that [`Self::pop`] has after
/// every call that ended or arrived, or they are held as well.
#[derive(Debug, Default)]
pub struct InOrder {
    /// Ticket of the first in `pending`.
    first: u64,
    pending: VecDeque<Pending>,
    last_at_us: u64,
    given_up: u64,
}

impl InOrder {
    /// Takes note of a call. A time before that of the call before it is taken for that.
    pub fn arrived(&mut self, at_us: u64, tenant: Token, function: Token, sub_tenant: Token) -> Ticket {
        self.last_at_us = self.last_at_us.max(at_us);
        let ticket = Ticket(self.first + self.pending.len() as u64);
        self.pending.push_back(Pending::Open { at_us: self.last_at_us, tenant, function, sub_tenant });
        if self.pending.len() > PENDING_MAX
            && let Some(oldest @ Pending::Open { .. }) = self.pending.front_mut()
        {
            *oldest = Pending::Dropped;
            self.given_up += 1;
        }
        ticket
    }

    /// A call was answered, or its worker crashed. Of a ticket that is done or given up nothing is written.
    pub fn ended(&mut self, ticket: Ticket, service_us: u64, outcome: Outcome) {
        if let Some(pending @ Pending::Open { .. }) = self.find(ticket)
            && let Pending::Open { at_us, tenant, function, sub_tenant } = *pending
        {
            *pending = Pending::Ended(Row { at_us, tenant, function, sub_tenant, service_us, outcome });
        }
    }

    /// A call was refused or given up before it could say how long it takes: a trace has no row for it.
    pub fn dropped(&mut self, ticket: Ticket) {
        if let Some(pending @ Pending::Open { .. }) = self.find(ticket) {
            *pending = Pending::Dropped;
        }
    }

    fn find(&mut self, ticket: Ticket) -> Option<&mut Pending> {
        self.pending.get_mut(usize::try_from(ticket.0.checked_sub(self.first)?).ok()?)
    }

    /// The next row whose turn it is.
    pub fn pop(&mut self) -> Option<Row> {
        loop {
            let row = match self.pending.front()? {
                Pending::Open { .. } => return None,
                Pending::Ended(row) => Some(*row),
                Pending::Dropped => None,
            };
            self.pending.pop_front();
            self.first += 1;
            if row.is_some() {
                return row;
            }
        }
    }

    /// Calls that are missing in the trace because they held too many others back.
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }
}
