"""Measures how steady a film is that was made of another one: the warping error, beside that of the film itself.

python -m cvjax.programs.stability --input=film.mp4 --output=cartoon.mp4 --style=ink

The error is the mean difference, in [0, 1], between a frame and the one before it, moved along the motion of the input
film, over the pixels whose motion is sure (cvjax/metrics/temporal.py). For comparison: the same of the input film,
and of a filter of cvjax.translation.cartoon on each of its frames; and all without moving, as if nothing were known.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cvjax import command
from cvjax.display import doing
from cvjax.errors import UserError, number_of
from cvjax.metrics import temporal
from cvjax.programs import video
from cvjax.translation.cartoon import STYLES

Frame = Float[np.ndarray, "height width 3"]


def side_by_side(source: Path, output: Path, style: str) -> Iterator[dict[str, Frame]]:
    """Yields the frames of two videos, and the first's painted by a filter, moment by moment.

    Codecs want even sides: a last row or column that only the output has is dropped. Raises a UserError if one of them
    has no frames, or they have different numbers of frames.
    """
    first, second = (
        video.read_frames(video.open_video(path, setting))
        for path, setting in ((source, "--input"), (output, "--output"))
    )
    for moment, (given, made) in enumerate(itertools.zip_longest(first, second)):
        if given is None or made is None:
            ended, going_on = ("input", "output") if given is None else ("output", "input")
            raise UserError(
                f"--{ended} has {number_of(moment, 'frame')}, and --{going_on} more: --output={output} is to be made "
                f"of {source}."
            )
        height, width = given.shape[:2]
        if 0 <= made.shape[0] - height <= height % 2 and 0 <= made.shape[1] - width <= width % 2:
            made = made[:height, :width]
        yield {"input": given, "output": made, style: STYLES[style](given)}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = command.Parser(prog="python -m cvjax.programs.stability", description=__doc__, formatter_class=formatter)
    parser.add_argument("--input", type=Path, required=True, help="the film")
    parser.add_argument("--output", type=Path, required=True, help="what was made of it")
    parser.add_argument("--style", choices=STYLES, default="ink", help="the filter for comparison; by default ink")
    arguments = parser.parse_args(argv)
    source, output = arguments.input.expanduser(), arguments.output.expanduser()
    with doing(f"following the motion in {source}"):
        found = temporal.warping_errors(side_by_side(source, output, arguments.style))
    print(report(found, arguments.style))


def report(found: temporal.Stability, style: str) -> str:
    """Returns the figures as a table."""
    titles = {"input": "input", "output": "output", style: f"{style}, frame by frame"}
    lines = [f"{'film':24}{'warping error':>16}{'without moving':>16}"]
    for name, error in found.errors.items():
        lines.append(f"{titles[name]:24}{error:16.4f}{found.changes[name]:16.4f}")
    pairs = number_of(found.pairs, "pair")
    return "\n".join([*lines, f"{found.share:.0%} of the pixels were followed, over {pairs} of frames"])


if __name__ == "__main__":
    command.run_main(main)
