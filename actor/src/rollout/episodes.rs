//! Which scan and which agents come next.
//!
//! Where agents move alone, episodes go round the agents in shuffled rounds, so
//! that every landmark gets equally many, and each agent goes through the scans
//! that show its landmark in shuffled rounds of its own. Where they move
//! together there is one round over the scans.

use std::sync::Arc;

use common::imaging::scan::Scan;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::rollout::group::landmark;

/// Why there are no episodes to assign.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EpisodesError {
    /// No scans at all.
    #[error("there are no training scans: set data.train_images")]
    NoScans,
    /// No agents.
    #[error("there are no landmarks to look for: set data.landmarks")]
    NoAgents,
    /// A landmark that no scan shows.
    #[error(
        "landmark {agent} (counted from 0 in data.landmarks) is missing in all {scans} training scans: leave it out or add scans that show it"
    )]
    Nowhere { agent: u16, scans: usize },
}

/// Deals everything once in random order, then shuffles anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Deck {
    cards: Vec<u16>,
    dealt: usize,
}

impl Deck {
    fn new(cards: Vec<u16>) -> Self {
        let dealt = cards.len();
        Self { cards, dealt }
    }

    /// Whether both hold the same cards, in whatever order.
    fn same_cards(&self, other: &Self) -> bool {
        let sorted = |deck: &Self| {
            let mut cards = deck.cards.clone();
            cards.sort_unstable();
            cards
        };
        sorted(self) == sorted(other) && self.dealt <= self.cards.len()
    }

    fn deal(&mut self, rng: &mut ChaCha8Rng) -> u16 {
        if self.dealt == self.cards.len() {
            self.cards.shuffle(rng);
            self.dealt = 0;
        }
        self.dealt += 1;
        self.cards[self.dealt - 1]
    }
}

/// One episode to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Number of the scan in the manifest.
    pub(crate) scan: u16,
    /// Agents that act in it together.
    pub(crate) agents: Vec<u16>,
}

/// Deals assignments to all slots of an actor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Episodes {
    rng: ChaCha8Rng,
    agents: Deck,
    /// Per agent where they move alone; else a single deck.
    scans: Vec<Deck>,
    together: bool,
}

impl Episodes {
    /// For agents `0..agents` on scans in manifest order.
    pub(crate) fn new(
        scans: &[Arc<Scan>],
        agents: u16,
        together: bool,
        rng: ChaCha8Rng,
    ) -> Result<Self, EpisodesError> {
        if scans.is_empty() {
            return Err(EpisodesError::NoScans);
        }
        if agents == 0 {
            return Err(EpisodesError::NoAgents);
        }
        let mut decks = Vec::with_capacity(usize::from(agents));
        for agent in 0..agents {
            let numbered = (0..).zip(scans);
            let showing = numbered.filter(|(_, scan)| landmark(scan, agent).is_some());
            let cards: Vec<u16> = showing.map(|(number, _)| number).collect();
            if cards.is_empty() {
                let scans = scans.len();
                return Err(EpisodesError::Nowhere { agent, scans });
            }
            decks.push(Deck::new(cards));
        }
        if together {
            let mut any: Vec<u16> = decks.into_iter().flat_map(|d| d.cards).collect();
            any.sort_unstable();
            any.dedup();
            decks = vec![Deck::new(any)];
        }
        Ok(Self {
            rng,
            agents: Deck::new((0..agents).collect()),
            scans: decks,
            together,
        })
    }

    /// Whether both deal the same agents and scans.
    pub(crate) fn same_decks(&self, other: &Self) -> bool {
        let mut pairs = self.scans.iter().zip(&other.scans);
        self.together == other.together
            && self.agents.same_cards(&other.agents)
            && self.scans.len() == other.scans.len()
            && pairs.all(|(a, b)| a.same_cards(b))
    }

    pub(crate) fn next(&mut self) -> Assignment {
        if self.together {
            let mut agents = self.agents.cards.clone();
            agents.sort_unstable();
            return Assignment {
                scan: self.scans[0].deal(&mut self.rng),
                agents,
            };
        }
        let agent = self.agents.deal(&mut self.rng);
        let scan = self.scans[usize::from(agent)].deal(&mut self.rng);
        Assignment {
            scan,
            agents: vec![agent],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::scan_with;
    use rand::SeedableRng;

    const P: Option<[f64; 3]> = Some([5.0; 3]);

    fn episodes(
        scans: &[Arc<Scan>],
        agents: u16,
        together: bool,
    ) -> Result<Episodes, EpisodesError> {
        Episodes::new(scans, agents, together, ChaCha8Rng::seed_from_u64(3))
    }

    #[test]
    fn every_landmark_and_every_scan_that_shows_it_get_equal_shares() {
        let scans = [[P, P], [P, None], [P, P]].map(|l| scan_with(&l));
        let mut e = episodes(&scans, 2, false).unwrap();
        let mut counts = [[0; 3]; 2];
        for _ in 0..2 * 12 {
            let a = e.next();
            counts[usize::from(a.agents[0])][usize::from(a.scan)] += 1;
        }
        assert_eq!(counts, [[4, 4, 4], [6, 0, 6]]);
    }

    #[test]
    fn together_every_scan_with_any_landmark_comes_equally_often() {
        let scans = [[P, P], [None, None], [None, P]].map(|l| scan_with(&l));
        let mut e = episodes(&scans, 2, true).unwrap();
        let mut counts = [0; 3];
        for _ in 0..8 {
            let a = e.next();
            assert_eq!(a.agents, [0, 1]);
            counts[usize::from(a.scan)] += 1;
        }
        assert_eq!(counts, [4, 0, 4]);
    }

    #[test]
    fn missing_scans_agents_and_landmarks_are_errors() {
        let nowhere = episodes(&[scan_with(&[Some([1.0; 3]), None])], 2, false).unwrap_err();
        assert_eq!(nowhere, EpisodesError::Nowhere { agent: 1, scans: 1 });
        assert_eq!(episodes(&[], 1, false).unwrap_err(), EpisodesError::NoScans);
        let no_agents = episodes(&[scan_with(&[])], 0, false).unwrap_err();
        assert_eq!(no_agents, EpisodesError::NoAgents);
    }
}
