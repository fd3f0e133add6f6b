"""Regions: RoIAlign and Faster R-CNN beside torchvision, proposals beside OpenCV's own call, and COCO's json.

    python -m benchmarks.regions [--region_rounds=9] [--region_only=SUBSTRING] [--tiny]

Needs the extra `parity`, with a torchvision whose operators are for this build of torch. Checks first that RoIAlign and
its gradient are the same. Contestants take turns, each in a process of its own; a ratio is the median over the rounds.
Writes the section `regions` of BENCHMARKS.md, and exits with 1 if a bar is missed. --region_only selects rows; with it
or --tiny, which takes seconds, no file is written.
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
import torch
import torchvision
from absl import app, flags
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks import report, torch_regions
from benchmarks.detectors import batches, our_step
from benchmarks.steps import THREADS, experiment
from cvjax import config as experiments
from cvjax.data import box_files
from cvjax.ops import proposals, roi

ROUNDS = flags.DEFINE_integer("region_rounds", 9, "How often each contestant is timed.")
ONLY = flags.DEFINE_string("region_only", "", "Run the rows whose title contains this; write no file.")
TINY = flags.DEFINE_bool("tiny", False, "Sizes to see that all of it runs; write no file.")
NAME = "faster_rcnn_scenes"
Work = Callable[[], object]
Config = Mapping[str, Any]

# --- RoIAlign -----------------------------------------------------------------------------------------------------


def regions_of(side: int, channels: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a map, boxes in its cells and a cotangent of their 7 x 7 bins, all in torch's layout."""
    random = np.random.default_rng(0)
    size = np.exp(random.uniform(np.log(2), np.log(side), (count, 2)))
    near = random.uniform(-1, side, (count, 2)) - size / 2
    boxes = np.concatenate([near, near + size], axis=1)
    values = random.normal(size=(1, channels, side, side)), boxes, random.normal(size=(count, channels, 7, 7))
    return tuple(array.astype(np.float32) for array in values)


def our_align(side: int, channels: int, count: int) -> Callable[[], tuple[jax.Array, jax.Array]]:
    """A function that reads all regions, and returns the bins and the gradient of the map."""
    features, boxes, cotangent = regions_of(side, channels, count)
    features, cotangent = jnp.asarray(features.transpose(0, 2, 3, 1)), jnp.asarray(cotangent.transpose(0, 2, 3, 1))

    @jax.jit
    def both(features, boxes, cotangent):
        pooled, back = jax.vjp(lambda x: roi.roi_align(x, boxes[None], size=7, sampling=2), features)
        return pooled, back(cotangent[None])[0]

    boxes = jnp.asarray(boxes)
    return lambda: jax.block_until_ready(both(features, boxes, cotangent))


def their_align(side: int, channels: int, count: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """The same by torchvision's operators."""
    torch.set_num_threads(THREADS)
    features, boxes, cotangent = map(torch.from_numpy, regions_of(side, channels, count))
    features.requires_grad_()

    def work():
        features.grad = None
        pooled = torchvision.ops.roi_align(features, [boxes], 7, sampling_ratio=2)
        pooled.backward(cotangent)
        return pooled.detach(), features.grad

    return work


def check_align(side: int = 20, channels: int = 8, count: int = 50) -> None:
    """Raises an AssertionError unless both agree, in values and in gradients."""
    for ours, theirs in zip(our_align(side, channels, count)(), their_align(side, channels, count)(), strict=True):
        expected = theirs.permute(0, 2, 3, 1).numpy()
        # Sums of up to 4 x 49 x 50 float32 products in another order.
        np.testing.assert_allclose(np.asarray(ours).reshape(expected.shape), expected, atol=1e-3)


# --- Faster R-CNN -------------------------------------------------------------------------------------------------


def torch_batches(config: Config) -> list[tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]]:
    """The first training batches as torchvision takes them: images CHW, and objects."""
    placed = []
    for batch in batches(config):
        rows = {name: torch.from_numpy(np.array(values)) for name, values in batch.items()}
        placed.append((list(rows["image"].permute(0, 3, 1, 2).contiguous()), torch_regions.targets(rows)))
    return placed


def their_step(config: Config) -> Work:
    """A function that takes one training step of torchvision's detector, with our optimiser, clipping and average."""
    torch.set_num_threads(THREADS)
    recipe, turn = config["recipe"], itertools.cycle(torch_batches(config))
    net, options = torch_regions.faster_rcnn(recipe).train(), recipe["optimiser"]
    tx = torch.optim.AdamW(
        net.parameters(), lr=options["learning_rate"], weight_decay=options["weight_decay"], fused=True
    )
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe["ema"]), use_buffers=True)

    def work():
        loss = sum(net(*next(turn)).values())
        tx.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip"])
        tx.step()
        average.update_parameters(net)

    return work


def our_frame(config: Config) -> Work:
    """A function that detects the objects of a frame by one compiled program, suppressions included."""
    recipe, image = experiments.build(config), batches(config)[0]["image"][:1]
    state = jax.jit(recipe.init)(jax.random.key(0), {"image": image}).replace(opt={})
    image, key = jax.device_put(image), jax.random.key(0)
    program = jax.jit(recipe.predict).lower(state, {"image": image}, key).compile()
    return lambda: jax.block_until_ready(program(state, {"image": image}, key))


def their_frame(config: Config) -> Work:
    """The same by torchvision's detector, whose suppressions are operators of their own."""
    torch.set_num_threads(THREADS)
    net, images = torch_regions.faster_rcnn(config["recipe"]).eval(), torch_batches(config)[0][0][:1]

    def work():
        with torch.inference_mode():
            net(images)

    return work


# --- proposals ----------------------------------------------------------------------------------------------------


def photograph(side: int) -> np.ndarray:
    """A photograph of this height and width, in [0, 1]."""
    return cv2.resize(skimage.data.astronaut(), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def our_proposals(kind: str, side: int) -> Work:
    """Our function of this name, which sorts, selects and removes duplicates."""
    options = {"thresholds": (50.0, 100.0, 150.0)} if kind == "selective_search" else {}
    return partial(getattr(proposals, kind), photograph(side), **options)


def their_proposals(kind: str, side: int) -> Work:
    """OpenCV's own call: its fast mode, which has three segmentations, or EdgeBoxes on edges that were found before."""
    image = photograph(side)
    if kind == "selective_search":
        pixels = np.round(255 * image[..., ::-1]).astype(np.uint8)

        def work():
            search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
            search.setBaseImage(pixels)
            search.switchToSelectiveSearchFast(50, 50, proposals.SMOOTHING)
            return search.process()

        return work
    edges, orientation = proposals.sobel_edges(image)
    search = cv2.ximgproc.createEdgeBoxes(maxBoxes=2000)
    return lambda: search.getBoundingBoxes(edges, orientation)


# --- COCO's json --------------------------------------------------------------------------------------------------


def coco_folder(count: int, each: int = 10) -> tuple[tempfile.TemporaryDirectory, list[Path]]:
    """Returns a folder with a json of boxes and polygons, `each` of them in an image, and the paths of its images."""
    folder, random = tempfile.TemporaryDirectory(), np.random.default_rng(0)
    images = [{"id": i + 1, "file_name": f"{i:06d}.png", "height": 480, "width": 640} for i in range(count // each)]
    annotations = []
    for number in range(count):
        x, y, width, height = random.uniform(1, 200, 4).round(2).tolist()
        polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotation = {"id": number + 1, "image_id": number // each + 1, "category_id": number % 80 + 1}
        annotation |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0, "segmentation": [polygon]}
        annotations.append(annotation)
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
    written = {"images": images, "annotations": annotations, "categories": categories}
    (Path(folder.name) / "annotations.json").write_text(json.dumps(written))
    files = [Path(folder.name) / image["file_name"] for image in images]
    for file in files:
        file.touch()
    return folder, files


def our_reader(count: int) -> Work:
    """A function that reads the folder's boxes."""
    folder, files = coco_folder(count)
    root = Path(folder.name)

    def work():
        assert folder  # which is removed with the function
        return box_files.read(root, files)

    return work


def their_reader(count: int) -> Work:
    """A function that has Python's json read the file, the least that any reader does."""
    folder, _ = coco_folder(count)
    file = Path(folder.name) / "annotations.json"

    def work():
        assert folder
        return json.loads(file.read_bytes())

    return work


# --- the table ----------------------------------------------------------------------------------------------------

Row = tuple[float | None, float | None, dict[str, Callable[[], Work]]]  # bars: of the ratio, and in ms


def rows(tiny: bool) -> dict[str, Row]:
    """The contestants by title."""
    changes = {"data.batch": 4, "recipe.features.width": 4} if tiny else {}
    config = experiment(NAME, changes)
    found: dict[str, Row] = {}
    count, channels = (40, 8) if tiny else (1000, 256)
    for side in (20,) if tiny else (50, 200):
        makers = {
            "ours": partial(our_align, side, channels, count),
            "theirs": partial(their_align, side, channels, count),
        }
        title = f"RoIAlign and its gradient, {count:,} boxes, {channels} channels of {side}x{side}; torchvision"
        found[title] = (1.0, None, makers)
    batch = config["data"]["batch"]
    makers = {"ours": partial(our_step, config), "theirs": partial(their_step, config)}
    found[f"{NAME}: training step, batch {batch}; torchvision"] = (1.2, None, makers)
    makers = {"ours": partial(our_frame, config), "theirs": partial(their_frame, config)}
    found[f"{NAME}: a frame, one compiled program; torchvision"] = (None, None, makers)
    for kind, side in itertools.product(("selective_search", "edge_boxes"), (64,) if tiny else (64, 256)):
        makers = {"ours": partial(our_proposals, kind, side), "theirs": partial(their_proposals, kind, side)}
        found[f"{kind}, a photograph of {side}x{side}; OpenCV's own call"] = (None, None, makers)
    count = 1000 if tiny else 100_000
    makers = {"ours": partial(our_reader, count), "theirs": partial(their_reader, count)}
    found[f"COCO's json of {count:,} boxes, read and checked; json.loads"] = (None, 2000.0, makers)
    return found


def table(only: str, rounds: int, tiny: bool) -> tuple[list[str], list[str]]:
    """Returns the lines, and the titles that miss their bar."""
    lines, missed = ["| work | bar | ours / theirs | ours, ms | theirs, ms |", "|" + "---|" * 5], []
    for title, (bar, limit, makers) in rows(tiny).items():
        if only not in title:
            continue
        times = report.interleave(makers, rounds)
        low, middle, high = report.ratio(times["ours"], times["theirs"])
        ours, theirs = (float(np.median(times[who])) for who in ("ours", "theirs"))
        shown = f"<= {bar}" if bar else f"<= {limit:,.0f} ms" if limit else ""
        lines.append(f"| {title} | {shown} | {middle:.2f} ({low:.2f} to {high:.2f}) | {ours:.2f} | {theirs:.2f} |")
        print(lines[-1], flush=True)
        if (bar and middle > bar) or (limit and ours > limit):
            missed.append(title)
    return lines, missed


HEADER = """## Regions

`python -m benchmarks.regions`: CPU, {threads} threads each, float32; torch in its default layout, AdamW fused. What
ours is compared with stands behind the semicolon. torchvision's detector is its own class `FasterRCNN` on the backbone
of ours, with the same numbers of anchors, proposals and regions. Selective search has OpenCV's fast mode in both; its
EdgeBoxes gets edges that were found before, ours finds them. A json is also checked by ours. Times are medians over
rounds in which both are timed in turn, ratios medians of the rounds' ratios, with their quartiles.
{machine}.
"""


def main(_) -> None:
    check_align()
    lines, missed = table(ONLY.value, ROUNDS.value, TINY.value)
    if not (ONLY.value or TINY.value):
        machine = report.machine(["jax", "flax", "torch", "torchvision", "opencv-contrib-python-headless"])
        header = HEADER.format(threads=len(os.sched_getaffinity(0)), machine=machine)
        report.write_section("regions", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
