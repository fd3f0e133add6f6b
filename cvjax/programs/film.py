"""Makes a film that pans over a photograph and zooms into it, to try systems on.

python -m cvjax.programs.film --output=film.mp4
python -m cvjax.programs.film --input=photo.jpg --output=film.mp4 --frames=125 --size=320 --zoom=2
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from cvjax import command
from cvjax.data import folder
from cvjax.data.builders import photos
from cvjax.data.sources import CorruptExample
from cvjax.display import doing
from cvjax.errors import UserError, number_of
from cvjax.programs import video

PHOTOGRAPH = "chelsea"  # of the test photographs
LARGEST = 16384  # side in pixels of the scaled photograph; OpenCV moves less than 32767


def frames(
    picture: UInt8[np.ndarray, "height width 3"], count: int, size: int, zoom: float = 1.5
) -> Iterator[UInt8[np.ndarray, "size size 3"]]:
    """Yields square frames, from a square at the upper left to a smaller one at the lower right.

    Args:
      size: side of the frames in pixels. The photograph is scaled so that a pixel of the last one is one of its own.
      zoom: side of the first square over that of the last one, at least 1.
    """
    scale = zoom * size / min(picture.shape[:2])
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    height, width = (round(scale * side) for side in picture.shape[:2])
    picture = cv2.resize(picture, (width, height), interpolation=kind)
    begin, end = (np.array([zoom * size / 2] * 2), np.array([width - size / 2, height - size / 2]))
    for moment in range(count):
        share = (1 - math.cos(math.pi * moment / max(1, count - 1))) / 2  # starts and stops gently
        pixel = zoom ** (1 - share)  # of the picture, per pixel of the frame
        left, top = (1 - share) * begin + share * end - pixel * size / 2 + (pixel - 1) / 2
        places = np.float64([[pixel, 0, left], [0, pixel, top]])
        options = dict(flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
        yield cv2.warpAffine(picture, places, (size, size), **options)


def check_scale(picture: UInt8[np.ndarray, "height width 3"], size: int, zoom: float) -> None:
    """Raises a UserError if the scaled photograph would be too large."""
    height, width = picture.shape[:2]
    largest = zoom * size / min(height, width) * max(height, width)
    if largest > LARGEST:
        raise UserError(
            f"--size={size} --zoom={zoom:g}: the photograph of {height}x{width} would be scaled to a side of "
            f"{largest:,.0f} pixels; at most {LARGEST:,}, so a size of {int(size * LARGEST / largest)} with this zoom."
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.programs.film", description=__doc__)
    parser.add_argument("--input", type=Path, help=f"a photograph; by default {PHOTOGRAPH} of scikit-image")
    parser.add_argument("--output", type=Path, required=True, help="the video, .mp4 or .avi")
    parser.add_argument("--frames", type=int, default=75, help="number of frames")
    parser.add_argument("--size", type=int, default=256, help="side of the frames in pixels")
    parser.add_argument("--zoom", type=float, default=1.5, help="side of the first section over that of the last one")
    parser.add_argument("--rate", type=float, default=25.0, help="frames per second")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1 or arguments.size < 2 or not (0 < arguments.rate < math.inf and 1 <= arguments.zoom <= 100):
        raise UserError(
            f"--frames={arguments.frames} --size={arguments.size} --rate={arguments.rate} --zoom={arguments.zoom}: at "
            "least 1 frame of 2 pixels, a rate above 0 and a zoom from 1 to 100."
        )
    source, output = arguments.input and arguments.input.expanduser(), arguments.output.expanduser()
    video.check_output(source or Path(PHOTOGRAPH), output)
    try:
        picture = photos.read(PHOTOGRAPH) if source is None else folder.decode(source, channels=3)
    except CorruptExample as error:
        raise UserError(error.fault) from error
    check_scale(picture, arguments.size, arguments.zoom)
    made = frames(picture, arguments.frames, arguments.size, arguments.zoom)
    with doing(f"filming {number_of(arguments.frames, 'frame')}"):
        count = video.write_video(output, made, video.nearest_rate(arguments.rate))
    print(f"{number_of(count, 'frame')} in {output}")


if __name__ == "__main__":
    command.run_main(main)
