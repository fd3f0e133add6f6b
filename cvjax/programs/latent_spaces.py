"""Compares two latent spaces: the pictures of two runs side by side, and figures of their samples if these are digits.

python -m cvjax.programs.latent_spaces --run_a=runs/vae_digits --run_b=runs/autoencoder_digits --output=latents
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from cvjax import command, data, display, runs
from cvjax.errors import UserError
from cvjax.metrics import digits, judges

GAP = 16  # pixels between the two pictures
PRINTED = ("sure_share", "fid_over_control", "nearest_distance")  # figures of samples that are digits


def main(argv: Sequence[str] | None = None) -> None:
    """Writes NAME.png for each picture that both runs have, the first run's on the left; prints figures."""
    parser = command.Parser(prog="python -m cvjax.programs.latent_spaces", description=__doc__)
    parser.add_argument("--run_a", required=True, help="folder of a trained run")
    parser.add_argument("--run_b", required=True, help="folder of another")
    parser.add_argument("--output", type=Path, default=Path("latents"), help="folder for the pictures")
    parser.add_argument("--count", type=int, default=digits.COUNT, help="number of measured samples")
    parser.add_argument("--seed", type=command.seed, default=0)
    arguments = parser.parse_args(argv)
    if arguments.count < 1:
        raise UserError(f"--count={arguments.count}: expected 1 or more.")
    runs.make_folder(arguments.output, "--output")
    names = (arguments.run_a, arguments.run_b)
    shown, samples = zip(*(pictures(run, arguments.count, arguments.seed) for run in names), strict=True)
    for name in shown[0].keys() & shown[1].keys():
        sides = [PIL.Image.fromarray(side[name]).convert("RGBA") for side in shown]
        size = sum(side.width for side in sides) + GAP, max(side.height for side in sides)
        both = PIL.Image.new("RGBA", size)
        both.paste(sides[0], (0, 0))
        both.paste(sides[1], (sides[0].width + GAP, 0))
        both.save(arguments.output / f"{name}.png")
    for run, images in zip(names, samples, strict=True):
        if images.shape[1:] == (8, 8, 1):
            figures = judges.measure_digits(images, images, None)
            values = (f"{name} {display.format_number(figures[name])}" for name in PRINTED)
            print(f"{run}: {'  '.join(values)}")
    print(f"pictures in {arguments.output}: {names[0]} on the left, {names[1]} on the right")


def pictures(run: str, count: int, seed: int) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
    """Draws a run's pictures and `count` samples. Returns (pictures by name as bytes, samples)."""
    description, recipe, state = runs.load(run)
    if recipe.sample is None:
        raise UserError(f"{run}: {description['config']['system']} does not sample, so it has no latent space.")
    settings = description["config"]["data"]
    batch = jax.tree.map(jnp.asarray, next(data.load(settings, seed=0).evaluate()))
    shown = recipe.visualise(state, batch, jax.random.key(seed))
    shown = {name: display.grid(np.asarray(image)) for name, image in shown.items()}
    return shown, np.asarray(recipe.sample(state, jax.random.key(seed), {"count": count})["image"])


if __name__ == "__main__":
    command.run_main(main)
