"""Applies a trained run to images, folders and videos, or samples from it; needs nothing but the run's folder.

python -m cvjax.apply --run=runs/x --input=FILE|FOLDER|VIDEO --output=PATH    apply the system to images
python -m cvjax.apply --run=runs/x --count=64 --seed=3 --output=PATH          sample from a generative system
python -m cvjax.apply --run=runs/x --gallery=people.npz --input=... --output=PATH   name the people in pictures of faces

Detections are drawn, with class names, scores and, where the system finds them, masks and joints, and written to
detections.json in COCO's format, masks as RLE. Classes of pixels are painted over the images, and written to classes/:
PNG files of the images' sizes, whose palette shows the numbers.
Names of people, whom `python -m cvjax.recognition.gallery` enrols, are written above the pictures of their faces and to
predictions.json.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from cvjax import command, runs
from cvjax.core import Recipe, State
from cvjax.data import folder, transforms, vocabulary
from cvjax.data.mask_files import BACKGROUND
from cvjax.data.sources import CorruptExample
from cvjax.display import doing, grid
from cvjax.errors import UserError, number_of, suggest, suggest_beside
from cvjax.metrics.plots import draw_legend
from cvjax.ops.palettes import overlay
from cvjax.predictor import SEGMENTATION, Predictor, Prepared, classes_of
from cvjax.programs import video
from cvjax.programs.detections import coco_format, coco_record, draw_detections
from cvjax.programs.images import save_classes, save_image, to_bytes
from cvjax.programs.naming import Namer
from cvjax.programs.outputs import Outputs
from cvjax.recognition import gallery as galleries
from cvjax.rundir import write_atomically

CLASSES = "classes"  # the folder of maps, below the output's
LEGEND = ".legend.png"  # beside them; hidden, so that it is no map


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.apply", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--input", type=Path, help="an image, a folder of images or a video")
    parser.add_argument("--count", type=int, help="number of samples to draw")
    parser.add_argument("--seed", type=command.seed, default=0, help="random seed")
    parser.add_argument("--label", help="the class to draw, or that of the images: its name or number")
    parser.add_argument("--style", type=Path, action="append", help="an image, or several, for systems with styles")
    parser.add_argument("--weights", help="of the styles that are blended, such as 0.7,0.3")
    parser.add_argument("--mask", type=Path, help="an image, white where the system should fill in")
    parser.add_argument("--text", help="for systems that read text")
    parser.add_argument("--guidance", type=float, help="weight of the guidance towards --label, at least 0")
    parser.add_argument("--noise", type=float, help="deviation of the images' noise, in [0, 1], of the network's size")
    parser.add_argument("--gallery", type=Path, help="of people, for systems that make embeddings")
    parser.add_argument(
        "--output", type=Path, required=True, help="a folder; of an image, also a .png; of a video, its path"
    )
    parser.add_argument("--step", type=int, help="the checkpoint's step; by default the latest")
    parser.add_argument("--batch", type=int, default=16, help="batch size")
    parser.add_argument("--threshold", type=float, help="minimum score of drawn detections, 0.3 by default")
    arguments = parser.parse_args(argv)
    check_arguments(arguments)
    people = arguments.gallery and galleries.load(arguments.gallery)
    check_output(arguments.input, arguments.output)
    with doing(f"loading {arguments.run}"):
        description, recipe, state = runs.load(arguments.run, arguments.step)
    if arguments.count is not None:
        inputs = read_inputs(arguments, description, recipe.sample_inputs, recipe)
        with doing(f"compiling and drawing {number_of(arguments.count, 'sample')}"):
            draw_samples(recipe, state, arguments.count, arguments.seed, arguments.output, inputs)
        return 0
    if recipe.predict is None:
        raise UserError(f"{description['config']['system']} takes no images, only samples: give --count=N.")
    inputs = read_inputs(arguments, description, recipe.predict_inputs, recipe)
    predictor = Predictor(description, recipe, state, arguments.batch, inputs, arguments.seed)
    if people is not None:
        predictor = Namer(description, recipe, state, arguments.batch, people)
    source, output = arguments.input, arguments.output
    with doing(f"compiling and applying to {source}"):
        if source.suffix.lower() in video.SUFFIXES:
            apply_to_video(predictor, source, output, arguments.threshold)
        elif source.is_file() and output.suffix.lower() == ".png" and not output.is_dir():
            apply_to_images(predictor, source, output.parent, arguments.threshold, stem=output.stem)
        else:
            apply_to_images(predictor, source, output, arguments.threshold)
    return 0


def check_arguments(arguments: argparse.Namespace) -> None:
    """Expands `~` in paths; raises a UserError for what is out of range, contradicts itself or does not exist."""
    for name in ("run", "input", "output", "gallery"):
        setattr(arguments, name, getattr(arguments, name) and getattr(arguments, name).expanduser())
    if (arguments.input is None) == (arguments.count is None):
        raise UserError("give either --input=FILE|FOLDER|VIDEO or --count=N.")
    for name in ("count", "batch"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: must be at least 1.")
    if arguments.gallery is not None and arguments.threshold is not None:
        raise UserError(
            f"--threshold={arguments.threshold} is of detections' scores; the gallery has its own distance."
        )
    arguments.threshold = 0.3 if arguments.threshold is None else arguments.threshold
    if not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold={arguments.threshold}: a score is in [0, 1].")
    if arguments.input is not None:
        try:
            arguments.input.stat()
        except OSError as error:
            nearest = suggest_beside(arguments.input)
            raise UserError(f"--input={arguments.input}: {error.strerror}. {nearest}".rstrip()) from error
    elif arguments.gallery is not None:
        raise UserError(f"--gallery={arguments.gallery} names the people in pictures: give --input=FILE|FOLDER|VIDEO.")


def check_output(source: Path | None, output: Path) -> None:
    """Raises a UserError if `output` is named like a picture but would be a folder of pictures."""
    of_one = source is not None and source.is_file() and output.suffix.lower() == ".png"
    of_video = source is not None and source.suffix.lower() in video.SUFFIXES  # which has a check of its own
    if output.suffix.lower() in folder.SUFFIXES and not (of_one or of_video or output.is_dir()):
        raise UserError(f"--output={output}: a picture is written as .png, and of a single image; else give a folder.")


def read_inputs(
    arguments: argparse.Namespace, description: Mapping[str, Any], taken: Sequence[str], recipe: Recipe | None = None
) -> dict[str, np.ndarray]:
    """Returns {name: value} of the inputs that a system takes beside images, or beside the number of samples.

    They are `label`, a class number; `style`, an image, or several; their `weights`; `mask`, 1 where to fill in;
    `tokens`; `guidance` towards the label; `noise`, its deviation. Any that is not in `taken` raises a UserError.
    `description` is the run's config.json.
    """
    inputs, system, shape = {}, description["config"]["system"], description["batch"]["image"][0][1:]
    flags = {"label": "label", "style": "style", "weights": "weights", "mask": "mask", "tokens": "text"}
    flags |= {"guidance": "guidance", "noise": "noise"}
    if "guidance" in taken and arguments.guidance is not None and arguments.label is None:
        raise UserError(f"--guidance={arguments.guidance} is towards a class: give --label as well.")
    if {"mask", "noise"} <= set(taken) and arguments.mask is not None and arguments.noise is not None:
        raise UserError(f"--mask={arguments.mask} fills in, --noise={arguments.noise} denoises: give either.")
    if {"label", "weights"} <= set(taken) and arguments.label is not None and arguments.weights is not None:
        raise UserError(
            f"--label={arguments.label} is a single style, --weights={arguments.weights} a blend: give either."
        )
    for name, flag in flags.items():
        value = getattr(arguments, flag)
        if value is None:
            continue
        if name not in taken:
            raise UserError(
                f"--{flag}={value}: {system} does not take it; beside images it takes {', '.join(taken) or 'nothing'}."
            )
        if name == "label":
            inputs[name] = find_class(value, (recipe and recipe.shown_classes) or classes_of(description))
        elif name == "weights":
            inputs[name] = read_weights(value)
        elif name == "style":
            inputs[name] = read_styles(value, shape[2], None if recipe and recipe.any_size else shape[:2])
        elif name == "tokens":
            inputs[name] = encode_text(value, arguments.run, description)
        elif name in ("guidance", "noise"):
            inputs[name] = check_number(flag, value, strict=name == "noise")
        else:
            inputs[name] = read_mask(value.expanduser(), shape)
    return inputs


def encode_text(text: str, run: Path, description: Mapping[str, Any]) -> Int[np.ndarray, " length"]:
    """Returns a text as tokens of the vocabulary in a run's folder; `description` is its config.json."""
    words = vocabulary.read(run)
    if words is None or "tokens" not in description["batch"]:
        raise UserError(f"--text={text}: the run in {run} was trained without texts and has no vocabulary.")
    return vocabulary.encode(text, words, description["batch"]["tokens"][0][-1])


def find_class(value: str, names: Sequence[str]) -> Int[np.ndarray, ""]:
    """Returns the number of a class from its name or number."""
    if value in names:
        return np.asarray(names.index(value), np.int32)
    if value.isdigit() and int(value) < len(names):
        return np.asarray(int(value), np.int32)
    raise UserError(f"--label={value}: there is no such class. {suggest(value, names)}")


def check_number(flag: str, value: float, strict: bool) -> Float[np.ndarray, ""]:
    """Returns a finite number that is at least 0, or above 0 where that is `strict`."""
    if not 0 <= value < np.inf or (strict and not value):
        raise UserError(f"--{flag}={value}: expected a number {'above' if strict else 'of at least'} 0.")
    return np.asarray(value, np.float32)


def read_weights(text: str) -> Float[np.ndarray, " styles"]:
    """Returns the weights of styles from numbers with commas between them."""
    try:
        weights = np.array([float(number) for number in text.split(",")], np.float32)
    except ValueError:
        weights = np.array([-1.0])
    if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise UserError(f"--weights={text}: expected numbers of at least 0, not all 0, such as 0.7,0.3.")
    return weights


def read_styles(
    files: Sequence[Path], channels: int, size: Sequence[int] | None
) -> Float[np.ndarray, "*styles height width channels"]:
    """Reads the picture of a style, or several, which then have an axis of their own.

    Pictures are scaled to cover `size`, by default that of the first, and their margins cut off: strokes keep their
    proportions.
    """
    styles = []
    for file in files:
        image = _decode(file.expanduser(), channels)
        height, width = size = size or image.shape[:2]
        scale = max(height / image.shape[0], width / image.shape[1])
        rows, columns = (round(scale * side) for side in image.shape[:2])
        styles.append(transforms.center_crop(transforms.resize(image, size=(rows, columns)), size=tuple(size)))
    return np.stack(styles) if len(styles) > 1 else styles[0]


def read_mask(file: Path, shape: Sequence[int]) -> Float[np.ndarray, "height width 1"]:
    """Reads a mask, 0 or 1, at the size of the network's images."""
    image = cv2.resize(_decode(file, 1), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return (image.reshape(*shape[:2], 1) >= 0.5).astype(np.float32)


def _decode(file: Path, channels: int) -> Float[np.ndarray, "height width channels"]:
    try:
        return folder.decode(file, channels=channels).astype(np.float32) / 255
    except CorruptExample as error:
        raise UserError(error.fault) from error


def draw_samples(
    recipe: Recipe,
    state: State,
    count: int,
    seed: int,
    output: Path,
    inputs: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes samples as PNG files: each one, and a grid of all; `inputs` of `sample` are the same for every sample."""
    if recipe.sample is None:
        raise UserError("this system does not sample: give --input=FILE|FOLDER|VIDEO.")
    runs.make_folder(output, "--output")
    written = Outputs(output)
    further = {name: np.repeat(np.asarray(value)[None], count, axis=0) for name, value in (inputs or {}).items()}
    for name, samples in recipe.sample(state, jax.random.key(seed), {"count": count, **further}).items():
        samples = np.asarray(samples)
        pictures = {f"{name}_{index:05d}.png": sample for index, sample in enumerate(samples)}
        pictures[f"{name}_grid.png"] = grid(samples)
        written.check(pictures)
        for file, picture in pictures.items():
            save_image(written.claim(file), picture)
    print(f"{number_of(count, 'sample')} in {output}")


def apply_to_images(predictor: Predictor, source: Path, output: Path, threshold: float = 0.3, stem: str = "") -> None:
    """Writes image outputs as PNG files named after the input, and all other outputs to predictions.json.

    Detections are written to detections.json, and drawn if they score at least `threshold`. Classes of pixels are
    painted, and written below `classes`, a folder that can be the source of `data.class_maps`. Unreadable images are
    skipped and reported at the end. What an earlier call has written to the output folder is no input and is replaced,
    so that the same command can be given again; a file of somebody else's there is an error. `stem` stands for the name
    of the input, if this is a single image, which may then lie in the output folder.
    """
    written = Outputs(output)
    files = [file for file in folder.list_images(source) if not written.wrote(file)] if source.is_dir() else [source]
    if not stem and output.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise UserError(f"--output={output} is the input folder; its images would be overwritten.")
    if not files:
        raise UserError(f"--input={source} holds no images ({', '.join(folder.SUFFIXES)}).")
    runs.make_folder(output, "--output")
    inside = [file.relative_to(source) if source.is_dir() else Path(file.name) for file in files]
    names = [stem] if stem else name_outputs(inside)
    predictions, read, faults = {}, [], []

    def images() -> Iterator[Prepared]:
        for name, file, path in zip(names, files, inside, strict=True):
            try:
                image = predictor.prepare(folder.decode(file, channels=3).astype(np.float32) / 255)
            except CorruptExample as error:
                faults.append(error.fault)
            except UserError as error:  # too small for a transform
                faults.append(f"{file}: {error}")
            else:
                read.append((name, path))
                yield image

    records, further, painted = [], {}, False
    for index, (prepared, outputs) in enumerate(predictor(images())):
        name, file = read[index]
        pictures = draw_outputs(predictor, prepared, outputs, threshold)
        others = {} if is_detection(outputs) else {kind: v for kind, v in outputs.items() if not is_picture(kind, v)}
        if index == 0:  # before anything is written
            written.check(form.format(each) for each in names for form in pictures)
            written.check(["detections.json"] * is_detection(outputs) + ["predictions.json"] * bool(others))
            written.check([f"{CLASSES}/labels.txt", f"{CLASSES}/{LEGEND}"] * (SEGMENTATION in outputs))
        for form, picture in pictures.items():
            (save_image if picture.ndim == 3 else save_classes)(written.claim(form.format(name)), picture)
        if is_detection(outputs):
            records.append(coco_record(str(file), prepared.original.shape[:2], outputs))
        painted = SEGMENTATION in outputs
        for kind, value in others.items():
            predictions.setdefault(name, {})[kind] = value.tolist()
            if kind.endswith("label") and value.ndim == 0 and value < len(predictor.classes):
                predictions[name][kind.removesuffix("label") + "class"] = predictor.classes[int(value)]
    if predictions:
        further["predictions.json"] = json.dumps(predictions, indent=1)
    if records:
        further["detections.json"] = json.dumps(coco_format(records, predictor.classes), indent=1)
    if painted and predictor.classes:
        further[f"{CLASSES}/labels.txt"] = "".join(f"{name}\n" for name in predictor.classes)
        save_image(written.claim(f"{CLASSES}/{LEGEND}"), draw_legend(predictor.classes))
    for name, content in further.items():
        write_atomically(written.claim(name), content)
    print(f"{number_of(len(read), 'image')} in {output}")
    if faults:
        skipped = f"Skipped {len(faults)} of {number_of(len(files), 'image')}. "
        raise UserError(skipped + folder.listed(faults, "; "))


def draw_outputs(
    predictor: Predictor, prepared: Prepared, outputs: Mapping[str, np.ndarray | np.generic], threshold: float
) -> dict[str, np.ndarray]:
    """Returns the pictures to write of an image's outputs, and its map of classes, by file; "{}" is the input's name.

    Detections are drawn if they score at least `threshold`, and classes painted.
    """
    if is_detection(outputs):
        return {"{}.png": draw_detections(predictor, prepared, outputs, threshold)}
    pictures = {}
    for kind, value in outputs.items():
        if kind == SEGMENTATION:
            pictures |= {f"{CLASSES}/{{}}.png": value, "{}.png": draw_classes(predictor, prepared, value)}
        elif is_picture(kind, value):
            pictures["{}.png" if kind == "image" else f"{{}}_{kind}.png"] = value
    return pictures


def is_detection(outputs: Mapping[str, np.ndarray | np.generic]) -> bool:
    """Returns whether outputs are boxes with scores."""
    return "scores" in outputs and "boxes" in outputs


def is_picture(kind: str, value: np.ndarray | np.generic) -> bool:
    """Returns whether an output is an image, grey or RGB, or a map of classes."""
    return kind == SEGMENTATION or (value.ndim == 3 and value.shape[-1] in (1, 3))


def draw_classes(
    predictor: Predictor, prepared: Prepared, numbers: Int[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    """Paints classes, at the original's size, over a copy of their image, except the class `background`."""
    names = predictor.classes
    return overlay(prepared.original, numbers, background=names.index(BACKGROUND) if BACKGROUND in names else None)


def name_outputs(files: Sequence[Path]) -> list[str]:
    """Returns a name for each input: its path without suffix, or with it if two would be the same."""
    short = [str(file.with_suffix("")) for file in files]
    return [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]


def apply_to_video(predictor: Predictor, source: Path, output: Path, threshold: float = 0.3) -> None:
    """Writes a video, .mp4 or .avi, of image outputs, or of what the system finds drawn on the frames.

    It has the source's frame rate. Detections that score at least `threshold` are drawn.
    """
    video.check_output(source, output)
    capture, start = video.open_video(source), time.monotonic()
    given = capture.get(cv2.CAP_PROP_FPS)
    rate = video.nearest_rate(given)

    def frames() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        for prepared, outputs in predictor(map(predictor.prepare, video.read_frames(capture))):
            if is_detection(outputs):
                outputs = {"image": draw_detections(predictor, prepared, outputs, threshold)}
            if SEGMENTATION in outputs:
                outputs = {"image": draw_classes(predictor, prepared, outputs[SEGMENTATION])}
            if "image" not in outputs:
                raise UserError("this system's outputs are not images, so it cannot make a video; apply it to images.")
            yield to_bytes(outputs["image"])

    count = video.write_video(output, frames(), rate)
    if not count:
        raise UserError(f"--input={source} has no frames.")
    shown = "" if abs(rate - given) < 1e-3 else f" at {rate:g} frames/s ({given:g} in the input)"
    print(f"{number_of(count, 'frame')} in {output}{shown}, {count / (time.monotonic() - start):.1f} frames/s")


if __name__ == "__main__":
    command.run_main(main)
