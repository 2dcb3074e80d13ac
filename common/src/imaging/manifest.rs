//! The data that actors and learner compare before they share transitions: scans
//! by content, their geometry and landmarks, and the version of the rules.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::imaging::scan::{Scan, VolumeHash};
use crate::imaging::volume::{Volume, Voxels};

/// SHA-256 of a volume: its kind, its dims and its voxels.
#[must_use]
pub fn volume_hash(volume: &Volume) -> VolumeHash {
    match volume.voxels() {
        Voxels::U8(bytes) => hash_of_bytes(volume.dims(), (**bytes).as_ref()),
        Voxels::F32(values) => {
            let mut hasher = hasher_of(1, volume.dims());
            for part in values.chunks(1 << 14) {
                let bytes: Vec<u8> = part.iter().flat_map(|v| v.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
            hasher.finalize().into()
        }
    }
}

/// [`volume_hash`] of a volume of bytes.
pub(crate) fn hash_of_bytes(dims: [usize; 3], voxels: &[u8]) -> VolumeHash {
    hasher_of(0, dims).chain_update(voxels).finalize().into()
}

fn hasher_of(kind: u8, dims: [usize; 3]) -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update(b"landmarl volume 1\0");
    hasher.update([kind]);
    for dim in dims {
        hasher.update((dim as u64).to_le_bytes());
    }
    hasher
}

/// Bytes as lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One scan of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// For messages; not compared.
    pub name: String,
    /// Hash of the preprocessed volume, in JSON as hex.
    #[serde(with = "hex_hash")]
    pub volume: VolumeHash,
    /// Millimetres between voxel centres per axis.
    pub spacing_mm: [f64; 3],
    /// Rows of the map from voxels to RAS mm.
    pub affine: [[f64; 4]; 3],
    /// Voxel position per agent, `None` where the landmark is missing.
    pub landmarks: Vec<Option<[f64; 3]>>,
}

/// The data of a run; see the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingManifest {
    /// In the order of their volume hashes, which is their numbering.
    pub entries: Vec<ManifestEntry>,
    /// Version of the environment's and renderer's rules.
    pub rules_version: u32,
}

impl TrainingManifest {
    /// The manifest of scans, sorted by content.
    pub fn new<'a>(scans: impl IntoIterator<Item = &'a Scan>, rules_version: u32) -> Self {
        let entry = |scan: &Scan| ManifestEntry {
            name: scan.name.clone(),
            volume: scan.hash,
            spacing_mm: scan.geometry.spacing_mm,
            affine: scan.geometry.affine.rows,
            landmarks: scan.landmarks.clone(),
        };
        let mut entries: Vec<ManifestEntry> = scans.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.volume);
        Self {
            entries,
            rules_version,
        }
    }

    /// SHA-256 of everything but the names.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(b"landmarl manifest 1\0");
        hasher.update(self.rules_version.to_le_bytes());
        hasher.update((self.entries.len() as u64).to_le_bytes());
        for entry in &self.entries {
            hasher.update(entry.volume);
            let numbers = entry.spacing_mm.iter().chain(entry.affine.iter().flatten());
            numbers.for_each(|value| hasher.update(canonical(*value)));
            hasher.update((entry.landmarks.len() as u64).to_le_bytes());
            for landmark in &entry.landmarks {
                hasher.update([u8::from(landmark.is_some())]);
                let values = landmark.iter().flatten();
                values.for_each(|value| hasher.update(canonical(*value)));
            }
        }
        hasher.finalize().into()
    }

    /// Describes in one sentence how `other` differs; "the same data" when it does not.
    #[must_use]
    pub fn diff(&self, other: &Self) -> String {
        if self.digest() == other.digest() {
            return "the same data".to_owned();
        }
        if self.rules_version != other.rules_version {
            let (here, there) = (self.rules_version, other.rules_version);
            return format!("rules version {here} is here and {there} there; run the same release");
        }
        let theirs: HashMap<_, _> = other.entries.iter().map(|e| (e.volume, e)).collect();
        let ours: HashMap<_, _> = self.entries.iter().map(|e| (e.volume, e)).collect();
        let mut found = Vec::new();
        for entry in &self.entries {
            match theirs.get(&entry.volume) {
                None => found.push(format!("'{}' is only here", entry.name)),
                Some(their) => found.extend(entry.difference(their)),
            }
        }
        let only_there = other.entries.iter();
        let only_there = only_there.filter(|e| !ours.contains_key(&e.volume));
        found.extend(only_there.map(|e| format!("'{}' is only there", e.name)));
        if found.is_empty() {
            return "the same scans are in another order or number".to_owned();
        }
        let count = found.len();
        let shared = ours.keys().filter(|volume| theirs.contains_key(*volume));
        let all = ours.len() + theirs.len() - shared.count();
        if count > 5 {
            found.truncate(4);
            found.push(format!("and {} more", count - 4));
        }
        let verb = if count == 1 { "differs" } else { "differ" };
        format!("{count} of {all} scans {verb}: {}", found.join(", "))
    }
}

impl ManifestEntry {
    /// How another entry with the same volume differs.
    fn difference(&self, other: &Self) -> Option<String> {
        let name = &self.name;
        if self.spacing_mm != other.spacing_mm {
            let (here, there) = (self.spacing_mm, other.spacing_mm);
            return Some(format!(
                "'{name}' has spacing {here:?} mm here and {there:?} mm there"
            ));
        }
        if self.affine != other.affine {
            return Some(format!(
                "'{name}' lies elsewhere in the world (other affine)"
            ));
        }
        let (here, there) = (&self.landmarks, &other.landmarks);
        if here.len() != there.len() {
            let (here, there) = (here.len(), there.len());
            return Some(format!(
                "'{name}' has {here} landmarks here and {there} there"
            ));
        }
        let agent = here.iter().zip(there).position(|(a, b)| a != b)?;
        Some(match (here[agent], there[agent]) {
            (None, _) => format!("landmark {agent} of '{name}' is missing here only"),
            (_, None) => format!("landmark {agent} of '{name}' is missing there only"),
            (Some(a), Some(b)) => {
                format!("landmark {agent} of '{name}' is at voxel {a:?} here and {b:?} there")
            }
        })
    }
}

/// Bytes that are equal for equal numbers: −0 becomes 0.
fn canonical(value: f64) -> [u8; 8] {
    (value + 0.0).to_le_bytes()
}

mod hex_hash {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(hash: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(hash))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || D::Error::custom("a volume hash is 64 hexadecimal digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::geometry::Geometry;

    fn scan(name: &str, fill: u8) -> Scan {
        let volume = Volume::from_u8([2, 2, 3], vec![fill; 12]).unwrap();
        let mut geometry = Geometry::straight([2, 2, 3], [1.0; 3]);
        geometry.affine.rows[0][3] = 0.1;
        Scan {
            name: name.to_owned(),
            hash: volume_hash(&volume),
            volume,
            ..Scan::uniform(geometry, vec![Some([0.5, 1.0, 2.0]), None])
        }
    }

    fn manifest(scans: &[Scan]) -> TrainingManifest {
        TrainingManifest::new(scans, 1)
    }

    // import hashlib, struct
    // print(hashlib.sha256(b"landmarl volume 1\0" + b"\0" + struct.pack("<3Q", 2, 2, 3) + bytes(range(12))).hexdigest())
    // print(hashlib.sha256(b"landmarl volume 1\0" + b"\1" + struct.pack("<3Q", 1, 1, 2) + struct.pack("<2f", 1.5, -2)).hexdigest())
    #[test]
    fn volume_hashes_are_the_documented_bytes() {
        let bytes = Volume::from_u8([2, 2, 3], (0..12).collect::<Vec<u8>>()).unwrap();
        assert_eq!(
            hex(&volume_hash(&bytes)),
            "39a6de488621e2f90e3047b967385bb77fc3a011e1a6f19bbb3ec4d64aa46ec9"
        );
        let floats = Volume::from_f32([1, 1, 2], vec![1.5, -2.0]).unwrap();
        assert_eq!(
            hex(&volume_hash(&floats)),
            "a27b3255bac14d9303b1fe2bb286557675af77d4d85d4d7f0fdd5d8a0e8ab7db"
        );
        let turned = Volume::from_u8([3, 2, 2], (0..12).collect::<Vec<u8>>()).unwrap();
        assert_ne!(volume_hash(&turned), volume_hash(&bytes));
    }

    #[test]
    fn order_and_names_do_not_matter_and_all_else_does() {
        let (a, b) = (scan("a", 1), scan("b", 2));
        let here = manifest(&[a.clone(), b.clone()]);
        let mut renamed = b.clone();
        renamed.name = "z".to_owned();
        assert_eq!(here.digest(), manifest(&[renamed, a.clone()]).digest());
        let same = manifest(&[b.clone(), a.clone()]);
        assert_eq!(here.diff(&same), "the same data");
        type Edit = fn(&mut Scan);
        let edits: [(Edit, &str); 6] = [
            (
                |s| s.geometry.spacing_mm[1] = 2.0,
                "'b' has spacing [1.0, 1.0, 1.0] mm here and [1.0, 2.0, 1.0] mm there",
            ),
            (
                |s| s.geometry.affine.rows[0][3] = 9.0,
                "'b' lies elsewhere in the world (other affine)",
            ),
            (
                |s| s.landmarks[0] = Some([0.5, 1.0, 1.0]),
                "landmark 0 of 'b' is at voxel [0.5, 1.0, 2.0] here and [0.5, 1.0, 1.0] there",
            ),
            (
                |s| s.landmarks[0] = None,
                "landmark 0 of 'b' is missing there only",
            ),
            (
                |s| s.landmarks[1] = Some([0.0; 3]),
                "landmark 1 of 'b' is missing here only",
            ),
            (
                |s| s.landmarks.push(None),
                "'b' has 2 landmarks here and 3 there",
            ),
        ];
        for (edit, expected) in edits {
            let mut changed = b.clone();
            edit(&mut changed);
            let there = manifest(&[a.clone(), changed]);
            assert_ne!(here.digest(), there.digest());
            let expected = format!("1 of 2 scans differs: {expected}");
            assert_eq!(here.diff(&there), expected);
        }
        let there = manifest(&[a.clone(), scan("c", 3)]);
        assert_eq!(
            here.diff(&there),
            "2 of 3 scans differ: 'b' is only here, 'c' is only there"
        );
        let newer = TrainingManifest::new(&[a, b], 2);
        assert_ne!(here.digest(), newer.digest());
        assert_eq!(
            here.diff(&newer),
            "rules version 1 is here and 2 there; run the same release"
        );
        let many: Vec<Scan> = (10..17).map(|i| scan(&i.to_string(), i)).collect();
        let text = here.diff(&manifest(&many));
        assert!(text.starts_with("9 of 9 scans differ: "), "{text}");
        assert!(text.ends_with(", and 5 more"), "{text}");
    }

    #[test]
    fn a_bad_hash_in_json_is_refused() {
        let text = serde_json::to_string(&manifest(&[scan("a", 1)])).unwrap();
        let hash = hex(&scan("a", 1).hash);
        for bad in [&hash[1..], "é", &hash.replace(&hash[..1], "x")] {
            let read = serde_json::from_str::<TrainingManifest>(&text.replace(&hash, bad));
            let error = read.unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn json_gives_the_same_digest(values in prop::array::uniform3(any::<f64>().prop_filter("finite", |v| v.is_finite()))) {
            let mut scan = scan("a", 1);
            scan.landmarks[0] = Some(values);
            scan.geometry.spacing_mm = values;
            let here = manifest(&[scan]);
            let text = serde_json::to_string(&here).unwrap();
            let back: TrainingManifest = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(back.digest(), here.digest());
        }
    }
}
