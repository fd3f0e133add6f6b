#!/usr/bin/env bash
# One would guess: faster-coco-eval, made to replace pycocotools, takes any integer as the id of an image.
# What happens: ids pass through a float64. Two ids above 2^53 that are close count as one image, and boxes of one image
# match the truth of another. Detections that are all in the wrong image have an AP of 1; pycocotools says 0.
# An annotation without "area", a KeyError there, here counts as a small object, however large its box is.
# Who is hurt: datasets whose image ids are hashes or 64-bit database keys: the score is wrong, and too high.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet faster-coco-eval==1.8.0 pycocotools==2.0.11 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

print({name: version(name) for name in ("faster-coco-eval", "pycocotools", "numpy")})
LEFT, RIGHT = [10, 10, 50, 50], [200, 10, 50, 50]


def stats(coco, evaluator, truth, found):
    """AP, AP50, AP75, AP small, medium, large of boxes: lists of (image id, box)."""
    images = [{"id": i, "width": 640, "height": 480, "file_name": f"{i}.png"} for i in sorted({i for i, *_ in truth})]
    annotations = [
        {"id": n, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0, **area}
        for n, (i, box, area) in enumerate(truth, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco()
        categories = [{"id": 1, "name": "cat"}]
        ground_truth.dataset = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
        ground_truth.createIndex()
        results = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.9} for i, box in found]
        evaluation = evaluator(ground_truth, ground_truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [round(float(value), 3) for value in evaluation.stats[:6]]


for first, faster_says in ((1, 0), (2**40, 0), (2**53, 1), (2**62, 1)):
    second = first + 1
    truth = [(first, LEFT, {"area": 2500}), (second, RIGHT, {"area": 2500})]
    swapped = [(second, LEFT), (first, RIGHT)]
    reference = stats(COCO, COCOeval, truth, swapped)[0]
    faster = stats(FasterCOCO, COCOeval_faster, truth, swapped)[0]
    print(f"images {first} and {second}, every box in the wrong one:"
          f" AP {reference} by pycocotools, {faster} by faster-coco-eval")
    assert (reference, faster) == (0, faster_says)

large = [10, 10, 300, 300]
by_size = stats(FasterCOCO, COCOeval_faster, [(1, large, {})], [(1, large)])[3:]
print("AP small, medium, large of faster-coco-eval for a box of 300 x 300 without area:", by_size)
assert by_size == [1, -1, -1]
try:
    stats(COCO, COCOeval, [(1, large, {})], [(1, large)])
except KeyError as error:
    print("pycocotools: KeyError", error)
else:
    raise AssertionError("pycocotools takes an annotation without area")
PYTHON
