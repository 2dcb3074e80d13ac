//! Where scans lie whose header says so in two ways, or in none.

use super::*;
use crate::imaging::scan::LengthUnit;

type Edit = fn(&mut Fixture);
type Rows = [[f64; 4]; 3];

/// 2×3×4 voxels of 2×3×4 mm; sform and qform are equal.
fn base(edit: Edit) -> Fixture {
    let mut fixture = Fixture::counting();
    fixture.pixdim = [1.0, 2.0, 3.0, 4.0];
    fixture.quaternion = [0.0, 0.0, 0.0, 10.0, 20.0, 30.0];
    fixture.codes = [1, 1];
    fixture.srow = [
        2.0, 0.0, 0.0, 10.0, 0.0, 3.0, 0.0, 20.0, 0.0, 0.0, 4.0, 30.0,
    ];
    edit(&mut fixture);
    fixture
}

const fn straight(steps: [f64; 3], origin: [f64; 3]) -> Rows {
    Affine::diagonal(steps, origin).rows
}

const PLAIN: Rows = straight([2.0, 3.0, 4.0], [10.0, 20.0, 30.0]);
/// The sform is 7 mm off.
const FAR: Rows = straight([2.0, 3.0, 4.0], [17.0, 20.0, 30.0]);
const NO_ORIENTATION: Rows = straight([-2.0, -3.0, 4.0], [0.0; 3]);

fn far(f: &mut Fixture) {
    f.srow[3] = 17.0;
}

fn far_with(f: &mut Fixture, codes: [i16; 2]) {
    far(f);
    f.codes = codes;
}

/// The image of a header in NIfTI-1; NIfTI-2 must agree.
fn image(edit: Edit) -> Image {
    let fixture = base(edit);
    let one = read_bytes(&fixture.bytes()).unwrap();
    let two = Fixture {
        version: 2,
        vox_offset: 544.0,
        magic: *b"n+2\0",
        ..fixture
    };
    assert_eq!(read_bytes(&two.bytes()).unwrap(), one);
    one
}

/// Name, header, where SimpleITK 2.5.7 (ITK 5.4) reads it, and the warnings, whose distances are
/// those to where nibabel 5.4.2 reads it. Read with
///
/// ```python
/// im = sitk.ReadImage(p); F = np.diag([-1., -1, 1])
/// F @ np.array(im.GetDirection()).reshape(3, 3) @ np.diag(im.GetSpacing()), F @ np.array(im.GetOrigin())
/// ```
fn check(cases: &[(&str, Edit, Rows, Vec<ScanWarning>)]) {
    for (name, edit, rows, warnings) in cases {
        let image = image(*edit);
        for (found, expected) in image
            .affine()
            .rows
            .iter()
            .flatten()
            .zip(rows.iter().flatten())
        {
            let apart = (found - expected).abs();
            assert!(apart <= 1e-6 * expected.abs().max(1.0), "{name}: {image:?}");
        }
        assert_eq!(image.warnings(), *warnings, "{name}");
    }
}

#[test]
fn lengths_in_metres_and_micrometres_become_mm_as_in_itk() {
    let unit = |unit, apart_mm| ScanWarning::Unit {
        unit,
        apart_mm: Some(apart_mm),
    };
    let micrometres = straight([0.002, 0.003, 0.004], [0.01, 0.02, 0.03]);
    check(&[
        ("mm", |f| f.units = 2, PLAIN, vec![]),
        ("mm and seconds", |f| f.units = 10, PLAIN, vec![]),
        ("unknown", |f| f.units = 0, PLAIN, vec![]),
        (
            "metres",
            |f| f.units = 1,
            straight([2000.0, 3000.0, 4000.0], [1e4, 2e4, 3e4]),
            vec![unit(LengthUnit::Metre, 50782.227)],
        ),
        (
            "micrometres, both forms",
            |f| f.units = 3,
            micrometres,
            vec![unit(LengthUnit::Micrometre, 50.7822)],
        ),
        (
            "micrometres and milliseconds, the qform",
            |f| (f.units, f.codes) = (3 + 16, [1, 0]),
            micrometres,
            vec![unit(LengthUnit::Micrometre, 50.7822)],
        ),
        (
            "micrometres, the sform",
            |f| (f.units, f.codes) = (3, [0, 2]),
            micrometres,
            vec![unit(LengthUnit::Micrometre, 50.7822)],
        ),
        (
            "micrometres, no orientation",
            |f| (f.units, f.codes) = (3, [0, 0]),
            straight([-0.002, -0.003, 0.004], [0.0; 3]),
            vec![
                ScanWarning::NoOrientation {
                    apart_mm: Some(0.0109),
                },
                unit(LengthUnit::Micrometre, 6.785),
            ],
        ),
    ]);
}

#[test]
fn a_scan_without_orientation_lies_where_itk_places_it() {
    let warning = |apart| vec![ScanWarning::NoOrientation { apart_mm: apart }];
    check(&[
        (
            "codes 0",
            |f| f.codes = [0, 0],
            NO_ORIENTATION,
            warning(Some(10.8628)),
        ),
        (
            "codes -1",
            |f| f.codes = [-1, -1],
            NO_ORIENTATION,
            warning(Some(10.8628)),
        ),
    ]);
}

#[test]
fn of_two_orientations_itks_is_taken() {
    let sform = || vec![ScanWarning::FormsDisagree { apart_mm: 7.0 }];
    let qform = || vec![ScanWarning::QformUsed { apart_mm: 7.0 }];
    check(&[
        ("equal", |f| f.codes = [1, 4], PLAIN, vec![]),
        ("1 and 1", far, FAR, sform()),
        ("2 and 1", |f| far_with(f, [2, 1]), FAR, sform()),
        ("1 and 2", |f| far_with(f, [1, 2]), PLAIN, qform()),
        ("4 and 4", |f| far_with(f, [4, 4]), PLAIN, qform()),
        ("none and 2", |f| far_with(f, [0, 2]), FAR, vec![]),
        ("none and 4", |f| far_with(f, [-1, 4]), FAR, vec![]),
        ("1 and none", |f| far_with(f, [1, 0]), PLAIN, vec![]),
        ("1 and -1", |f| far_with(f, [1, -1]), PLAIN, vec![]),
        (
            "a code that nibabel does not know",
            |f| far_with(f, [0, 9]),
            FAR,
            vec![ScanWarning::Elsewhere {
                apart_mm: Some(47.1699),
            }],
        ),
        (
            "the same beside a qform",
            |f| far_with(f, [1, 9]),
            PLAIN,
            qform(),
        ),
    ]);
}

/// The sform is the more accurate of the two.
#[test]
fn orientations_that_are_nearly_the_same_are_the_sform() {
    let near = |f: &mut Fixture| (f.codes, f.srow[3]) = ([1, 2], 10.05);
    let image = image(near);
    assert_eq!(image.affine().rows[0][3], f64::from(10.05_f32));
    assert_eq!(image.warnings(), []);
    // Not in voxels of 0.05 mm.
    let small = |f: &mut Fixture| {
        (f.codes, f.pixdim) = ([1, 2], [1.0, 0.05, 0.05, 0.05]);
        f.srow = [
            0.05, 0.0, 0.0, 10.03, 0.0, 0.05, 0.0, 20.0, 0.0, 0.0, 0.05, 30.0,
        ];
    };
    check(&[(
        "small voxels",
        small,
        straight([0.05; 3], [10.0, 20.0, 30.0]),
        vec![ScanWarning::QformUsed { apart_mm: 0.03 }],
    )]);
}

#[test]
fn a_broken_sform_beside_a_sound_qform_is_passed_over() {
    let unusable = || vec![ScanWarning::SformUnusable];
    check(&[
        ("zeros", |f| f.srow = [0.0; 12], PLAIN, unusable()),
        (
            "zeros, code 2",
            |f| (f.codes, f.srow) = ([1, 2], [0.0; 12]),
            PLAIN,
            unusable(),
        ),
        // ITK's own reading of these two is not defined.
        ("NaN", |f| f.srow[0] = f32::NAN, PLAIN, unusable()),
        ("infinite", |f| f.srow[3] = f32::INFINITY, PLAIN, unusable()),
    ]);
    let alone = base(|f| (f.codes, f.srow) = ([0, 1], [0.0; 12]));
    let text = refusal(&alone.bytes());
    assert!(text.contains("sform that maps voxels nowhere"), "{text}");
}

#[test]
fn a_broken_qform_beside_a_sound_sform() {
    check(&[
        (
            "the sform counts",
            |f| {
                far(f);
                f.quaternion[0] = f32::NAN;
            },
            FAR,
            vec![ScanWarning::FormsDisagree { apart_mm: 7.0 }],
        ),
        (
            "the qform counts, its NaN as 0",
            |f| {
                far_with(f, [1, 2]);
                f.quaternion[0] = f32::NAN;
            },
            PLAIN,
            vec![ScanWarning::QformUsed { apart_mm: 7.0 }],
        ),
        (
            "too long a quaternion is made shorter",
            |f| (f.codes, f.quaternion[0], f.quaternion[1]) = ([1, 0], 1.0, 1.0),
            [
                [0.0, 3.0, 0.0, 10.0],
                [2.0, 0.0, 0.0, 20.0],
                [0.0, 0.0, -4.0, 30.0],
            ],
            vec![],
        ),
    ]);
}

#[test]
fn skewed_axes_are_warned_of() {
    let skewed = [
        [2.0, 1.0, 0.0, 10.0],
        [0.0, 3.0, 0.0, 20.0],
        [0.0, 0.0, 4.0, 30.0],
    ];
    check(&[
        // ITK refuses it.
        (
            "the sform alone",
            |f| (f.codes, f.srow[1]) = ([0, 1], 1.0),
            skewed,
            vec![ScanWarning::Skewed { degrees: 18.4349 }],
        ),
        (
            "beside a qform",
            |f| f.srow[1] = 1.0,
            PLAIN,
            vec![ScanWarning::QformUsed { apart_mm: 2.0 }],
        ),
    ]);
    let slightly = image(|f| f.srow[1] = 0.001);
    assert_eq!(slightly.affine().rows[0][1], f64::from(0.001_f32));
    assert_eq!(slightly.warnings(), []);
}

#[test]
fn pixdim_holds_the_voxel_sizes_as_in_itk() {
    let sizes = |pixdim: &str, apart_mm| ScanWarning::SizesDisagree {
        pixdim: pixdim.to_owned(),
        sform: "2 × 3 × 4".to_owned(),
        apart_mm,
    };
    let origin = [10.0, 20.0, 30.0];
    check(&[
        (
            "other than the sform's",
            |f| (f.codes, f.pixdim) = ([0, 1], [1.0; 4]),
            straight([1.0; 3], origin),
            vec![sizes("1 × 1 × 1", 9.8995)],
        ),
        (
            "beside a qform",
            |f| f.pixdim[1] = 1.0,
            straight([1.0, 3.0, 4.0], origin),
            vec![sizes("1 × 3 × 4", 1.0)],
        ),
        (
            "0 beside a sform",
            |f| (f.codes, f.pixdim[1]) = ([0, 1], 0.0),
            straight([1.0, 3.0, 4.0], origin),
            vec![sizes("0 × 3 × 4", 1.0)],
        ),
        (
            "negative beside a sform",
            |f| (f.codes, f.pixdim[1]) = ([0, 1], -2.0),
            straight([-2.0, 3.0, 4.0], origin),
            vec![sizes("-2 × 3 × 4", 4.0)],
        ),
    ]);
}

#[test]
fn voxel_sizes_of_zero_nan_and_below_are_read_as_itk_reads_them() {
    let odd = |pixdim: &str, apart_mm| ScanWarning::OddSizes {
        pixdim: pixdim.to_owned(),
        apart_mm,
    };
    let origin = [10.0, 20.0, 30.0];
    let none = straight([-1.0, -3.0, 4.0], [0.0; 3]);
    let nowhere = |apart_mm| ScanWarning::NoOrientation { apart_mm };
    check(&[
        (
            "0",
            |f| (f.codes, f.pixdim[1]) = ([1, 0], 0.0),
            straight([1.0, 3.0, 4.0], origin),
            vec![odd("0 × 3 × 4", Some(0.0))],
        ),
        (
            "NaN",
            |f| (f.codes, f.pixdim[1]) = ([1, 0], f32::NAN),
            straight([1.0, 3.0, 4.0], origin),
            vec![odd("NaN × 3 × 4", None)],
        ),
        (
            "negative",
            |f| (f.codes, f.pixdim[1]) = ([1, 0], -2.0),
            straight([-2.0, 3.0, 4.0], origin),
            vec![odd("-2 × 3 × 4", Some(4.0))],
        ),
        (
            "negative beside a qfac of -1",
            |f| (f.codes, f.pixdim) = ([1, 0], [-1.0, 2.0, 3.0, -4.0]),
            PLAIN,
            vec![odd("2 × 3 × -4", Some(24.0))],
        ),
        (
            "a qfac of -5",
            |f| (f.codes, f.pixdim[0]) = ([1, 0], -5.0),
            straight([2.0, 3.0, -4.0], origin),
            vec![ScanWarning::Elsewhere {
                apart_mm: Some(24.0),
            }],
        ),
        (
            "0 without orientation",
            |f| (f.codes, f.pixdim[1]) = ([0, 0], 0.0),
            none,
            vec![nowhere(Some(10.8282)), odd("0 × 3 × 4", Some(10.8282))],
        ),
        (
            "NaN without orientation",
            |f| (f.codes, f.pixdim[1]) = ([0, 0], f32::NAN),
            none,
            vec![nowhere(None), odd("NaN × 3 × 4", None)],
        ),
    ]);
}

#[test]
fn what_is_written_is_in_mm_and_where_itk_placed_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    let edits: [Edit; 6] = [
        |f| f.units = 3,
        |f| f.units = 1,
        |f| f.codes = [0, 0],
        |f| far_with(f, [1, 2]),
        |f| f.pixdim[1] = -1.0,
        |f| f.srow[1] = 0.001,
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let scan = image(edit);
        let path = dir.path().join(format!("{number}.nii"));
        let written = ImageRef {
            dims: scan.dims(),
            samples: SamplesRef::U8(&[0; 24]),
            affine: scan.affine(),
        };
        write(&path, &written).unwrap();
        let bytes = fs::read(&path).unwrap();
        // The unit, and both codes: ITK refuses a skewed sform without a qform.
        assert_eq!((bytes[123], bytes[252], bytes[254]), (2, 1, 1), "{number}");
        let back = read(&path, &Limits::default()).unwrap();
        assert_eq!(back.warnings(), [], "{number}");
        for (found, expected) in back
            .affine()
            .rows
            .iter()
            .flatten()
            .zip(scan.affine().rows.iter().flatten())
        {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{number}"
            );
        }
    }
}
