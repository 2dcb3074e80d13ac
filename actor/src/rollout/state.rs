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
        let refuse = |why: String| Err(RolloutError::State(why));
        let (here, there) = (self.slots.len(), state.slots.len());
        if here != there {
            return refuse(format!("{there} slots were saved, this run has {here}"));
        }
        if !state.episodes.same_decks(&self.episodes) {
            return refuse("they have other landmarks or scans".to_owned());
        }
        for (number, (slot, state)) in self.slots.iter_mut().zip(state.slots).enumerate() {
            if slot.restore(&self.common, state, &self.scans).is_none() {
                return refuse(format!("slot {number} does not fit these scans and rules"));
            }
        }
        self.episodes = state.episodes;
        Ok(())
    }
}
