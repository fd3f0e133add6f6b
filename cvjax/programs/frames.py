"""Measures how many windows detectors classify in a frame, and how long they take for it.

    python -m cvjax.programs.frames runs/results/rcnn_scenes-seed7 runs/results/mask_rcnn_scenes-seed7
    python -m cvjax.programs.frames RUN ... --frames=32 --output=RESULTS.md

A frame is a held-out image of the run's dataset, at the network's size. All of `predict` is timed, one frame at a time,
once it is compiled: the search for proposals, the network and the suppression. The runs take turns on each frame, so
that other load on the machine slows all of them alike, and the median is given. A window is what a class is asked of: a
place and scale of a sliding window, a proposal, an anchor.

With --output, the measurements are added to the rows of these runs in the .jsonl beside that page, apart from their
figures, so that no bar can be set for them, and the page is written again. Training a config again removes them with
the rest of its row.
"""

import datetime
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cvjax import command, compiled, config, data, rundir, runs
from cvjax.core import State
from cvjax.detection.detector import Detector
from cvjax.detection.faster_rcnn import FasterRCNN
from cvjax.detection.proposal_detector import ProposalDetector
from cvjax.detection.retinanet import RetinaNetDetector
from cvjax.detection.sliding_window import WindowDetector
from cvjax.detection.yolo import YoloDetector
from cvjax.detection.yolov2 import YoloV2Detector
from cvjax.display import doing
from cvjax.errors import UserError
from cvjax.programs import results, results_page


def system_of(recipe: Any) -> Any:
    """Returns the object whose methods a recipe consists of."""
    return getattr(recipe.predict, "__self__", None)


def count_windows(system: Detector, state: State, image: np.ndarray) -> int:
    """Returns the number of boxes in an image [1, height, width, channels] that a detector asks for their class.

    Of Faster and Mask R-CNN it is that of the proposals after suppression: their anchors are only asked whether they
    hold an object. Raises a UserError for a detector of another kind.
    """
    if isinstance(system, ProposalDetector):
        count = len(system.proposals.compute(image[0])[: system.proposals.max_boxes])
    elif isinstance(system, FasterRCNN):
        count = int(_proposals(system, state, jnp.asarray(image)))
    elif isinstance(system, WindowDetector):
        count = len(system.windows)
    elif isinstance(system, RetinaNetDetector):
        count = sum(map(len, system.anchors()))
    elif isinstance(system, YoloDetector | YoloV2Detector):
        (net,) = system.networks.values()
        outputs = jax.eval_shape(net.init_with_output, jax.random.key(0), image)[0]
        each = system.predictors if isinstance(system, YoloDetector) else outputs.shape[3]
        count = outputs.shape[1] * outputs.shape[2] * each
    else:
        raise UserError(f"{type(system).__name__} is no detector whose windows can be counted.")
    return count * (2 if system.detection.flip_test else 1)


@partial(jax.jit, static_argnums=0)
def _proposals(system: FasterRCNN, state: State, image: Float[Array, "1 height width channels"]) -> Int[Array, ""]:
    def apply(name: str, x: Any) -> Any:
        return system.call(state, name, x)

    return system.propose(apply, system.maps(apply, image), image).mask.sum()


def seconds(function: Any, *arguments: Any) -> float:
    """Returns the seconds that one call takes, until what it returns is there."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


class Contestant:
    """A finished run of a detector, on frames of its dataset."""

    def __init__(self, run: Path, frames: int):
        """Loads a run; raises a UserError if there is none, or none of a detector."""
        self.run = run
        self.description, recipe, state = runs.load(run)
        self.system, self.state = system_of(recipe), state.replace(opt={})
        if not isinstance(self.system, Detector):
            raise UserError(f"{run} is of {self.description['config']['system']}, which is no detector.")
        found = []
        for batch in data.load(self.description["config"]["data"], seed=0).evaluate():
            found.extend(data.drop_padding(batch, batch)["image"])
            if len(found) >= frames:
                break
        self.images = [image[None] for image in found[:frames]]
        self.predict = recipe.predict if isinstance(self.system, ProposalDetector) else jax.jit(recipe.predict)
        self.times: list[float] = []
        self.searches: list[float] = []
        for _ in range(2):  # compiles
            self._detect(self.images[0])

    def _detect(self, image: np.ndarray) -> float:
        return seconds(self.predict, self.state, {"image": image}, jax.random.key(0))

    def time(self, frame: int) -> None:
        """Times a frame, and the search for proposals alone."""
        image = self.images[frame % len(self.images)]
        self.times.append(self._detect(image))
        if isinstance(self.system, ProposalDetector):
            self.searches.append(seconds(self.system.proposals.compute, image[0]))

    def measurement(self) -> dict[str, Any]:
        """Returns the median times in seconds, and the mean number of windows."""
        counts = [count_windows(self.system, self.state, image) for image in self.images]
        cores, device = compiled.cores(), jax.devices()[0]
        where = device.device_kind + (f", {cores} core{'s' * (cores > 1)}" if device.platform == "cpu" else "")
        return {
            "seconds": float(f"{statistics.median(self.times):.3g}"),
            "search": float(f"{statistics.median(self.searches):.3g}") if self.searches else None,
            "windows": round(statistics.fmean(counts), 1),
            "frames": len(self.times),
            "pixels": list(self.images[0].shape[1:3]),
            "device": where,
            "date": datetime.date.today().isoformat(),
        }

    def row(self) -> dict[str, Any]:
        """Returns what the table shows of the run, and what tells its row in a store."""
        settings, figures = self.description["config"], {}
        for line in rundir.read_metrics(self.run):
            if line["split"] in ("eval", "verdict"):
                figures |= {name: value for name, value in line.items() if name in results_page.FRAME_FIGURES}
        return {
            "config": self.run.name,
            "system": settings["system"],
            "seed": self.description["seed"],
            "precision": settings.get("precision", "float32"),
            "settings": config.bar_settings(settings),
            "figures": figures,
            "frame": self.measurement(),
        }


def record(store: Path, measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """Adds measurements to the rows of their runs; returns the names of the runs that have none."""
    rows, absent = results.read_rows(store), []
    for row in measured:
        same = [old for old in rows if all(old.get(key, "float32") == row[key] for key in ("seed", "precision"))]
        same = [old for old in same if old.get("settings") == row["settings"]]
        for old in same:
            old["frame"] = row["frame"]
        if not same:
            absent.append(row["config"])
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    rundir.write_atomically(store, text)
    return absent


def main(argv: Sequence[str] | None = None) -> int:
    """Times the frames and prints the table."""
    parser = command.Parser(prog="python -m cvjax.programs.frames", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of detectors")
    parser.add_argument("--frames", type=int, default=32, help="number of frames, each timed once")
    parser.add_argument("--output", type=Path, help="the page of results whose rows get the measurements")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1:
        raise UserError(f"--frames={arguments.frames}: must be at least 1.")
    store = arguments.output and arguments.output.with_suffix(".jsonl")
    if store and not store.is_file():
        raise UserError(f"--output={arguments.output}: there is no {store} beside it, with the rows of runs.")
    contestants = []
    for run in arguments.runs:
        with doing(f"compiling {run}"):
            contestants.append(Contestant(run.expanduser(), arguments.frames))
    for frame in range(arguments.frames):
        for contestant in contestants:
            contestant.time(frame)
    measured = [contestant.row() for contestant in contestants]
    print(results_page.tabulate_frames(measured))
    if store:
        absent = record(store, measured)
        if absent:
            print(f"not in {store}: {', '.join(absent)}")
        results_page.write(arguments.output, results.read_rows(store))
    return 0


if __name__ == "__main__":
    command.run_main(main)
