"""A trained run applied to the user's images, folders and videos; it works from the run's folder alone.

python -m cvjax.apply --run=runs/x --input=FILE|FOLDER|VIDEO --output=PATH    what the system makes of them
python -m cvjax.apply --run=runs/x --count=64 --seed=3 --output=PATH          samples of a system that generates
"""

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from cvjax import command, runs
from cvjax.core import Recipe, State
from cvjax.data import folder, pipeline, transforms
from cvjax.display import grid
from cvjax.errors import UserError
from cvjax.rundir import write_whole

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.apply", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--input", type=Path, help="an image, a folder of images or a video")
    parser.add_argument("--count", type=int, help="how many samples to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--output", type=Path, required=True, help="a folder; for a video, the video's path")
    parser.add_argument("--step", type=int, help="which checkpoint; the latest by default")
    parser.add_argument("--batch", type=int, default=16, help="images at a time")
    arguments = parser.parse_args(argv)
    for name in ("run", "input", "output"):
        setattr(arguments, name, getattr(arguments, name) and getattr(arguments, name).expanduser())
    if (arguments.input is None) == (arguments.count is None):
        raise UserError("give either --input=FILE|FOLDER|VIDEO or --count=N.")
    for name in ("count", "batch"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: must be at least 1.")
    description, recipe, state = runs.load(arguments.run, arguments.step)
    if arguments.count is not None:
        draw_samples(recipe, state, arguments.count, arguments.seed, arguments.output)
        return 0
    if recipe.predict is None:
        raise UserError(f"{description['config']['system']} takes no images; it samples: give --count=N.")
    predictor = Predictor(description, recipe, state, arguments.batch)
    if arguments.input.suffix.lower() in VIDEOS:
        apply_to_video(predictor, arguments.input, arguments.output)
    else:
        apply_to_images(predictor, arguments.input, arguments.output)
    return 0


class Predictor:
    """A recipe's `predict` for images of any size, in batches of one shape."""

    def __init__(self, description: Mapping[str, Any], recipe: Recipe, state: State, batch: int):
        """Prepares the transforms that the run evaluated with; `description` is the run's config.json."""
        self.transforms = pipeline.build(description["config"]["data"]["eval_transforms"])
        self.shape = tuple(description["batch"]["image"][0][1:])
        self.batch = batch
        self.state, self.predict = state, jax.jit(recipe.predict)

    def prepare(self, image: Float[np.ndarray, "height width channels"]) -> Float[np.ndarray, "h w c"]:
        """Brings an image to the shape that the system was trained on."""
        image = self.transforms(image, np.random.default_rng(0))
        height, width, channels = self.shape
        if channels == 1 and image.shape[2] == 3:
            image = transforms.grayscale(image, channels=1)
        elif channels == 3 and image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        return image if image.shape[:2] == (height, width) else transforms.resize(image, size=(height, width))

    def __call__(self, images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yields the outputs of each image; no more than a batch of images is held at a time."""
        for chunk in _chunks(images, self.batch):
            rows = np.stack([self.prepare(image) for image in chunk])
            padded = np.concatenate([rows, np.repeat(rows[-1:], self.batch - len(rows), axis=0)])
            outputs = jax.device_get(self.predict(self.state, {"image": padded}))
            for row in range(len(rows)):
                yield {name: value[row] for name, value in outputs.items()}


def draw_samples(recipe: Recipe, state: State, count: int, seed: int, output: Path) -> None:
    """Writes samples as PNG files, one each and one grid of all.

    Args:
      recipe: the system.
      state: its trained state.
      count: how many.
      seed: the same seed gives the same samples.
      output: the folder.

    Raises:
      UserError: the system does not sample.
    """
    if recipe.sample is None:
        raise UserError("this system does not sample: give --input=FILE|FOLDER|VIDEO.")
    for name, samples in recipe.sample(state, jax.random.key(seed), count).items():
        samples = np.asarray(samples)
        for index, sample in enumerate(samples):
            save_image(output / f"{name}_{index:05d}.png", sample)
        save_image(output / f"{name}_grid.png", grid(samples) / 255)
    print(f"{count} samples in {output}")


def apply_to_images(predictor: Predictor, source: Path, output: Path) -> None:
    """Writes each output that is an image as a PNG of the input's name, and all others to predictions.json.

    Args:
      predictor: the trained system.
      source: an image or a folder of images.
      output: the folder to write to.

    Raises:
      UserError: nothing to read, or an image that cannot be.
    """
    if not source.exists():
        raise UserError(f"--input={source}: there is no such file or folder.")
    files = folder.list_images(source) if source.is_dir() else [source]
    if output.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise UserError(f"--output={output} is where the input lies: its images would be overwritten.")
    if not files:
        raise UserError(f"--input={source} holds no images ({', '.join(folder.SUFFIXES)}).")
    predictions = {}
    names = name_outputs([file.relative_to(source) if source.is_dir() else Path(file.name) for file in files])
    images = (folder.decode(file, channels=3).astype(np.float32) / 255 for file in files)
    for name, outputs in zip(names, predictor(images), strict=True):
        for kind, value in outputs.items():
            if value.ndim == 3 and value.shape[-1] in (1, 3):
                save_image(output / (f"{name}.png" if kind == "image" else f"{name}_{kind}.png"), value)
            else:
                predictions.setdefault(name, {})[kind] = value.tolist()
    if predictions:
        write_whole(output / "predictions.json", json.dumps(predictions, indent=1))
    print(f"{len(files)} images in {output}")


def name_outputs(files: Sequence[Path]) -> list[str]:
    """Names what is written for each file: its path without suffix, or with it where two would be the same.

    Args:
      files: relative paths of the inputs.

    Returns:
      One name a file, without suffix.
    """
    short = [str(file.with_suffix("")) for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]


def apply_to_video(predictor: Predictor, source: Path, output: Path) -> None:
    """Writes a video of the system's images, at the source's rate.

    Args:
      predictor: the trained system.
      source: the video.
      output: the video to write, .mp4 or .avi.

    Raises:
      UserError: a video that cannot be read, or a system whose outputs are no images.
    """
    codes = {".mp4": "mp4v", ".avi": "MJPG"}
    if output.suffix.lower() not in codes:
        raise UserError(f"--output={output}: a video is written to a file called .mp4 or .avi.")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise UserError(f"--input={source} cannot be read as a video.")
    output.parent.mkdir(parents=True, exist_ok=True)
    writer, count, start = None, 0, time.monotonic()
    for outputs in predictor(_frames(capture)):
        if "image" not in outputs:
            raise UserError("this system makes no images of a video's frames; apply it to images.")
        frame = cv2.cvtColor(_to_bytes(outputs["image"]), cv2.COLOR_RGB2BGR)
        if writer is None:
            code = cv2.VideoWriter_fourcc(*codes[output.suffix.lower()])
            writer = cv2.VideoWriter(str(output), code, capture.get(cv2.CAP_PROP_FPS) or 25, frame.shape[1::-1])
            if not writer.isOpened():
                raise UserError(f"--output={output}: OpenCV cannot write this video here.")
        writer.write(frame)
        count += 1
    capture.release()
    if writer is None:
        raise UserError(f"--input={source} has no frames.")
    writer.release()
    print(f"{count} frames in {output}, {count / (time.monotonic() - start):.1f} frames/s")


def save_image(path: Path, image: Float[np.ndarray, "height width channels"]) -> None:
    """Writes an image as a PNG, its folder made where it is missing.

    Args:
      path: the file.
      image: in [0, 1], 1 or 3 channels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_to_bytes(image)).save(path)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Converts an image in [0, 1] to RGB bytes."""
    image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    there, frame = capture.read()
    while there:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        there, frame = capture.read()


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while chunk := list(itertools.islice(items, size)):
        yield chunk


if __name__ == "__main__":
    command.explained(main)
