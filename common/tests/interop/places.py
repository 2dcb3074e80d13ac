"""Where SimpleITK places the label maps `*_label.nii.gz` of a folder.

    python places.py FOLDER

prints a JSON object: the name before `_label.nii.gz`, and the affine (4x4, voxel -> RAS mm).
"""

import json
import pathlib
import sys

import numpy as np
import SimpleITK as sitk


def place(path):
    image = sitk.ReadImage(str(path))
    flip = np.diag([-1.0, -1, 1])
    matrix = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix[:3, :3] = flip @ direction @ np.diag(image.GetSpacing())
    matrix[:3, 3] = flip @ np.array(image.GetOrigin())
    return matrix.tolist()


end = "_label.nii.gz"
paths = pathlib.Path(sys.argv[1]).glob("*" + end)
print(json.dumps({path.name.removesuffix(end): place(path) for path in paths}))
