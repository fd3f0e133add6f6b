#!/usr/bin/env bash
# One would guess: where a picture is enlarged there is nothing to smooth, so torch's interpolate(antialias=True) gives
# what antialias=False does, as it is with mode="bilinear".
# What happens: with mode="bicubic", antialias chooses another kernel. Keys' cubic has a = -0.75 without it (OpenCV's),
# and a = -0.5 with it (Pillow's and MATLAB's), whether the picture shrinks or grows.
# Who is hurt: super-resolution, whose baseline is bicubic enlargement with a = -0.5. The other kernel moves that figure
# (by 0.16 dB on the photograph below), and a network that learns what to add to it meets another input in use.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 pillow==12.0.0 scikit-image==0.26.0
cat > "$folder/enlarge.py" <<'PROGRAM'
import importlib.metadata
import sys

import numpy as np
import torch
from PIL import Image
from skimage import data

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "pillow", "scikit-image")))
resize = torch.nn.functional.interpolate


def cubic(x, a):
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def response(mode, antialias):
    """What an enlargement by 2 makes of one bright column, at the distances .25, .75, 1.25 and 1.75 from it."""
    image = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    image[..., 4] = 1
    return resize(image, scale_factor=2, mode=mode, antialias=antialias)[0, 0, 8, 9:13].numpy()


distances = np.array([0.25, 0.75, 1.25, 1.75])
same = np.abs(response("bilinear", False) - response("bilinear", True)).max()
print(f"bilinear: antialias changes the enlarged picture by {same:.1e}")
found = {}
for antialias in (False, True):
    errors = {a: np.abs(response("bicubic", antialias) - [cubic(d, a) for d in distances]).max() for a in (-0.5, -0.75)}
    found[antialias] = min(errors, key=errors.get)
    print(f"bicubic, antialias={antialias}: a = {found[antialias]}, to {errors[found[antialias]]:.0e}")

photograph = data.camera().astype(np.float32)
small = np.asarray(Image.fromarray(photograph).resize((256, 256), Image.BICUBIC))


def psnr(image):
    return 10 * np.log10(255**2 / np.mean((np.clip(image, 0, 255) - photograph)[8:-8, 8:-8] ** 2))


values = []
for antialias in (False, True):
    large = resize(torch.tensor(small)[None, None], scale_factor=2, mode="bicubic", antialias=antialias)
    values.append(psnr(large[0, 0].numpy()))
pillow = psnr(np.asarray(Image.fromarray(small).resize((512, 512), Image.BICUBIC)))
print(f"scikit-image's camera, halved and enlarged: {values[0]:.3f} dB without, {values[1]:.3f} with; Pillow {pillow:.3f}")
sys.exit(not (same < 1e-12 and found == {False: -0.75, True: -0.5} and abs(values[1] - pillow) < 1e-3 < abs(values[0] - pillow)))
PROGRAM
if ! "$folder/venv/bin/python" "$folder/enlarge.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
