#!/usr/bin/env bash
# One would guess: detections that are exactly the true boxes have a COCO AP of 1, however annotations are numbered.
# What happens: pycocotools writes the id of the annotation that a detection matched into an array whose zeros mean
# "no match". If annotations are numbered from 0, as enumerate() does, the detection of number 0 becomes a
# false positive. It has the same score as the right ones or a better one, so precision falls from the start.
# Who is hurt: people who turn their own boxes into COCO json. On small validation sets the loss is large.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet numpy==2.4.6 pycocotools==2.0.11
cd "$dir"
venv/bin/python - <<'PYTHON'
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print("numpy", version("numpy"), "pycocotools", version("pycocotools"))
BOXES = [[10, 10, 40, 40], [60, 20, 50, 50]]  # one in each of two images


def average_precision(first_id):
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i + 1, "width": 128, "height": 128} for i in range(2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": first_id + i, "image_id": i + 1, "category_id": 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            for i, (x, y, w, h) in enumerate(BOXES)
        ],
    }
    truth.createIndex()
    found = truth.loadRes([
        {"image_id": i + 1, "category_id": 1, "bbox": box, "score": 0.9 - i / 10} for i, box in enumerate(BOXES)
    ])
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


with redirect_stdout(StringIO()):
    from_one, from_zero = average_precision(1), average_precision(0)
print(f"AP of perfect detections: {from_one:.3f} if annotations are numbered from 1, {from_zero:.3f} if from 0")
assert from_one == 1
assert 0.2 < from_zero < 0.3, from_zero
PYTHON
