"""Exports of landmarl as nibabel, SimpleITK and plain JSON and CSV readers see them.

    python exports.py make PHANTOM.nii.gz LANDMARKS.csv FOLDER
    python exports.py read FOLDER EVALUATION

`make` stores one phantom three times: in RAS (NAME.nii.gz), with its first axis turned (las),
and with axes exchanged, unequal spacing and a rotated grid (oblique, written by SimpleITK).
Beside each lies NAME.csv (RAS mm), and voxels.json says in which voxel of which file each
landmark is. `read` prints JSON: per scan the largest distance in mm between places that must be
the same, and what the label map shows.
"""

import csv
import json
import pathlib
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk

FLIP = np.array([-1.0, -1, 1])


def rotation(axis, degrees):
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = [k for k in range(3) if k != axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def to_world(affine, voxel):
    return affine[:3, :3] @ np.asarray(voxel, dtype=float) + affine[:3, 3]


def write_table(path, places):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "x_ras_mm", "y_ras_mm", "z_ras_mm"])
        for name, place in places.items():
            writer.writerow([name, *(repr(float(v)) for v in place)])


def read_table(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    keys = ["x_ras_mm", "y_ras_mm", "z_ras_mm"]
    return {row["name"]: np.array([float(row[k]) for k in keys]) for row in rows}


def make(phantom, table, folder):
    folder.mkdir(parents=True)
    image = nib.load(phantom)
    data = np.asarray(image.dataobj)
    inverse = np.linalg.inv(image.affine)
    voxels = {name: to_world(inverse, place) for name, place in read_table(table).items()}
    known = {"ras": voxels}
    nib.save(nib.Nifti1Image(data, image.affine), folder / "ras.nii.gz")

    turned = image.affine.copy()
    turned[:3, 3] += turned[:3, 0] * (data.shape[0] - 1)
    turned[:3, 0] *= -1
    nib.save(nib.Nifti1Image(data[::-1], turned), folder / "las.nii.gz")
    known["las"] = {n: np.array([data.shape[0] - 1 - v[0], v[1], v[2]]) for n, v in voxels.items()}

    # File axes: backward, up, right.
    stored = np.ascontiguousarray(data.transpose(1, 2, 0)[::-1])
    grid = rotation(0, 12) @ rotation(1, -9) @ rotation(2, 17)
    axes = grid @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, 1, 0]])
    written = sitk.GetImageFromArray(np.ascontiguousarray(stored.transpose(2, 1, 0)))
    written.SetSpacing([0.9, 1.1, 1.25])
    written.SetDirection((np.diag(FLIP) @ axes).ravel().tolist())
    written.SetOrigin([31.5, -12.25, 60.125])
    sitk.WriteImage(written, str(folder / "oblique.nii.gz"))
    last = data.shape[1] - 1
    known["oblique"] = {n: np.array([last - v[1], v[2], v[0]]) for n, v in voxels.items()}

    for name, places in known.items():
        affine = nib.load(folder / f"{name}.nii.gz").affine
        write_table(folder / f"{name}.csv", {n: to_world(affine, v) for n, v in places.items()})
    text = {name: {n: v.tolist() for n, v in places.items()} for name, places in known.items()}
    (folder / "voxels.json").write_text(json.dumps(text))


def markups(path):
    document = json.loads(path.read_text())
    (markup,) = document["markups"]
    assert markup["coordinateSystem"] == "LPS" and markup["coordinateUnits"] == "mm", path
    assert all(p["positionStatus"] == "defined" for p in markup["controlPoints"]), path
    return {p["label"]: np.array(p["position"]) for p in markup["controlPoints"]}


def fiducials(path):
    lines = path.read_text().splitlines()
    assert any(line.strip() == "# CoordinateSystem = LPS" for line in lines), path
    (columns,) = [line.split("=")[1].strip().split(",") for line in lines if "columns" in line]
    rows = csv.reader(line for line in lines if not line.startswith("#"))
    cells = [dict(zip(columns, row)) for row in rows]
    return {c["label"]: np.array([float(c[k]) for k in "xyz"]) for c in cells}


def read(folder, evaluation):
    known = json.loads((folder / "voxels.json").read_text())
    predictions = json.loads((evaluation / "predictions.json").read_text())["predictions"]
    report = {}
    for name, places in known.items():
        if not any(p["scan"] == name for p in predictions):
            continue
        image = nib.load(folder / f"{name}.nii.gz")
        by_itk = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        exports = evaluation / "exports"
        truth = markups(exports / f"{name}_truth.mrk.json")
        found = {
            "mrk.json": markups(exports / f"{name}.mrk.json"),
            "fcsv": fiducials(exports / f"{name}.fcsv"),
            "csv": {n: p * FLIP for n, p in read_table(exports / f"{name}.csv").items()},
        }
        # Places in LPS mm that must be the same.
        apart = {"truth": [], "mrk.json": [], "fcsv": [], "csv": []}
        labels = nib.load(exports / f"{name}_label.nii.gz")
        voxels = np.asarray(labels.dataobj)
        same_grid = np.abs(labels.affine - image.affine).max()
        grid = np.stack(np.meshgrid(*map(np.arange, voxels.shape), indexing="ij"), -1)
        world = grid @ image.affine[:3, :3].T + image.affine[:3, 3]
        radius = 3 * min(image.header.get_zooms()[:3])
        wrong, right = 0, 0
        of_scan = [p for p in predictions if p["scan"] == name]
        for label, prediction in enumerate(of_scan, 1):
            landmark = prediction["landmark"]
            voxel = places[landmark]
            apart["truth"] += [
                np.array(by_itk.TransformContinuousIndexToPhysicalPoint(voxel)) - truth[landmark],
                to_world(image.affine, voxel) * FLIP - truth[landmark],
            ]
            index = prediction["predicted"]["file_voxel"]
            by_both = [
                np.array(by_itk.TransformContinuousIndexToPhysicalPoint(index)),
                to_world(image.affine, index) * FLIP,
            ]
            for kind, marks in found.items():
                apart[kind] += [place - marks[landmark] for place in by_both]
            away = np.linalg.norm(world - by_both[1] * FLIP, axis=-1)
            # Spheres may overlap; then either label is right.
            wrong += int(((voxels == 0) & (away < radius - 1e-3)).sum())
            wrong += int(((voxels == label) & (away > radius + 1e-3)).sum())
            right += int(((voxels == label) & (away < radius)).sum())
        report[name] = {
            "landmarks": len(of_scan),
            "apart_mm": {k: max(float(np.linalg.norm(d)) for d in v) for k, v in apart.items()},
            "label_grid_mm": float(same_grid),
            "label_voxels_wrong": wrong,
            "label_voxels_right": right,
        }
    print(json.dumps(report))


if sys.argv[1] == "make":
    make(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4]))
else:
    read(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
