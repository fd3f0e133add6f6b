"""Pictures of what a network will be given: batches after the transforms, with boxes, masks, joints, maps, classes."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from cvjax import config as experiments
from cvjax import data, runs
from cvjax.display import grid
from cvjax.ops.drawing import draw_boxes
from cvjax.ops.instance_drawing import TRUE, draw_instances
from cvjax.ops.palettes import paint
from cvjax.programs.images import LEGIBLE, save_image

MOST = 32  # images of each kind


def preview(config: ConfigDict, workdir: Path) -> None:
    """Writes preview/train.png and preview/eval.png to a run's folder, and prints the shapes and ranges of a batch."""
    data.refuse_workdir(experiments.as_dict(config.data), workdir)
    names = experiments.check(config)
    runs.make_folder(workdir, "--workdir")
    examples = data.load(experiments.as_dict(config.data), seed=config.seed)
    for split, batch in {"train": next(examples.train()), "eval": next(examples.evaluate())}.items():
        for name, pictures in draw_batch(batch, names).items():
            path = workdir / "preview" / (f"{split}.png" if name == "image" else f"{split}_{name}.png")
            save_image(path, grid(pictures))
            print(f"{path}: {len(pictures)} of a batch")
        for name, values in sorted(batch.items()):
            print(f"  {name}: {values.dtype}{list(values.shape)}, {_range(values)}")


def draw_batch(
    batch: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, Float[np.ndarray, "images height width 3"]]:
    """Draws the images of a batch. Returns {feature: pictures}, enlarged so that names are legible.

    `image` gets the boxes, masks and joints of objects and classes, other images are shown as they are, and maps in the
    colours of their numbers.
    """
    pictures = {}
    for name, images in batch.items():
        if images.ndim == 4 and images.shape[-1] in (1, 3) and np.issubdtype(images.dtype, np.floating):
            count = min(MOST, len(images))
            scale = max(1, LEGIBLE // max(images.shape[1:3]))
            drawn = []
            for row in range(count):
                image = np.broadcast_to(images[row], (*images.shape[1:3], 3))
                own = {key: values[row] for key, values in batch.items()} if name == "image" else {}
                drawn.append(_annotate(image, own, names, scale))
            pictures[name] = np.stack(drawn)
        elif images.ndim == 3 and np.issubdtype(images.dtype, np.integer) and name != "visibility":
            scale = max(1, LEGIBLE // max(images.shape[1:]))
            pictures[name] = paint(images[:MOST].repeat(scale, 1).repeat(scale, 2))
    return pictures


def _annotate(
    image: np.ndarray, example: Mapping[str, np.ndarray], names: tuple[str, ...], scale: int
) -> Float[np.ndarray, "height width 3"]:
    """Draws an example's masks, joints and boxes with names; without boxes, a frame with the name of its class."""
    boxes, labels = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    if "boxes" in example:
        there = example["mask"].astype(bool)
        return draw_instances(image, {name: example[name][there] for name in TRUE if name in example}, names, scale)
    if "label" in example and example["label"].ndim == 0:
        boxes = np.float32([[0, 0, image.shape[1], image.shape[0]]])
        labels = np.int32([example["label"]])
    return draw_boxes(np.asarray(image, np.float32), boxes, labels, names, scale=scale)


def _range(values: np.ndarray) -> str:
    values = np.asarray(jax.device_get(values))
    return f"{values.min():g} to {values.max():g}" if values.size else "empty"
