//! Tests of `cache`.

use std::fs;

use super::*;
use crate::imaging::geometry::Affine;
use crate::imaging::nifti_io::fixture::Fixture;
use crate::imaging::nifti_io::{Image, ImageRef, Samples, SamplesRef};

fn recipe() -> Recipe {
    Recipe::default()
}

fn scan_file(folder: &Path) -> PathBuf {
    let path = folder.join("scan.nii.gz");
    let affine = Affine {
        rows: [
            [-1.0, 0.0, 0.0, 9.0],
            [0.0, 0.0, 2.0, 0.0],
            [0.0, 0.5, 0.0, 0.0],
        ],
    };
    let voxels: Vec<u8> = (0..210).collect();
    let image = ImageRef {
        dims: [5, 6, 7],
        samples: SamplesRef::U8(&voxels),
        affine: &affine,
    };
    nifti_io::write(&path, &image).unwrap();
    path
}

fn only_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap();
    let files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn load(folder: &Path, scan: &Path) -> Preprocessed {
    let cache = VolumeCache::new(Some(folder));
    cache.load(scan, &recipe()).unwrap()
}

fn same(a: &Preprocessed, b: &Preprocessed) {
    assert_eq!((a.hash, &a.geometry), (b.hash, &b.geometry));
    assert_eq!(a.warnings, b.warnings);
    assert_eq!(a.volume.as_u8(), b.volume.as_u8());
}

#[test]
fn the_cached_volume_equals_the_built_one() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache/volumes");
    let made = build(&scan, &recipe()).unwrap();
    same(&load(&folder, &scan), &made);
    let cached = only_file(&folder);
    let written = fs::metadata(&cached).unwrap().modified().unwrap();
    let again = load(&folder, &scan);
    same(&again, &made);
    assert_eq!(again.volume.as_u8().unwrap().as_ptr().addr() % 64, 0);
    let now = fs::metadata(&cached).unwrap().modified().unwrap();
    assert_eq!(now, written, "written twice");
    // Another name for the same bytes is the same entry; floats leave none.
    let copy = dir.path().join("copy.nii");
    fs::copy(&scan, &copy).unwrap();
    same(&load(&folder, &copy), &made);
    let cache = VolumeCache::new(Some(&folder));
    let mut floats = recipe();
    floats.choice = VolumeChoice::ReferenceF32;
    let floats = cache.load(&scan, &floats).unwrap();
    assert!(floats.volume.as_u8().is_none());
    only_file(&folder);
    // The limit holds for cached volumes, too.
    let mut small = recipe();
    small.limits.max_voxels = 209;
    let error = cache.load(&scan, &small).unwrap_err();
    let read = matches!(error, VolumeError::Read(ReadError::TooManyVoxels { .. }));
    assert!(read, "{error}");
}

#[test]
fn the_mapping_outlives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    let mapped = load(&folder, &scan);
    fs::remove_dir_all(&folder).unwrap();
    same(&mapped, &build(&scan, &recipe()).unwrap());
}

/// File times count in steps of a few milliseconds.
fn a_moment_later() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

#[test]
fn a_mapped_file_that_changes_or_shrinks_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    let made = build(&scan, &recipe()).unwrap();
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 4] = [
        ("one voxel", |file, good| {
            let mut bytes = good.to_vec();
            bytes[500] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("shorter", |file, _| {
            File::options()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(400)
                .unwrap();
        }),
        ("empty", |file, _| {
            File::create(file).unwrap();
        }),
        ("empty, then as long as before", |file, good| {
            let file = File::create(file).unwrap();
            file.set_len(good.len() as u64).unwrap();
        }),
    ];
    for (what, change) in changes {
        let mapped = load(&folder, &scan).volume;
        let posed = mapped.clone();
        assert_eq!(mapped.check(), Ok(()), "{what}");
        let file = only_file(&folder);
        let good = fs::read(&file).unwrap();
        a_moment_later();
        change(&file, &good);
        // Reading does not end the process, and the error stays.
        let sum = |v: &Volume| {
            v.as_u8()
                .unwrap()
                .iter()
                .map(|v| u64::from(*v))
                .sum::<u64>()
        };
        sum(&mapped);
        let error = mapped.check().unwrap_err();
        assert_eq!(error.path, file, "{what}");
        fs::write(&file, &good).unwrap();
        assert!(posed.check().is_err(), "{what}");
        drop((mapped, posed));
        // The next process makes it anew.
        change(&file, &good);
        same(&load(&folder, &scan), &made);
    }
}

#[test]
fn a_mapped_file_may_be_touched_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    let mapped = load(&folder, &scan).volume;
    let made = build(&scan, &recipe()).unwrap();
    let file = only_file(&folder);
    a_moment_later();
    let options = File::options().append(true).open(&file).unwrap();
    options.set_modified(SystemTime::now()).unwrap();
    assert_eq!(mapped.check(), Ok(()));
    fs::write(folder.join("other"), "another process's").unwrap();
    fs::rename(folder.join("other"), &file).unwrap();
    assert_eq!(mapped.check(), Ok(()));
    fs::remove_file(&file).unwrap();
    assert_eq!(mapped.check(), Ok(()));
    assert_eq!(mapped.as_u8(), made.volume.as_u8());
}

/// Other bus errors end the process, as without the handler.
#[cfg(target_os = "linux")]
#[test]
fn a_read_of_another_map_that_shrank_still_ends_the_process() {
    use std::os::unix::process::ExitStatusExt as _;
    const CHILD: &str = "LANDMARL_TEST_BUS_ERROR";
    if let Some(folder) = std::env::var_os(CHILD) {
        let folder = PathBuf::from(folder);
        let scan = scan_file(&folder);
        let kept = load(&folder.join("cache"), &scan);
        let path = folder.join("unwatched");
        fs::write(&path, [1; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        #[expect(unsafe_code, reason = "a map that nobody watches")]
        // SAFETY: the file is this test's own; the read below ends the process.
        let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
        file.set_len(0).unwrap();
        let read = std::hint::black_box(&map)[0];
        panic!("read {read} beyond the end; {:?}", kept.hash);
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "imaging::cache::tests::a_read_of_another_map_that_shrank_still_ends_the_process";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(7), "{child:?}");
}

/// Also where the folder existed before and anybody may list it.
#[cfg(unix)]
#[test]
fn only_its_owner_can_read_a_cached_volume() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    load(&folder, &scan);
    let cached = fs::metadata(only_file(&folder)).unwrap();
    assert_eq!(cached.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_damaged_cache_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    // Not mapped: the map's file is damaged below.
    let made = build(&scan, &recipe()).unwrap();
    same(&load(&folder, &scan), &made);
    let cached = only_file(&folder);
    let good = fs::read(&cached).unwrap();
    assert_eq!(good.len(), 384 + 210 + "[]".len());
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let places = [
        0, 9, 13, 16, 60, 160, 200, 210, 260, 320, 327, 330, 384, 593, 595,
    ];
    let mut broken: Vec<Vec<u8>> = places.map(flipped).to_vec();
    broken.extend([
        vec![],
        good[..383].to_vec(),
        good[..593].to_vec(),
        good[..595].to_vec(),
        [&good[..], &[0]].concat(),
    ]);
    // A valid header that claims the wrong size.
    let mut lie = made.clone();
    lie.geometry.dims[0] = 1 << 40;
    lie.geometry.axis_map.file_dims[0] = 1 << 40;
    let key = hash_file(&scan).unwrap();
    broken.push(entry::encode(&lie, &key).unwrap().concat());
    for bytes in broken {
        fs::write(&cached, &bytes).unwrap();
        assert!(open(&cached, &key).is_err());
        same(&load(&folder, &scan), &made);
        assert_eq!(fs::read(only_file(&folder)).unwrap(), good);
    }
    let error = open(&cached, &[0; 32]).unwrap_err();
    assert!(error.contains("another scan"), "{error}");
}

#[test]
fn loading_works_without_a_usable_cache_folder() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let taken = dir.path().join("a file");
    fs::write(&taken, "").unwrap();
    let made = build(&scan, &recipe()).unwrap();
    let cache = VolumeCache::new(Some(&taken.join("below")));
    same(&cache.load(&scan, &recipe()).unwrap(), &made);
    assert!(cache.warned.load(Ordering::Relaxed));
    let nowhere = VolumeCache {
        folder: None,
        warned: AtomicBool::new(false),
    };
    same(&nowhere.load(&scan, &recipe()).unwrap(), &made);
    assert!(nowhere.load(&dir.path().join("gone"), &recipe()).is_err());
}

#[test]
fn each_spacing_has_its_own_entry_and_leads_back_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let scan = scan_file(dir.path());
    let folder = dir.path().join("cache");
    let cache = VolumeCache::new(Some(&folder));
    let file = load(&folder, &scan);
    for (number, mm) in [(2, 0.75), (3, 1.5)] {
        let mut resampled = recipe();
        resampled.resample_mm = Some(mm);
        let made = build(&scan, &resampled).unwrap();
        same(&cache.load(&scan, &resampled).unwrap(), &made);
        same(&cache.load(&scan, &resampled).unwrap(), &made);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), number);
        assert_ne!(made.hash, file.hash);
        let spacing = made.geometry.spacing_mm;
        assert!(spacing.iter().all(|s| (s - mm).abs() < 1e-9), "{spacing:?}");
        // One place: in the world, on the file's grid, on its own grid, on the new one.
        let own = [1.5, 2.0, 4.25];
        let file_voxel = file.geometry.axis_map.to_file(own);
        let ours = made.geometry.axis_map.from_file(file_voxel);
        let worlds = [(&file, own), (&made, ours)].map(|(p, v)| p.geometry.affine.to_world(v));
        assert!((0..3).all(|i| (worlds[0][i] - worlds[1][i]).abs() < 1e-9));
        let back = made.geometry.axis_map.to_file(ours);
        assert!((0..3).all(|i| (back[i] - file_voxel[i]).abs() < 1e-9));
        assert_eq!(made.geometry.axis_map.file_dims, [5, 6, 7]);
    }
    let mut fine = recipe();
    fine.resample_mm = Some(1e-3);
    let error = cache.load(&scan, &fine).unwrap_err();
    assert!(matches!(error, VolumeError::Resample(_)), "{error}");
}

#[test]
fn cached_and_direct_preprocessing_agree() {
    let dir = tempfile::tempdir().unwrap();
    let image = nifti_io::read(&scan_file(dir.path()), &Limits::default()).unwrap();
    let samples = Samples::U8((0..210).collect());
    let same_image = Image::new([5, 6, 7], samples, *image.affine()).unwrap();
    let made = preprocess(&same_image, VolumeChoice::CanonicalU8);
    let loaded = load(&dir.path().join("cache"), &dir.path().join("scan.nii.gz"));
    assert_eq!(loaded.hash, volume_hash(&made.volume));
    assert_eq!(loaded.geometry, made.geometry);
}

#[test]
fn a_warm_cache_gives_the_warnings_of_a_cold_one() {
    let dir = tempfile::tempdir().unwrap();
    let (scan, folder) = (dir.path().join("a.nii"), dir.path().join("cache"));
    // sform and qform 1 mm apart, a wrong bitpix, one voxel NaN and all others 0.
    let mut fixture = Fixture::counting();
    (fixture.datatype, fixture.bitpix) = (16, 8);
    fixture.codes = [1, 1];
    fixture.pixdim = [-1.0, 1.0, 1.0, 1.0];
    fixture.quaternion = [0.0, 1.0, 0.0, 10.0, -20.0, 31.0];
    let mut values = [0.0_f32; 24];
    values[5] = f32::NAN;
    fixture.voxels = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    fs::write(&scan, fixture.bytes()).unwrap();
    let mut resampled = recipe();
    resampled.resample_mm = Some(0.5);
    let mut floats = recipe();
    floats.choice = VolumeChoice::ReferenceF32;
    for recipe in [recipe(), resampled, floats] {
        let cache = VolumeCache::new(Some(&folder));
        let cold = cache.load(&scan, &recipe).unwrap();
        let kinds = cold
            .warnings
            .iter()
            .map(|w| serde_json::to_value(w).unwrap());
        let kinds: Vec<_> = kinds.map(|w| w["kind"].clone()).collect();
        assert_eq!(
            kinds,
            ["forms_disagree", "bitpix", "not_finite", "constant"]
        );
        let warm = cache.load(&scan, &recipe).unwrap();
        assert_eq!(warm.warnings, cold.warnings);
    }
}
