"""Photographs as cartoons, pencil sketches and watercolours, by OpenCV's filters; nothing is learnt.

`ink` follows Winnemöller, Olsen & Gooch, Real-Time Video Abstraction, 2006: colours are smoothed within edges, their
lightness falls into steps, and lines come from a difference of Gaussians. `pencil` has the strokes and tones of Lu, Xu
& Jia, Combining Sketch and Tone for Pencil Drawing Production, 2012, in a simple form. `watercolour` has the rims and
the uneven pigment of Bousseau et al., Interactive Watercolor Rendering with Temporal Coherence and Abstraction, 2006.

All take an RGB or grey picture, float32 in [0, 1] or bytes, and return one of the same shape and type; floats are
rounded to bytes first. The same picture gives the same result. Strokes, lines and patches are as wide as suits the
shorter side, so that a photograph of 12 megapixels looks like its thumbnail; below 512 pixels they keep their width.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from cvjax.signature import Count, NonNegative

Picture = Float32[np.ndarray, "height width channels"] | UInt8[np.ndarray, "height width channels"]
Plane = Float32[np.ndarray, "height width"]

SIDE = 512  # pixels of the shorter side at which widths below are meant
LIGHTEST = 100.0  # of L in Lab
WIDER = 1.6  # ratio of the two Gaussians whose difference is a Laplacian's, nearly: Marr & Hildreth, 1980
BALANCE = 0.98  # weight of the wider one: what is flat stays on the bright side
WASHED = 6  # passes of the bilateral filter for washes
PAPER = 256  # side of the tile of paper's grain and of pencil's strokes


def ink(
    image: Picture,
    levels: Count = 8,
    chroma_step: NonNegative = 7.0,
    vividness: NonNegative = 1.2,
    line: NonNegative = 1.0,
    passes: Count = 4,
) -> Picture:
    """Returns a cartoon: flat colours within black lines.

    Args:
      levels: number of steps of lightness.
      chroma_step: width in Lab of the steps of the two other coordinates; 0 leaves them continuous.
      vividness: factor of these.
      line: how black lines are; 0 draws none.
      passes: how often the bilateral filter (Tomasi & Manduchi, 1998) smooths colours. Lines are found after half of
        them.
    """
    pixels, scale = _read(image)
    half = _smoothed(cv2.cvtColor(_shrunk(pixels, scale), cv2.COLOR_RGB2LAB), passes // 2)
    lab, drawn = _smoothed(half, passes - passes // 2), half[..., 0]
    # Lightness and lines are fields without steps, which are enlarged first: steps and lines are sharp at any size.
    height, width = pixels.shape[:2]
    finer = 2 if scale < 2 else 1  # and of some grey at their edges
    size = (finer * width, finer * height)
    lab = cv2.resize(_softened(lab, scale), size, interpolation=cv2.INTER_LINEAR)
    relief = cv2.resize(_relief(drawn), size, interpolation=cv2.INTER_LINEAR)
    lines = np.tanh(np.maximum(-relief, 0))
    flat = np.empty_like(lab)
    flat[..., 0] = _middles(lab[..., 0], levels)
    flat[..., 1:] = vividness * _stepped(lab[..., 1:], chroma_step)
    coloured = np.clip(cv2.cvtColor(flat, cv2.COLOR_LAB2RGB), 0, 1)
    painted = coloured * np.maximum(1 - line * lines, 0)[..., None]
    return _like(image, cv2.resize(painted, (width, height), interpolation=cv2.INTER_AREA))


def pencil(image: Picture, shade: NonNegative = 0.45, hatching: NonNegative = 0.35) -> Picture:
    """Returns a pencil sketch: strokes where the picture is darker than what is around it, and hatching in the shade.

    Args:
      shade: how dark the darkest area is.
      hatching: contrast of its strokes.
    """
    pixels, scale = _read(image)
    grey = cv2.bilateralFilter(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 5, sigmaColor=0.08, sigmaSpace=2 * scale)
    around = cv2.GaussianBlur(grey, (0, 0), 6 * scale)
    strokes = np.clip((grey + 0.05) / (around + 0.05), 0, 1) ** 2  # dodged: divided by the picture's own blur
    tone = 1 - shade * (1 - cv2.GaussianBlur(grey, (0, 0), 2 * scale)) ** 1.5
    texture = _tiled(_hatching(), grey.shape, scale)
    shaded = tone * (1 + hatching * (1 - tone) * texture)
    sketch = np.clip(strokes * shaded, 0, 1)
    return _like(image, np.repeat(sketch[..., None], 3, axis=2))


def watercolour(image: Picture, washes: Count = 7, edge: NonNegative = 0.8, grain: NonNegative = 0.03) -> Picture:
    """Returns a watercolour: uneven washes of light colour with darker rims, on paper.

    Args:
      washes: number of steps of lightness, between which borders are soft and wander.
      edge: how much darker rims are, where the paint of a wash gathers.
      grain: contrast of the paper.
    """
    pixels, scale = _read(image)
    lab = _smoothed(cv2.cvtColor(_shrunk(pixels, scale), cv2.COLOR_RGB2LAB), WASHED)
    height, width = pixels.shape[:2]
    lab = cv2.resize(_softened(lab, scale), (width, height), interpolation=cv2.INTER_LINEAR)
    uneven = _tiled(_noise(9.0), (height, width), scale)
    step, lightness = LIGHTEST / washes, lab[..., 0] + 3 * uneven
    middle = _middles(lightness, washes)
    flat = middle + step / 2 * np.tanh(3 * (lightness - middle) / step)  # from one step to the next within a third
    flat = cv2.GaussianBlur(flat, (0, 0), 0.8 * scale)
    rim = np.maximum(cv2.GaussianBlur(flat, (0, 0), 3 * scale) - flat, 0)  # on the darker side
    lab[..., 0] = np.clip(LIGHTEST - 0.85 * (LIGHTEST - flat) - edge * rim + 2 * uneven, 0, LIGHTEST)
    lab[..., 1:] *= 1.2
    paper = 1 + grain * _tiled(_noise(1.0), (height, width), scale)
    return _like(image, np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * paper[..., None], 0, 1))


STYLES: Mapping[str, Callable[[Picture], Picture]] = MappingProxyType(
    {"ink": ink, "pencil": pencil, "watercolour": watercolour}
)


def _read(image: Picture) -> tuple[Float32[np.ndarray, "height width 3"], float]:
    """Returns a picture in RGB as of a file, and how many pixels wide what is one pixel wide at `SIDE` is."""
    pixels = image if image.dtype == np.uint8 else np.round(np.clip(image, 0, 1) * 255)
    pixels = pixels.astype(np.float32) / 255
    pixels = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return np.ascontiguousarray(pixels), max(1.0, min(pixels.shape[:2]) / SIDE)


def _like(image: Picture, painted: Float32[np.ndarray, "height width 3"]) -> Picture:
    """Returns RGB with the channels and the type of a picture."""
    painted = painted if image.shape[2] == 3 else cv2.cvtColor(painted, cv2.COLOR_RGB2GRAY)[..., None]
    levels = np.round(painted * 255)
    return levels.astype(np.uint8) if image.dtype == np.uint8 else (levels / 255).astype(np.float32)


def _shrunk(pixels: Float32[np.ndarray, "height width 3"], scale: float) -> Float32[np.ndarray, "rows columns 3"]:
    height, width = (max(1, round(side / scale)) for side in pixels.shape[:2])
    return pixels if scale == 1 else cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _smoothed(lab: Float32[np.ndarray, "height width 3"], passes: int) -> Float32[np.ndarray, "height width 3"]:
    for _ in range(passes):
        lab = cv2.bilateralFilter(lab, 9, sigmaColor=10.0, sigmaSpace=3.0)
    return lab


def _softened(lab: Float32[np.ndarray, "height width 3"], scale: float) -> Float32[np.ndarray, "height width 3"]:
    """Blurs the stairs that edges have in a picture that will be enlarged to more than twice its size."""
    return lab if scale < 2 else cv2.GaussianBlur(lab, (0, 0), 0.8)


def _relief(lightness: Plane) -> Plane:
    """Returns a difference of Gaussians, negative where lines are drawn."""
    narrow, wide = (cv2.GaussianBlur(lightness, (0, 0), sigma) for sigma in (1.0, WIDER))
    return narrow - BALANCE * wide


def _stepped(values: np.ndarray, step: float) -> np.ndarray:
    """Rounds to multiples of a step; a step of 0 leaves values as they are."""
    return np.round(values / step) * step if step else values


def _middles(lightness: Plane, levels: int) -> Plane:
    """Returns the middle of the step in which each lightness lies; white, and what noise adds to it, is in the last."""
    step = LIGHTEST / levels
    return (np.clip(np.floor(lightness / step), 0, levels - 1) + 0.5) * step


def _noise(width: float) -> Plane:
    """Returns a tile of noise as coarse as some pixels, about -1 to 1, which fits to itself on all sides."""
    noise = np.random.default_rng(0).standard_normal((PAPER, PAPER)).astype(np.float32)
    return _normalised(_wrapped_blur(noise, width, width))


def _hatching() -> Plane:
    """Returns a tile of diagonal strokes, about -1 to 1, which fits to itself on all sides."""
    noise = np.random.default_rng(0).standard_normal((PAPER, PAPER)).astype(np.float32)
    strokes = _wrapped_blur(noise, 0.6, 14.0)  # along the rows
    columns = np.arange(PAPER)[None]
    return _normalised(strokes[(np.arange(PAPER)[:, None] + columns) % PAPER, columns])  # sheared to the diagonal


def _wrapped_blur(tile: Plane, down: float, across: float) -> Plane:
    rim = PAPER // 2
    padded = cv2.copyMakeBorder(tile, rim, rim, rim, rim, cv2.BORDER_WRAP)
    return cv2.GaussianBlur(padded, (0, 0), sigmaX=across, sigmaY=down)[rim:-rim, rim:-rim]


def _normalised(tile: Plane) -> Plane:
    return np.clip(tile / (2 * tile.std()), -1, 1)


def _tiled(tile: Plane, size: tuple[int, int], scale: float) -> Float32[np.ndarray, "rows columns"]:
    """Covers an area with copies of a tile, enlarged by the scale."""
    height, width = (int(np.ceil(side / scale)) for side in size)
    covered = np.tile(tile, (height // PAPER + 1, width // PAPER + 1))[:height, :width]
    return covered if scale == 1 else cv2.resize(covered, size[::-1], interpolation=cv2.INTER_LINEAR)
