"""Computes the region proposals of a config's images ahead of training, and measures how many objects they find.

    python -m cvjax.programs.proposals --config=configs/rcnn_scenes.py
    python -m cvjax.programs.proposals --config=configs/rcnn_scenes.py:proposals --output=proposals.png

Each feature of `data.derive` is computed once for each image of both splits and kept beside the dataset; an image that
has changed since is named, and its features are computed again. The recall of the boxes among them is that on the
evaluation split.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from cvjax import command, config, data
from cvjax.data.annotations import Annotations
from cvjax.display import doing, format_columns
from cvjax.errors import UserError, number_of
from cvjax.metrics import plots
from cvjax.metrics import proposals as metrics
from cvjax.programs.images import save_image

CONFIG = command.define_flag()
OUTPUT = flags.DEFINE_string("output", "proposals.png", "the curves of recall, a PNG")
SHOWN = 200  # proposals whose recall is shown over the IoU


def measure(settings: Mapping[str, Any], features: Sequence[str]) -> dict[str, Float[np.ndarray, "objects counts"]]:
    """Returns the best overlaps of the evaluation split's objects with the proposals of each feature."""
    kept: dict[str, list] = {feature: [] for feature in features}
    for padded in data.load(settings, seed=0).evaluate():
        batch = data.drop_padding(padded, padded)
        for feature, found in kept.items():
            found.append(metrics.best_overlaps([batch], feature=feature))
    return {feature: np.concatenate(found) for feature, found in kept.items()}


def table(best: Mapping[str, Float[np.ndarray, "objects counts"]]) -> str:
    """Returns recall and average recall of each feature by number of proposals."""
    lines = [("proposals", "number", "recall at IoU 0.5", "at 0.7", "average recall")]
    for feature, overlaps in best.items():
        columns = [*(metrics.recall(overlaps, iou) for iou in (0.5, 0.7)), metrics.average_recall(overlaps)]
        for count, *values in zip(metrics.COUNTS, *columns, strict=True):
            lines.append((feature, str(count), *(f"{value:.3f}" for value in values)))
    return format_columns(lines, "<>>>>")


def draw(best: Mapping[str, Float[np.ndarray, "objects counts"]]) -> Float[np.ndarray, "height width 3"]:
    """Draws the curves of recall of each feature, over the number of proposals and, for 200, over the IoU."""
    by_number, by_iou = {}, {}
    for feature, overlaps in best.items():
        curves = metrics.curves_by_number(overlaps)
        by_number |= {f"{feature}, {name}": curve for name, curve in curves.items() if len(best) == 1 or "0.5" in name}
        by_iou[f"{feature}, {SHOWN}"] = metrics.curve_by_iou(overlaps, metrics.COUNTS.index(SHOWN))
    count = number_of(len(next(iter(best.values()))), "object")
    return plots.draw_recalls(by_number, by_iou, f"recall of proposals, {count}")


def main() -> None:
    """Computes, counts and measures."""
    command.parse_flags(sys.argv)
    settings = config.as_dict(CONFIG.value)["data"]
    output = Path(OUTPUT.value).expanduser()
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output}: the curves are a PNG, such as {output.with_suffix('.png').name}")
    features = list(Annotations.of(settings).regions)
    with doing("computing what is missing"):
        done = data.refresh_derived(settings)
    for split, (images, computed, changed) in done.items():
        because = f", {number_of(changed, 'image')} of which had changed" if changed else ""
        print(f"{split}: {number_of(images, 'image')}, {computed:,} computed{because}")
    if not features or settings["max_boxes"] is None:
        print("recall is measured where data.derive has boxes, and data.max_boxes is set")
        return
    best = measure(settings, features)
    print(table(best))
    save_image(output, draw(best))
    print(f"{output} shows the recall over the number of proposals and over the IoU")


if __name__ == "__main__":
    command.run_main(main)
