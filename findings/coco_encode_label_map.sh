#!/usr/bin/env bash
# One would guess: pycocotools.mask.encode of a map that numbers its objects (0, 1, 2, ...) encodes what is not
# zero, or refuses anything but 0 and 1.
# What happens: the run-length encoder starts a new run at every change of value, and the decoder alternates 0 and 1.
# Where object 1 touches object 2, inside and outside are exchanged from there on, down the column and into the next
# ones, until the next such border. Area, boxes and IoU of the result are all wrong, without an error.
# Who is hurt: people who hand instance or panoptic maps (or masks of 0, 1 and 255 for void) to the COCO tools.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from pycocotools import mask

print("numpy", version("numpy"), "pycocotools", version("pycocotools"))
labels = np.zeros((6, 8), np.uint8)
labels[1:3, 1:7] = 1
labels[3:5, 1:7] = 2  # the second object lies right below the first
decoded = mask.decode(mask.encode(np.asfortranarray(labels)))
print("label map:", *labels, "decoded:", *decoded, sep="\n")
area = int(mask.area(mask.encode(np.asfortranarray(labels))))
alone = [int(mask.area(mask.encode(np.asfortranarray((labels == i).astype(np.uint8))))) for i in (1, 2)]
print(f"pixels that are not 0: {np.count_nonzero(labels)}; area of the encoded map: {area}; each object alone: {alone}")
print(f"not 0 in the map, and decoded as background: {np.mean(decoded[labels > 0] == 0):.0%}")
print(f"0 in the map, and decoded as object: {np.mean(decoded[labels == 0] == 1):.0%}")

assert mask.decode(mask.encode(np.asfortranarray((labels > 0) * np.uint8(255)))).tolist() == (labels > 0).tolist()
assert alone == [12, 12]
changes = np.diff(labels.ravel(order="F").astype(int), prepend=0) != 0
assert np.array_equal(decoded.ravel(order="F"), np.cumsum(changes) % 2)
assert area == 18
PYTHON
