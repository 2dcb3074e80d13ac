//! The saved state of a rollout: episodes in progress, incomplete returns, random
//! streams. With the same weights a restored rollout continues exactly as if it
//! had never stopped.

use serde::{Deserialize, Serialize};

use super::{Rollout, RolloutError};
use crate::rollout::episodes::Episodes;
use crate::rollout::slot::{Slot, SlotState};

/// The state of a rollout that configuration and scans do not determine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolloutState {
    episodes: Episodes,
    slots: Vec<SlotState>,
}

impl Rollout {
    /// The state between two steps.
    #[must_use]
    pub fn state(&self) -> RolloutState {
        RolloutState {
            episodes: self.episodes.clone(),
            slots: self.slots.iter().map(Slot::state).collect(),
        }
    }

    /// Restores the state of a rollout with the same configuration, scans and writer.
    ///
    /// # Errors
    /// [`RolloutError::State`] if the state does not fit; this rollout must not be
    /// used then.
    pub fn restore(&mut self, state: RolloutState) -> Result<(), RolloutError> {
        let (here, there) = (self.slots.len(), state.slots.len());
        if here != there {
            let why = format!("{there} slots were saved, this run has {here}");
            return Err(RolloutError::State(why));
        }
        if !state.episodes.same_decks(&self.episodes) {
            let why = "they deal other landmarks or scans".to_owned();
            return Err(RolloutError::State(why));
        }
        for (number, (slot, state)) in self.slots.iter_mut().zip(state.slots).enumerate() {
            slot.restore(&self.common, state, &self.scans)
                .ok_or_else(|| {
                    let why =
                        format!("slot {number} walks where these scans and rules lead nobody");
                    RolloutError::State(why)
                })?;
        }
        self.episodes = state.episodes;
        Ok(())
    }
}
