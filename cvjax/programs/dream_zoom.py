"""Zooms into a dream: each frame is dreamt on the one before, enlarged.

python -m cvjax.programs.dream_zoom --run=runs/dream_photos --input=photo.jpg --output=zoom.mp4 --frames=150
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from cvjax import command, runs
from cvjax.data import folder
from cvjax.data.sources import CorruptExample
from cvjax.display import doing
from cvjax.errors import UserError, number_of
from cvjax.interpret.deep_dream import zoom
from cvjax.predictor import Predictor
from cvjax.programs import video
from cvjax.programs.images import to_bytes

SYSTEM = "interpret.deep_dream"


def frames(
    predictor: Predictor, picture: Path, count: int, factor: float, seed: int = 0
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yields the frames of a zoom into a picture, at the size of the run's images.

    Args:
      factor: by which each frame is enlarged.
    """
    image = predictor.prepare(folder.decode(picture, channels=3).astype(np.float32) / 255).image[None]
    enlarge = jax.jit(lambda images: zoom(images, factor))
    for key in jax.random.split(jax.random.key(seed), count):
        dreamt = predictor.predict(predictor.state, {"image": image}, key)["image"]
        yield to_bytes(np.asarray(dreamt[0]))
        image = enlarge(dreamt)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.programs.dream_zoom", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help=f"folder of a run of {SYSTEM}")
    parser.add_argument("--input", type=Path, required=True, help="the picture that the zoom begins with")
    parser.add_argument("--output", type=Path, required=True, help="the video, .mp4 or .avi")
    parser.add_argument("--frames", type=int, default=150, help="number of frames")
    parser.add_argument("--factor", type=float, default=1.03, help="by which each frame is enlarged")
    parser.add_argument("--rate", type=float, default=25.0, help="frames per second")
    parser.add_argument("--seed", type=command.seed, default=0, help="random seed")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1 or not 0 < arguments.rate < math.inf or not 1 <= arguments.factor < math.inf:
        raise UserError(
            f"--frames={arguments.frames} --rate={arguments.rate} --factor={arguments.factor}: at least 1 frame, a "
            "rate above 0 and a factor of at least 1."
        )
    source, output = arguments.input.expanduser(), arguments.output.expanduser()
    video.check_output(source, output)
    description, recipe, state = runs.load(arguments.run.expanduser())
    if description["config"]["system"] != SYSTEM:
        raise UserError(f"--run={arguments.run} is of {description['config']['system']}, not of {SYSTEM}.")
    predictor = Predictor(description, recipe, state, batch=1)
    try:
        with doing(f"dreaming {number_of(arguments.frames, 'frame')}"):
            made = frames(predictor, source, arguments.frames, arguments.factor, arguments.seed)
            count = video.write_video(output, made, video.nearest_rate(arguments.rate))
    except CorruptExample as error:
        raise UserError(error.fault) from error
    print(f"{number_of(count, 'frame')} in {output}")


if __name__ == "__main__":
    command.run_main(main)
