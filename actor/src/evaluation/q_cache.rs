//! A cache of Q-values.
//!
//! Greedy trajectories meet: two with equal observations continue equally, and one
//! that oscillates repeats its observations. The network computes each only once,
//! since Q-values are a function of the observations.

use std::collections::{BTreeMap, HashMap};

use common::environment::Observation;

use crate::rollout::policy::{Policy, PolicyError, QValues, View};

/// Agents and their observations.
type Seen = (Vec<u16>, Vec<Observation>);

/// Cached Q-values per scan.
#[derive(Debug, Default)]
pub(crate) struct QCache {
    scans: BTreeMap<usize, HashMap<Seen, Vec<QValues>>>,
}

impl QCache {
    /// Q-values of each view, whose scans have the given numbers; the policy
    /// computes missing ones, about `batch` observations at a time.
    pub(crate) fn q_values(
        &mut self,
        policy: &mut impl Policy,
        views: &[(usize, View<'_>)],
        batch: usize,
    ) -> Result<Vec<Vec<QValues>>, PolicyError> {
        let seen = |view: &View<'_>| (view.agents.to_vec(), view.observations.to_vec());
        let keys: Vec<Seen> = views.iter().map(|(_, view)| seen(view)).collect();
        let mut missing = Vec::new();
        for ((scan, view), key) in views.iter().zip(&keys) {
            let known = self.scans.entry(*scan).or_default();
            if !known.contains_key(key) {
                // Empty until computed, so that no view is requested twice.
                known.insert(key.clone(), Vec::new());
                missing.push((*scan, *view, key));
            }
        }
        let each = missing.first().map_or(1, |a| a.1.observations.len().max(1));
        for part in missing.chunks((batch / each).max(1)) {
            let views: Vec<View<'_>> = part.iter().map(|a| a.1).collect();
            let computed = policy.q_values(&views)?;
            let mut rest = computed.as_slice();
            for (scan, view, key) in part {
                let (own, others) = rest.split_at(view.observations.len().min(rest.len()));
                rest = others;
                if let Some(q) = self.scans.get_mut(scan).and_then(|s| s.get_mut(*key)) {
                    *q = own.to_vec();
                }
            }
        }
        let known = |((scan, _), key): (&(usize, View<'_>), &Seen)| {
            let q = self.scans.get(scan).and_then(|s| s.get(key));
            q.cloned().unwrap_or_default()
        };
        Ok(views.iter().zip(&keys).map(known).collect())
    }

    /// Forgets scans with lower numbers.
    pub(crate) fn forget_before(&mut self, scan: usize) {
        self.scans = self.scans.split_off(&scan);
    }
}
