//! NIfTI-2, and headers with contradictions.

use super::*;

fn change2(edit: impl FnOnce(&mut Fixture)) -> Vec<u8> {
    let mut fixture = Fixture::counting2();
    edit(&mut fixture);
    fixture.bytes()
}

#[test]
fn nifti2_reads_as_nifti1() {
    let turned = |f: &mut Fixture| {
        f.codes = [1, 0];
        f.pixdim = [-1.0, 2.0, 3.0, 4.0];
        f.quaternion = [0.1, 0.2, 0.3, 4.0, 5.0, 6.0];
        (f.datatype, f.bitpix, f.slope, f.inter) = (4, 16, 0.5, -3.0);
        f.voxels = (0..48).collect();
    };
    for big_endian in [false, true] {
        let edits: [fn(&mut Fixture); 3] = [
            |_| {},
            |f| f.dim = [6, 2, 3, 4, 1, 1, 1, 1],
            |f| f.codes = [0, 0],
        ];
        for edit in edits {
            let with = |f: &mut Fixture| {
                f.big_endian = big_endian;
                turned(f);
                edit(f);
            };
            let (one, two) = (change(with), change2(with));
            assert_eq!(two.len() - one.len(), 540 - 348);
            let image = read_bytes(&one).unwrap();
            assert_eq!(read_bytes(&two).unwrap(), image);
            assert_eq!(read_bytes(&gzip(&two)).unwrap(), image);
            let parts = [gzip(&two[..400]), gzip(&two[400..])].concat();
            assert_eq!(read_bytes(&parts).unwrap(), image);
        }
    }
    let padded = change2(|f| f.vox_offset = 560.0);
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    assert_eq!(read_bytes(&padded).unwrap(), plain);
}

#[test]
fn nifti2_numbers_are_not_rounded() {
    let mut bytes = change2(|_| {});
    bytes[400..408].copy_from_slice(&(-1.0_f64 / 3.0).to_le_bytes());
    bytes[112..120].copy_from_slice(&(1.0_f64 / 3.0).to_le_bytes());
    assert_eq!(read_bytes(&bytes).unwrap().affine().rows[0][0], -1.0 / 3.0);
}

#[test]
fn each_broken_nifti2_header_has_its_own_message() {
    let good = change2(|_| {});
    let mut converted = good.clone();
    converted[8..12].copy_from_slice(b"\n\x1a\n\0");
    let mut silent = good.clone();
    silent[8..12].fill(0);
    assert!(read_bytes(&silent).is_ok());
    let mut far = good.clone();
    far[168..176].copy_from_slice(&i64::MAX.to_le_bytes());
    let mut negative = good.clone();
    negative[168..176].copy_from_slice(&(-544_i64).to_le_bytes());
    refused_with(vec![
        (
            "too short: a NIfTI-2 header needs 540 bytes, the file has 400",
            good[..400].to_vec(),
        ),
        ("line ends were converted", converted),
        ("vox_offset is 9223372036854776000,", far),
        ("vox_offset is -544,", negative),
        ("bytes from 544 on", change2(|f| f.vox_offset = 352.0)),
        ("dim[0] is -1,", change2(|f| f.dim[0] = -1)),
        ("dim[0] is 8,", change2(|f| f.dim[0] = 8)),
        (
            "dimensions [2, -9223372036854775808, 4]",
            change2(|f| f.dim[2] = i64::MIN),
        ),
        (
            "an axis may have 32767 voxels",
            change2(|f| f.dim[2] = i64::MAX),
        ),
        (
            "an axis may have 32767 voxels",
            change2(|f| f.dim[1] = 32768),
        ),
        (
            "the limit is 2147483648",
            change2(|f| f.dim = [3, 32767, 32767, 32767, 1, 1, 1, 1]),
        ),
        (
            "shape [2, 3, 4, 9223372036854775807]; only 3D",
            change2(|f| (f.dim[0], f.dim[4]) = (4, i64::MAX)),
        ),
        ("sizeof_hdr is 349,", {
            let mut bytes = Fixture::counting().bytes();
            bytes[0] += 1;
            bytes
        }),
    ]);
}

#[test]
fn trailing_axes_of_length_one_are_ignored_and_others_refused() {
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    for version in [1, 2] {
        for rank in 3..=7 {
            let edit = |f: &mut Fixture| f.dim[0] = rank;
            let bytes = if version == 1 {
                change(edit)
            } else {
                change2(edit)
            };
            assert_eq!(read_bytes(&bytes).unwrap(), plain);
        }
    }
    for axis in 4..=7 {
        let bytes = change2(|f| (f.dim[0], f.dim[axis]) = (7, 2));
        assert!(refusal(&bytes).contains("only 3D scans"));
    }
}
