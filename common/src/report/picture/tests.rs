//! Tests of `picture`.

use super::*;

const AREA: Area = Area {
    left: GAP,
    top: HEADER + ROW_HEADER,
    width: PANEL,
    height: PANEL,
};

/// 20×40×20 voxels, 1 × 0.5 × 1 mm; bright where x is large.
fn volume() -> Volume {
    let bytes: Vec<u8> = (0..20 * 40 * 20)
        .map(|i| if i / 800 >= 10 { 200 } else { 50 })
        .collect();
    Volume::from_u8([20, 40, 20], bytes).unwrap()
}

const SPACING: [f64; 3] = [1.0, 0.5, 1.0];

fn item(truth: Option<[f64; 3]>, prediction: Option<[f64; 3]>) -> PictureItem {
    let error_mm = truth.and(prediction).map(|_| 5.0);
    PictureItem {
        name: "AC".into(),
        truth,
        prediction,
        error_mm,
        error_voxels: Some(7.1),
    }
}

fn grey(picture: &RgbImage, x: i64, y: i64) -> [u8; 3] {
    picture.get_pixel(pixels(x), pixels(y)).0
}

#[test]
fn the_size_follows_the_number_of_landmarks() {
    let none = render_scan_picture(&volume(), SPACING, &[], "empty");
    assert_eq!(none.dimensions(), (992, 60));
    let one = Some([1.0; 3]);
    let items = [item(None, None), item(one, None), item(None, one)];
    let three = render_scan_picture(&volume(), SPACING, &items, "three");
    assert_eq!(three.dimensions(), (992, 60 + 3 * 376));
}

#[test]
fn markers_have_their_colours_where_they_belong() {
    let (truth, prediction) = ([5.0, 10.0, 15.0], [14.0, 30.0, 4.0]);
    let items = [item(Some(truth), Some(prediction))];
    let picture = render_scan_picture(&volume(), SPACING, &items, "markers");
    // All sides are 20 mm: 16 pixels per mm, voxel 0 of x half a voxel (8 pixels) from the left.
    let x = |v: f64| (v * 16.0 + 7.5).round() as i64;
    let up = |v: f64, zoom: f64| (PANEL as f64 - 0.5 - (v + 0.5) * zoom).round() as i64;
    let axial = |p: [f64; 3]| (AREA.left + x(p[0]), AREA.top + up(p[1], 8.0));
    for (position, colour) in [(truth, TRUTH_COLOUR), (prediction, PREDICTION_COLOUR)] {
        let (px, py) = axial(position);
        assert_eq!(grey(&picture, px, py), colour.0, "axial {position:?}");
        let coronal_y = AREA.top + up(position[2], 16.0);
        let coronal = grey(&picture, px + PANEL + GAP, coronal_y);
        assert_eq!(coronal, colour.0, "coronal {position:?}");
        let sagittal_x = AREA.left + 2 * (PANEL + GAP) + (position[1] * 8.0 + 3.5).round() as i64;
        let sagittal = grey(&picture, sagittal_x, coronal_y);
        assert_eq!(sagittal, colour.0, "sagittal {position:?}");
    }
    let ((ax, ay), (bx, by)) = (axial(truth), axial(prediction));
    let (mx, my) = (i64::midpoint(ax, bx), i64::midpoint(ay, by));
    assert!((-1..=1).any(|d| grey(&picture, mx, my + d) == LINE_COLOUR.0));
    // Along the arms only the upright cross has colour beside its middle, only the slanted one on its diagonal.
    assert_eq!(grey(&picture, ax - 5, ay), TRUTH_COLOUR.0);
    assert_eq!(grey(&picture, bx - 4, by - 4), PREDICTION_COLOUR.0);
}

#[test]
fn slices_are_interpolated_and_the_patients_left_is_left() {
    let picture = render_scan_picture(&volume(), SPACING, &[item(None, None)], "slices");
    let row = AREA.top + 100;
    assert_eq!(grey(&picture, AREA.left + 60, row), [50; 3]);
    assert_eq!(grey(&picture, AREA.left + 260, row), [200; 3]);
    let between = grey(&picture, AREA.left + 160, row)[0];
    assert!((100..150).contains(&between), "{between}");
}

#[test]
fn a_flat_volume_keeps_its_proportions() {
    let flat = Volume::from_u8([10, 10, 2], vec![100; 200]).unwrap();
    let picture = render_scan_picture(&flat, [1.0, 1.0, 2.0], &[item(None, None)], "flat");
    // Coronal: 10 mm wide, 4 mm high, centred in its panel of 320 pixels.
    let column = AREA.left + PANEL + GAP + 60;
    let lit = |y: &i64| grey(&picture, column, AREA.top + y) == [100; 3];
    assert_eq!((0..PANEL).filter(lit).count(), 128);
    assert_eq!(grey(&picture, column, AREA.top + 90), [0; 3]);
}

#[test]
fn predictions_far_outside_do_not_break_the_image() {
    for far in [
        [-500.0, 7.0, 1e6],
        [f64::NAN, 0.0, 0.0],
        [1e300, -1e300, f64::INFINITY],
    ] {
        let items = [item(Some([3.0; 3]), Some(far)), item(None, Some(far))];
        let picture = render_scan_picture(&volume(), SPACING, &items, "far away");
        let mut pixels = picture.pixels();
        let cyan = pixels.any(|p| *p == PREDICTION_COLOUR);
        assert!(cyan, "the legend and the coordinates stay");
    }
}

#[test]
fn error_texts_and_coordinates() {
    let text = error_text(&item(Some([0.0; 3]), Some([1.0; 3])));
    assert_eq!(text, "error 5.00 mm = 7.10 voxels");
    let unknown = PictureItem {
        error_voxels: None,
        ..item(None, Some([1.0; 3]))
    };
    assert_eq!(error_text(&unknown), "truth unknown");
    let text = coordinates("truth", Some([1.0, 2.25, 3.0]));
    assert_eq!(text, "truth voxel (1.0, 2.2, 3.0)");
    let whole = text_width("landmark", TEXT);
    assert_eq!(shortened("landmark", TEXT, whole), "landmark");
    let short = shortened("landmark", TEXT, whole - 1);
    assert!(short.starts_with("lan") && short.ends_with('…'), "{short}");
    assert!(text_width(&short, TEXT) < whole);
    assert_eq!(shortened("landmark", TEXT, 0), "…");
}

/// A real scan, through the same loading as elsewhere, keeps its truth on bone.
#[test]
fn a_real_scan_is_drawn() {
    use crate::imaging::nifti_io::{Limits, Samples, read};
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let file = data.join("mouse/train/images/mouse_A_J.nii.gz");
    if !file.exists() {
        println!("skipped: a_real_scan_is_drawn: ../shared/data is absent");
        return;
    }
    let image = read(&file, &Limits::default()).unwrap();
    let [nx, ny, nz] = image.dims();
    let Samples::U8(samples) = image.samples() else {
        panic!("the file holds bytes")
    };
    // LPS to RAS: x and y reversed.
    let at = |x, y, z| samples[nx - 1 - x + nx * (ny - 1 - y + ny * z)];
    let mut bytes = Vec::new();
    for (x, y) in (0..nx).flat_map(|x| (0..ny).map(move |y| (x, y))) {
        bytes.extend((0..nz).map(|z| at(x, y, z)));
    }
    let volume = Volume::from_u8([nx, ny, nz], bytes).unwrap();
    // LM1 of the file's landmarks: (0.996, 7.8885, 1.1725) mm.
    let lps = image.affine().to_voxel([0.996, 7.8885, 1.1725]).unwrap();
    let truth = [nx as f64 - 1.0 - lps[0], ny as f64 - 1.0 - lps[1], lps[2]];
    let items = [item(Some(truth), None)];
    let picture = render_scan_picture(&volume, image.spacing_mm(), &items, "mouse_A_J");
    if let Some(folder) = std::env::var_os("LANDMARL_TEST_PICTURES") {
        let file = std::path::Path::new(&folder).join("mouse_A_J.png");
        picture.save(file).unwrap();
    }
    // Near the tip of the nose bones something bright shows in every panel, beside the marker.
    for panel in 0..3 {
        let left = AREA.left + panel * (PANEL + GAP);
        let bright = (left..left + PANEL)
            .flat_map(|x| (AREA.top..AREA.top + PANEL).map(move |y| (x, y)))
            .filter(|&(x, y)| matches!(grey(&picture, x, y), [r, g, b] if r == g && g == b && r > 60 && r < 230));
        assert!(bright.count() > 100, "panel {panel}");
    }
}
