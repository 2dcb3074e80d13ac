"""Scans in every format that landmarl reads, and what nibabel and SimpleITK read from them.

    python make_scans.py FOLDER

writes the scans into FOLDER and, beside them, scans.json: a list of

    file        name of the file to open (for pairs: either of the two)
    nibabel     shape, affine (4x4, voxel -> RAS mm), sum of all voxels, values ([i, j, k, value])
    simpleitk   the same read by SimpleITK, its LPS turned to RAS; null where it refuses the file
    disputed    whether the two place the scan differently
    world       [voxel, RAS mm] pairs, by nibabel's affine
"""

import gzip
import json
import pathlib
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
SHAPE = (5, 6, 7)


def rotation(axis, degrees):
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def affine(directions, zooms=(0.8, 1.25, 2.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(zooms)
    matrix[:3, 3] = [-12.5, 20.25, -7.75]
    return matrix


OBLIQUE = rotation(0, 20) @ rotation(1, -15) @ rotation(2, 30)
ORIENTATIONS = {
    "ras": np.eye(3),
    "las": np.diag([-1.0, 1, 1]),
    "lps": np.diag([-1.0, -1, 1]),
    "pir": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": OBLIQUE,
    "oblique_left": OBLIQUE @ np.diag([-1.0, 1, 1]),
}


def voxels(kind, shape=SHAPE):
    count = int(np.prod(shape))
    values = (np.arange(count) * 37 + 11) % 120
    if kind[0] != "u":
        values = values - 50
    values = values.astype(kind)
    if kind[0] == "f":
        values = values / 8 + 0.1
    return values.astype(kind).reshape(shape, order="F")


class Maker:
    def __init__(self, folder):
        self.folder = folder
        self.entries = []

    def image(self, version, data, matrix, codes=(1, 1), endian="<", scaling=None, pair=False):
        """Header and voxels as bytes; nibabel's own save cannot make all of these."""
        header_class = {
            (1, False): nib.Nifti1Header,
            (1, True): nib.nifti1.Nifti1PairHeader,
            (2, False): nib.Nifti2Header,
            (2, True): nib.nifti2.Nifti2PairHeader,
        }[version, pair]
        header = header_class(endianness=endian)
        kind = data.dtype.newbyteorder(endian)
        header.set_data_shape(data.shape)
        header.set_data_dtype(kind)
        header.set_qform(matrix, codes[0])
        header.set_sform(matrix, codes[1])
        if codes[0] == 0:
            for field in ("quatern_b", "quatern_c", "quatern_d"):
                header[field] = 0
        if codes[1] == 0:
            for field in ("srow_x", "srow_y", "srow_z"):
                header[field] = 0
        header.set_xyzt_units("mm")
        if scaling is not None:
            header["scl_slope"], header["scl_inter"] = scaling
        raw = data.astype(kind).tobytes(order="F")
        if pair:
            return header.binaryblock, raw
        header["vox_offset"] = 352 if version == 1 else 544
        return header.binaryblock + b"\0" * 4, raw

    def disputed(self, name, data, matrix, **fields):
        """A scan whose header has these fields, as nibabel calls them."""
        header, raw = self.image(1, data, matrix)
        header = nib.Nifti1Header(header[:348], check=False)
        for field, value in fields.items():
            header[field] = value
        (self.folder / name).write_bytes(header.binaryblock + b"\0" * 4 + raw)
        self.add(name, disputed=True)

    def single(self, name, *args, members=None, disputed=False, **options):
        whole = b"".join(self.image(*args, **options))
        if name.endswith(".gz"):
            cuts = [0, *(members or []), len(whole)]
            whole = b"".join(gzip.compress(whole[a:b]) for a, b in zip(cuts, cuts[1:]))
        (self.folder / name).write_bytes(whole)
        self.add(name, disputed)

    def pair(self, name, *args, zipped=False, **options):
        end = ".gz" if zipped else ""
        parts = self.image(*args, pair=True, **options)
        for part, kind in zip(parts, (".hdr", ".img")):
            (self.folder / (name + kind + end)).write_bytes(gzip.compress(part) if zipped else part)
        self.add(name + ".hdr" + end)
        self.entries.append(dict(self.entries[-1], file=name + ".img" + end))

    def sitk_written(self, name, data, matrix):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
        lps = np.diag([-1.0, -1, 1]) @ matrix[:3, :3]
        zooms = np.linalg.norm(lps, axis=0)
        image.SetSpacing([float(z) for z in zooms])
        image.SetDirection((lps / zooms).ravel().tolist())
        image.SetOrigin((np.diag([-1.0, -1, 1]) @ matrix[:3, 3]).tolist())
        sitk.WriteImage(image, str(self.folder / name))
        self.add(name)

    def add(self, name, disputed=False):
        path = self.folder / name
        image = nib.load(path)
        data = np.asarray(image.dataobj, dtype=np.float64)
        data = data.reshape(data.shape[:3])
        places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (4, 5, 6), (2, 3, 5)]
        world = [[list(p), (image.affine @ [*p, 1])[:3].tolist()] for p in places]
        self.entries.append(
            {
                "file": name,
                "nibabel": described(data, image.affine, places),
                "simpleitk": by_simpleitk(path, places),
                "disputed": disputed,
                "world": world,
            }
        )


def described(data, matrix, places):
    return {
        "shape": list(data.shape),
        "affine": np.asarray(matrix, dtype=float).tolist(),
        "sum": float(data.sum()),
        "values": [[*p, float(data[p])] for p in places],
    }


def by_simpleitk(path, places):
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat64)
    except RuntimeError:
        return None
    size = image.GetSize()
    if len(size) > 3:
        image = image[(slice(None),) * 3 + (0,) * (len(size) - 3)]
    data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    flip = np.diag([-1.0, -1, 1])
    matrix = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix[:3, :3] = flip @ direction @ np.diag(image.GetSpacing())
    matrix[:3, 3] = flip @ np.array(image.GetOrigin())
    return described(data, matrix, places)


def disputed(make, las, oblique):
    other = oblique.copy()
    other[:3, 3] += [3, -4, 5]
    srows = {"srow_x": other[0], "srow_y": other[1], "srow_z": other[2]}
    zeros = {name: [0] * 4 for name in srows}
    sheared = dict(srows, srow_x=other[0] + [0, 0.3, 0, 0])
    cases = {
        "metres": {"xyzt_units": 1},
        "micrometres": {"xyzt_units": 3},
        "micrometres_qform": {"xyzt_units": 3 + 8, "sform_code": 0},
        "micrometres_none": {"xyzt_units": 3, "sform_code": 0, "qform_code": 0},
        "apart_1_1": srows,
        "apart_1_2": dict(srows, sform_code=2),
        "apart_1_4": dict(srows, sform_code=4),
        "apart_2_2": dict(srows, sform_code=2, qform_code=2),
        "apart_unknown": dict(srows, sform_code=9, qform_code=0),
        "zero_sform": zeros,
        "zero_sform_2": dict(zeros, sform_code=2),
        "sheared_beside_qform": sheared,
        "other_sizes": {"pixdim": [1] * 8},
        "other_sizes_sform": {"pixdim": [1] * 8, "qform_code": 0},
        "zero_sizes": {"pixdim": [1, 0.8, 0, 0, 1, 1, 1, 1], "qform_code": 0},
        "negative_sizes": {"pixdim": [1, 0.8, -1.25, 2, 1, 1, 1, 1], "sform_code": 0},
        "negative_sizes_sform": {"pixdim": [1, -0.8, 1.25, 2, 1, 1, 1, 1]},
        "qfac": {"pixdim": [-3, 0.8, 1.25, 2, 1, 1, 1, 1], "sform_code": 0},
    }
    for name, fields in cases.items():
        make.disputed(f"disputed_{name}.nii", voxels("i2"), oblique, **fields)
        make.disputed(f"disputed_{name}_left.nii", voxels("i2"), las, **fields)


def main():
    make = Maker(pathlib.Path(sys.argv[1]))
    ras, las, oblique = (affine(ORIENTATIONS[n]) for n in ("ras", "las", "oblique"))
    for version in (1, 2):
        for kind in TYPES:
            for endian, letter in (("<", "little"), (">", "big")):
                for scaling in (None, (0.5, -10.0)):
                    end = "_scaled.nii.gz" if scaling else ".nii"
                    name = f"n{version}_{kind}_{letter}{end}"
                    make.single(name, version, voxels(kind), las, endian=endian, scaling=scaling)
        for label, directions in ORIENTATIONS.items():
            for form, codes in {"both": (1, 1), "sform": (0, 2), "qform": (1, 0)}.items():
                name = f"n{version}_{label}_{form}.nii.gz"
                make.single(name, version, voxels("i2"), affine(directions), codes=codes)
        make.single(f"n{version}_none.nii", version, voxels("i2"), ras, codes=(0, 0), disputed=True)
        for more in ((1,), (1, 1), (1, 1, 1, 1)):
            name = f"n{version}_trailing_{3 + len(more)}.nii.gz"
            make.single(name, version, voxels("u2").reshape(SHAPE + more), oblique)
        make.single(f"n{version}_members.nii.gz", version, voxels("i2"), oblique, members=[100, 600])
        make.single(f"n{version}_nan_slope.nii", version, voxels("i2"), ras, scaling=(np.nan, 3))
        for endian, letter in (("<", "little"), (">", "big")):
            for zipped in (False, True):
                name = f"n{version}_pair_{letter}_{'gz' if zipped else 'plain'}"
                make.pair(name, version, voxels("f4"), oblique, endian=endian, zipped=zipped)
    disputed(make, las, oblique)
    sheared = oblique.copy()
    sheared[0, 1] += 0.3
    make.single("n1_sheared_sform.nii", 1, voxels("i2"), sheared, codes=(0, 1))
    for label, directions in ORIENTATIONS.items():
        for kind in ("u1", "i2", "f4", "f8"):
            end = ".nii" if kind == "u1" else ".nii.gz"
            make.sitk_written(f"itk_{label}_{kind}{end}", voxels(kind), affine(directions))
    nib.save(nib.Nifti1Image(voxels("f4"), oblique), make.folder / "nib_saved.nii.gz")
    make.add("nib_saved.nii.gz")
    nib.save(nib.Nifti2Image(voxels("i4"), oblique), make.folder / "nib_saved2.nii.gz")
    make.add("nib_saved2.nii.gz")
    nib.save(nib.Nifti1Pair(voxels("i2"), oblique), make.folder / "nib_pair.img")
    make.add("nib_pair.img")
    (make.folder / "scans.json").write_text(json.dumps(make.entries))


main()
