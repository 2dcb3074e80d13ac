//! Compares scans with those that weights were trained on.

use std::sync::Arc;

use common::imaging::scan::Scan;
use learner::checkpoint::training_scans::TrainingScans;

use crate::input::weights::Loaded;
use crate::output::console;

/// Relative difference in spacing from which a scan is another kind of scan; training
/// refuses scans that differ more among each other.
const TOLERANCE: f64 = 0.01;

/// Most scans that one warning names.
const SCANS_SHOWN: usize = 10;

/// Warns of scans whose spacing is not that of the training scans.
pub fn warn(loaded: &Loaded, scans: &[Arc<Scan>]) {
    let training = loaded.training.as_ref();
    if let Some(warning) = training.and_then(|t| other_spacing(t, scans)) {
        console::note(&format!("warning: {warning}"));
    }
}

/// Warns of scans that the weights were trained on.
pub fn warn_of_trained(loaded: &Loaded, scans: &[Arc<Scan>]) {
    let training = loaded.training.as_ref();
    if let Some(warning) = training.and_then(|t| trained(t, scans)) {
        console::note(&format!("warning: {warning}"));
    }
}

/// Names the scans whose spacing differs from the training scans' by more than 1 % on an
/// axis, both spacings, and what to do.
fn other_spacing(training: &TrainingScans, scans: &[Arc<Scan>]) -> Option<String> {
    let [low, high] = training.spacing_mm;
    let differs = |scan: &&Arc<Scan>| {
        let mm = scan.geometry.spacing_mm;
        (0..3).any(|a| mm[a] < low[a] * (1.0 - TOLERANCE) || mm[a] > high[a] * (1.0 + TOLERANCE))
    };
    let shown = |scan: &Arc<Scan>| {
        let spacing = spacing(scan.geometry.spacing_mm);
        format!("{} has voxels of {spacing} mm", scan.name)
    };
    let others: Vec<String> = scans.iter().filter(differs).map(shown).collect();
    if others.is_empty() {
        return None;
    }
    let trained = range(training);
    let next = match one_spacing(training) {
        Some(mm) => format!("resample them with --set data.resample_mm={mm}"),
        None => "train with data.resample_mm, so that every scan gets the same spacing".to_owned(),
    };
    Some(format!(
        "the agents were trained on voxels of {trained} mm, and {}; expect wrong landmarks; {next}",
        list(&others)
    ))
}

/// Names the scans that the weights were trained on.
fn trained(training: &TrainingScans, scans: &[Arc<Scan>]) -> Option<String> {
    let seen = scans.iter().filter(|scan| training.contains(&scan.hash));
    let seen: Vec<String> = seen.map(|scan| scan.name.clone()).collect();
    if seen.is_empty() {
        return None;
    }
    let (count, all, names) = (seen.len(), scans.len(), list(&seen));
    Some(format!(
        "the agents were trained on {count} of these {all} scans ({names}): their error says \
         nothing about other scans; evaluate scans that were not used for training"
    ))
}

/// The smallest and the largest training spacing, or the only one.
pub fn range(training: &TrainingScans) -> String {
    let [low, high] = training.spacing_mm.map(spacing);
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

/// The spacing in mm of all training scans on all axes, if there is one.
fn one_spacing(training: &TrainingScans) -> Option<f64> {
    let all = training.spacing_mm.as_flattened();
    let mm = all[0];
    let near = |other: &f64| (other - mm).abs() <= TOLERANCE * mm;
    // Without the noise of files that store spacing as f32.
    all.iter().all(near).then(|| (mm * 1e4).round() / 1e4)
}

/// Three lengths with at most four decimals.
fn spacing(mm: [f64; 3]) -> String {
    mm.map(|mm| ((mm * 1e4).round() / 1e4).to_string())
        .join(" x ")
}

fn list(items: &[String]) -> String {
    let shown = items.iter().take(SCANS_SHOWN).cloned();
    let more = items.len().saturating_sub(SCANS_SHOWN);
    let more = (more > 0).then(|| format!("{more} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::imaging::geometry::Geometry;
    use common::imaging::manifest::TrainingManifest;
    use common::imaging::volume::Volume;

    fn scan(name: &str, hash: u8, spacing_mm: [f64; 3]) -> Arc<Scan> {
        Arc::new(Scan {
            name: name.to_owned(),
            volume: Volume::from_u8([1, 1, 1], vec![1]).unwrap(),
            geometry: Geometry::straight([1; 3], spacing_mm),
            landmarks: Vec::new(),
            hash: [hash; 32],
        })
    }

    fn training(spacings: &[[f64; 3]]) -> TrainingScans {
        let scans: Vec<_> = spacings.iter().map(|mm| scan("t", 1, *mm)).collect();
        let manifest = TrainingManifest::new(scans.iter().map(AsRef::as_ref), 1);
        TrainingScans::of(&manifest).unwrap()
    }

    #[test]
    fn scans_of_another_spacing_are_named_with_both_spacings() {
        let one = training(&[[1.0; 3]]);
        let alike = [scan("a", 2, [1.0; 3]), scan("b", 3, [0.991, 1.009, 1.0])];
        assert_eq!(other_spacing(&one, &alike), None);
        let others = [
            scan("a", 2, [1.0; 3]),
            scan("b", 3, [1.0, 1.2, 1.5]),
            scan("c", 4, [0.989, 1.0, 1.0]),
        ];
        assert_eq!(
            other_spacing(&one, &others).unwrap(),
            "the agents were trained on voxels of 1 x 1 x 1 mm, and b has voxels of 1 x 1.2 x 1.5 mm, \
             c has voxels of 0.989 x 1 x 1 mm; expect wrong landmarks; resample them with \
             --set data.resample_mm=1"
        );
    }

    #[test]
    fn spacings_within_those_of_mixed_training_scans_are_not_warned_of() {
        let mixed = training(&[[1.0, 1.0, 2.0], [1.2, 1.0, 3.0]]);
        assert_eq!(range(&mixed), "1 x 1 x 2 to 1.2 x 1 x 3");
        assert_eq!(
            other_spacing(&mixed, &[scan("a", 2, [1.1, 1.0, 2.5])]),
            None
        );
        let text = other_spacing(&mixed, &[scan("a", 2, [1.1, 1.1, 2.5])]).unwrap();
        // No one spacing would fit.
        assert!(!text.contains("--set"), "{text}");
        assert!(
            text.ends_with("so that every scan gets the same spacing"),
            "{text}"
        );
    }

    #[test]
    fn scans_that_were_trained_on_are_named() {
        let one = training(&[[1.0; 3]]);
        let scans = [scan("new", 2, [1.0; 3]), scan("old", 1, [1.0; 3])];
        let text = trained(&one, &scans).unwrap();
        assert!(text.contains("1 of these 2 scans (old)"), "{text}");
        assert_eq!(trained(&one, &scans[..1]), None);
        assert_eq!(trained(&one.without_hashes(), &scans), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..13).map(|n| n.to_string()).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3 more");
    }
}
