//! Files written by nibabel 5.4.2, with the affine and voxels that it reads
//! back from them; the affine of the file without orientation is SimpleITK 2.5.7's.
//! All are 2×2×2. Script:
//!
//! ```python
//! import gzip, io, struct
//! import nibabel as nib, numpy as np
//! def rot(axis, deg):
//!     a = np.deg2rad(deg); c, s = np.cos(a), np.sin(a); m = np.eye(3)
//!     i, j = [k for k in range(3) if k != axis]; m[i,i] = m[j,j] = c; m[i,j] = -s; m[j,i] = s; return m
//! R = rot(0, 20) @ rot(1, -15) @ rot(2, 30)
//! def affine(zooms, flip):
//!     A = np.eye(4); A[:3,:3] = R @ np.diag(zooms) @ np.diag([1, 1, flip]); A[:3,3] = [10.5, -20.25, 30]; return A
//! def file(name, data, endian, A, q, s, slope=None, inter=0.0):
//!     h = nib.Nifti1Header(endianness=endian); h.set_data_shape(data.shape); h.set_data_dtype(data.dtype.newbyteorder(endian))
//!     h['vox_offset'] = 352
//!     h.set_qform(A, q); h.set_sform(A, s)
//!     if q == 0: h['quatern_b'] = h['quatern_c'] = h['quatern_d'] = 0
//!     if slope is not None: h['scl_slope'], h['scl_inter'] = slope, inter
//!     raw = h.binaryblock + b'\0'*4 + data.astype(data.dtype.newbyteorder(endian)).tobytes(order='F')
//!     im = nib.Nifti1Image.from_bytes(raw)
//!     v = im.get_fdata()
//!     print(f'    // {name}')
//!     gz = gzip.compress(raw, 9, mtime=0).hex()
//!     print(f'    ("{name}", "{gz}",')
//!     print('     ', list(im.shape), ',', [[float(x) for x in r] for r in im.affine[:3]], ',')
//!     print('     ', [float(x) for x in v.ravel(order='F')], '),')
//! i = np.arange(8)
//! file('i16, big-endian, scaled, qform with qfac -1', (i*i*100-1000).astype('i2').reshape((2,2,2), order='F'), '>', affine([0.5,0.75,2],-1), 1, 0, 0.5, -10)
//! file('f64, little-endian, oblique sform', (1.5**i-7).reshape((2,2,2), order='F'), '<', affine([0.9,1.1,1.3],1), 0, 2)
//! file('u16, big-endian, both forms, NaN slope', (i*9001).astype('u2').reshape((2,2,2), order='F'), '>', affine([1,1,1],1), 1, 1, np.nan, 3)
//! file('u8, no orientation, 4D with one volume', (i*30).astype('u1').reshape((2,2,2,1), order='F'), '<', affine([0.5,0.75,2],1), 0, 0)
//! ```

/// One such file.
pub(super) struct Golden {
    pub(super) name: &'static str,
    /// The gzipped file, in hex.
    pub(super) file: &'static str,
    pub(super) affine: [[f64; 4]; 3],
    /// The first axis fastest.
    pub(super) voxels: [f32; 8],
}

#[rustfmt::skip]
pub(super) const FILES: [Golden; 4] = [
    Golden {
        name: "i16, big-endian, scaled, qform with qfac -1",
        file: "1f8b08000000000002036360608c61200630333081212314a2021606010686fd0d0c0cf6408ebd030383\
            03886e40c5ce1b20f2071518060700fac2ce27eaabed62f65ebb9e19618e1a40b72d626070fc0014bfa6\
            fa7edfce5283fd2ccdef40e276ddcf3fdb0b1ff0b4d754dd0752b36791cb6abb05f97bf6bf88f500a947\
            0779da8660fa8fc49f9abf2bfecf618a60bdc3a5c16f0300abca7d8670010000",
        affine: [
            [0.4182581518150256, -0.3622221844590771, -0.5176380928886523, 10.5],
            [0.2732540140946475, 0.5771527646109545, 0.6607321719805325, -20.25],
            [-0.01980813523381622, 0.3133524778705705, -1.8153467442063203, 30.0],
        ],
        voxels: [-510.0, -460.0, -310.0, -60.0, 290.0, 740.0, 1290.0, 1940.0],
    },
    Golden {
        name: "f64, little-endian, oblique sform",
        file: "1f8b08000000000002038b6164200a30333081212314a2020720048106fbb4b434fbb3677a80f4327b10\
            1f156f7086d0830530a1f1351c1918161d6460f8e0b877b783fd2c068efd32ae6bec40e2dbaefcb69bb7\
            39c2dee5c9ed7d2035b3b884f6f6f8bdb6cbe79c6e0f528f6e729eb621124fe200841683d2c2509a174a\
            ffdf0fa11f43c2668220243875541c00e52e49e0a0010000",
        affine: [
            [0.75286465883255, -0.5312591791152954, 0.3364647626876831, 10.5],
            [0.49185723066329956, 0.846490740776062, -0.42947590351104736, -20.25],
            [-0.035654641687870026, 0.4595836400985718, 1.1799753904342651, 30.0],
        ],
        voxels: [-6.0, -5.5, -4.75, -3.625, -1.9375, 0.59375, 4.390625, 10.0859375],
    },
    Golden {
        name: "u16, big-endian, both forms, NaN slope",
        file: "1f8b08000000000002036360608c61200630333081212314a200260606010606fb06fcd879030343fd01\
            0606070786c10180feb0f389fa6abb98bdd7ae674698a30603c3c1450c0c8e1f80ee0d537dbfefbbdb2b\
            bb96e67720717beee79fed5d1912f7ad54dd0752b357c965b5ddd55781f619b11e20f5e8204fdb10ca52\
            d6740bcaacee59b2feeca56fdfe4014569ba9d70010000",
        affine: [
            [0.8365163207054138, -0.4829629063606262, 0.258819043636322, 10.5],
            [0.5465080142021179, 0.7695370316505432, -0.3303660750389099, -20.25],
            [-0.03961626812815666, 0.4178033173084259, 0.9076733589172363, 30.0],
        ],
        voxels: [0.0, 9001.0, 18002.0, 27003.0, 36004.0, 45005.0, 54006.0, 63007.0],
    },
    Golden {
        name: "u8, no orientation, 4D with one volume",
        file: "1f8b08000000000002038b6164200ab0303081212314a20226060e30dd600f2480d801443b40f8c87883\
            3354cd20051a8e0c0c8b0e32307c707caf7acdcea074e7be77cd2cf620f1cfcfbbed3c0f08dbef53d5dc\
            0f52b3da65d19e3df90bec3c625fd883d4a39b94a76d0861c8d944554cdb720900bc8982cc68010000",
        affine: [
            [-0.5, 0.0, 0.0, 0.0],
            [0.0, -0.75, 0.0, 0.0],
            [0.0, 0.0, 2.0, 0.0],
        ],
        voxels: [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0],
    },
];
