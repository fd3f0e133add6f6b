#!/usr/bin/env bash
# One would guess: cv2.warpAffine and cv2.remap treat channels alike, so that a plane which is turned alone has the same
# values as when it is turned as one of several channels.
# What happens: in OpenCV 5.0.0 images of one, three and four channels are interpolated exactly. With two channels, or
# five and more, positions are rounded to 1/32 of a pixel, as in OpenCV 4: grey values of 8 bits are off by up to 5,
# floats in [0, 1] by up to .018.
# Who is hurt: an optical flow (two channels) or a stack of features moves otherwise than the image that it belongs to,
# and tests of three channels do not notice. Turn two channels one by one, and more of them four at a time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opencv-python-headless==5.0.0.93 numpy==2.4.6 scipy==1.17.0
"$folder/venv/bin/python" - <<'PROGRAM'
import cv2
import numpy as np
import scipy
from scipy import ndimage

print("opencv", cv2.__version__, "numpy", np.__version__, "scipy", scipy.__version__)
rows, columns = 64, 80
plane = np.random.default_rng(0).uniform(size=(rows, columns))
turn = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), 45, 1)
back = cv2.invertAffineTransform(turn)
y, x = np.mgrid[:rows, :columns]
source_x, source_y = back[:, :2] @ np.stack([x, y]).reshape(2, -1) + back[:, 2:]
source_x, source_y = source_x.reshape(rows, columns), source_y.reshape(rows, columns)
inside = (source_x > 1) & (source_x < columns - 2) & (source_y > 1) & (source_y < rows - 2)

wrong = []
for name, pixels, exact in (("float32", plane, 1e-4), ("uint8", np.round(255 * plane), 0.51)):
    expected = ndimage.map_coordinates(pixels, [source_y, source_x], order=1)
    for channels in (1, 2, 3, 4, 5, 8):
        image = np.repeat(pixels[..., None], channels, axis=-1).astype(name)
        turned = cv2.warpAffine(image, turn, (columns, rows), flags=cv2.INTER_LINEAR).reshape(rows, columns, channels)
        moved = cv2.remap(image, np.float32(source_x), np.float32(source_y), cv2.INTER_LINEAR)
        moved = moved.reshape(rows, columns, channels)
        errors = [float(np.abs(found[..., 0] - expected)[inside].max()) for found in (turned, moved)]
        print(f"{name} of {channels} channels: off by up to {errors[0]:.5f} (warpAffine), {errors[1]:.5f} (remap)")
        if [error < exact for error in errors] != [channels in (1, 3, 4)] * 2:
            wrong.append((name, channels))
if wrong:
    raise SystemExit(f"This has changed: {wrong}")
PROGRAM
echo "As described."
