//! New priorities for rows sampled earlier, routed to their shard by key.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::wire;

/// Updates of one request, at most.
pub const UPDATE_ROWS_MAX: usize = 65_536;

/// The new priority of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotPriority {
    /// The row's place in the shard's table.
    pub slot: u32,
    /// How often that place was filled before.
    pub generation: u32,
    /// |TD error|: finite, not negative; clamped and raised to the exponent by the shard.
    pub td_error: f32,
}

/// New priorities for one shard.
#[derive(Debug, Clone, PartialEq)]
pub struct PriorityUpdate {
    /// Which run, data, configuration and row shape.
    pub hello: Hello,
    /// The incarnation of the shard that the rows were sampled from.
    pub shard_incarnation: u64,
    /// At most [`UPDATE_ROWS_MAX`]; if a row has several, the last one counts.
    pub priorities: Vec<SlotPriority>,
}

/// How many updates took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateReply {
    /// Rows that have their new priority.
    pub applied: u64,
    /// Rows that were gone.
    pub stale: u64,
}

impl From<PriorityUpdate> for wire::UpdateRequest {
    fn from(update: PriorityUpdate) -> Self {
        Self {
            hello: Some(update.hello.into()),
            shard_incarnation: update.shard_incarnation,
            slots: pack::pack(update.priorities.iter().map(|p| p.slot)),
            generations: pack::pack(update.priorities.iter().map(|p| p.generation)),
            priorities: pack::pack(update.priorities.iter().map(|p| p.td_error)),
        }
    }
}

impl TryFrom<wire::UpdateRequest> for PriorityUpdate {
    type Error = ProtocolError;

    fn try_from(request: wire::UpdateRequest) -> Result<Self, ProtocolError> {
        let rows = request.slots.len() / size_of::<u32>();
        if rows > UPDATE_ROWS_MAX {
            return Err(ProtocolError::invalid(
                "slots",
                format!("{rows} rows are more than {UPDATE_ROWS_MAX}"),
            ));
        }
        let slots = pack::unpack::<u32>("slots", &request.slots, rows)?;
        let generations = pack::unpack::<u32>("generations", &request.generations, rows)?;
        let errors = pack::unpack_priorities(&request.priorities, rows)?;
        let priorities = slots
            .into_iter()
            .zip(generations)
            .zip(errors)
            .map(|((slot, generation), td_error)| SlotPriority {
                slot,
                generation,
                td_error,
            })
            .collect();
        Ok(Self {
            hello: hello::required(request.hello)?,
            shard_incarnation: request.shard_incarnation,
            priorities,
        })
    }
}

impl From<UpdateReply> for wire::UpdateReply {
    fn from(reply: UpdateReply) -> Self {
        Self {
            applied: reply.applied,
            stale: reply.stale,
        }
    }
}

impl From<wire::UpdateReply> for UpdateReply {
    fn from(reply: wire::UpdateReply) -> Self {
        Self {
            applied: reply.applied,
            stale: reply.stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;

    fn update() -> PriorityUpdate {
        let one = |slot, generation, td_error| SlotPriority {
            slot,
            generation,
            td_error,
        };
        PriorityUpdate {
            hello: hello(),
            shard_incarnation: 4,
            priorities: vec![one(1, 2, 0.5), one(3, 0, 9.0)],
        }
    }

    #[test]
    fn updates_read_back() {
        assert_eq!(
            PriorityUpdate::try_from(wire::UpdateRequest::from(update())),
            Ok(update())
        );
        let reply = UpdateReply {
            applied: 3,
            stale: 1,
        };
        assert_eq!(UpdateReply::from(wire::UpdateReply::from(reply)), reply);
    }

    #[test]
    fn updates_outside_the_contract_are_refused_by_field() {
        let error = |change: fn(&mut wire::UpdateRequest)| {
            let mut request = wire::UpdateRequest::from(update());
            change(&mut request);
            PriorityUpdate::try_from(request).unwrap_err().to_string()
        };
        assert!(error(|r| r.generations.truncate(4)).contains("generations"));
        assert!(error(|r| r.slots.truncate(7)).contains("slots"));
        assert!(error(|r| r.priorities = pack::pack([1.0, f32::NAN])).contains("row 1 has NaN"));
        assert!(
            error(|r| r.slots = vec![0; 4 * (UPDATE_ROWS_MAX + 1)].into()).contains("more than")
        );
        assert!(error(|r| r.hello = None).contains("hello is missing"));
    }
}
