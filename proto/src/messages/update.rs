//! New priorities for rows sampled earlier, routed to their shard by key.

use crate::error::ProtocolError;
use crate::messages::hello::{self, Hello};
use crate::messages::pack;
use crate::wire;

pub use crate::wire::UpdateReply;

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
    pub hello: Hello,
    /// The incarnation of the shard that the rows were sampled from.
    pub shard_incarnation: u64,
    /// At most [`UPDATE_ROWS_MAX`]; if a row has several, the last one counts.
    pub priorities: Vec<SlotPriority>,
    /// Which learner calls, as in a request for a sample.
    pub learner: u64,
}

pack::wire_form! {
    PriorityUpdate, UpdateRequest, same: [shard_incarnation, learner],
    update => {
        slots: pack::pack(update.priorities.iter().map(|p| p.slot)),
        generations: pack::pack(update.priorities.iter().map(|p| p.generation)),
        priorities: pack::pack(update.priorities.iter().map(|p| p.td_error)),
        hello: Some(update.hello.into()),
    },
    request => {
        priorities: priorities(&request)?,
        hello: hello::required(request.hello)?,
    },
}

fn priorities(request: &wire::UpdateRequest) -> Result<Vec<SlotPriority>, ProtocolError> {
    let rows = request.slots.len() / size_of::<u32>();
    pack::within("slots", rows, "rows", 0..=UPDATE_ROWS_MAX)?;
    let slots = pack::unpack::<u32>("slots", &request.slots, rows)?;
    let generations = pack::unpack::<u32>("generations", &request.generations, rows)?;
    let errors = pack::unpack_priorities(&request.priorities, rows)?;
    let rows = slots.into_iter().zip(generations).zip(errors);
    let priority = |((slot, generation), td_error)| SlotPriority {
        slot,
        generation,
        td_error,
    };
    Ok(rows.map(priority).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::hello::tests::hello;
    use crate::messages::pack::tests::{reads_back, refuses};

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
            learner: 8,
        }
    }

    #[test]
    fn updates_read_back() {
        reads_back::<wire::UpdateRequest, _>(update());
    }

    #[test]
    fn updates_outside_the_contract_are_refused_by_field() {
        refuses::<PriorityUpdate, _>(
            &wire::UpdateRequest::from(update()),
            &[
                (|r| r.generations.truncate(4), "generations"),
                (|r| r.slots.truncate(7), "slots"),
                (
                    |r| r.priorities = pack::pack([1.0, f32::NAN]),
                    "row 1 has NaN",
                ),
                (
                    |r| r.slots = vec![0; 4 * (UPDATE_ROWS_MAX + 1)].into(),
                    "65537 rows",
                ),
                (|r| r.hello = None, "hello is missing"),
            ],
        );
    }
}
