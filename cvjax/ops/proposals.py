"""Regions of an image that may show an object, found without learning, for detectors that classify regions.

Each function returns boxes that are all different, the most promising first, as a function of the image, the arguments
and the seed alone: `data.derive` computes them once for each image and keeps them.
"""

from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from cvjax.errors import UserError, suggest
from cvjax.signature import Count, Natural, NonNegative, Range, Share

Boxes = Float32[np.ndarray, "proposals 4"]
Image = Float32[np.ndarray, "height width channels"]
Map = Float32[np.ndarray, "height width"]

# --- selective search ---------------------------------------------------------------------------------------------

# Colour spaces, measures of likeness and thresholds of the two versions (table 6); C, T, S, F: colour, texture, size,
# fill.
FAST = (("hsv", "lab"), ("CTSF", "TSF"), (50.0, 100.0))
QUALITY = (("hsv", "lab", "rgi", "h", "i"), ("CTSF", "TSF", "F", "S"), (50.0, 100.0, 150.0, 300.0))
SMOOTHING = 0.8  # of the image before it is segmented, in pixels, as in the authors' code


def selective_search(
    image: Image,
    quality: bool = False,
    thresholds: tuple[float, ...] | None = None,
    region: Natural | None = None,
    smallest: Count = 8,
    most: Count = 2000,
    seed: Natural = 0,
) -> Boxes:
    """Proposes regions by merging superpixels that look alike: Uijlings et al., Selective Search, 2013, by OpenCV.

    The order is the paper's (section 4.3, "Combining locations"): a random number times the region's place from the top
    of the hierarchy, for which stands its place by size, since OpenCV does not tell it and orders by chance.
    Returns boxes. Raises a UserError for an image of neither one channel nor three.

    Args:
      quality: search in five colour spaces with four sets of measures and four thresholds instead of 2, 2 and 2.
      thresholds: of Felzenszwalb & Huttenlocher's segmentation, its k: the larger, the larger the first regions; by
        default those of the paper, for photographs.
      region: least number of pixels of a first region; by default the threshold, as in the authors' code.
      smallest: least width and height in pixels.
      most: largest number of proposals.
      seed: of the order.
    """
    pixels = _as_bgr(image, "selective search")
    spaces, measures, papers = QUALITY if quality else FAST
    search, kinds = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation(), cv2.ximgproc.segmentation
    search.setBaseImage(pixels)
    for space in spaces:
        search.addImage(in_space(pixels, space))
    for threshold in papers if thresholds is None else thresholds:
        least = int(threshold) if region is None else region
        search.addGraphSegmentation(kinds.createGraphSegmentation(SMOOTHING, float(threshold), least))
    made = {
        "C": kinds.createSelectiveSearchSegmentationStrategyColor,
        "T": kinds.createSelectiveSearchSegmentationStrategyTexture,
        "S": kinds.createSelectiveSearchSegmentationStrategySize,
        "F": kinds.createSelectiveSearchSegmentationStrategyFill,
    }
    for letters in measures:
        parts = [made[letter]() for letter in letters]
        search.addStrategy(kinds.createSelectiveSearchSegmentationStrategyMultiple(*parts) if parts[1:] else parts[0])
    corners = np.asarray(search.process(), np.float32).reshape(-1, 4)  # x, y, width, height
    corners = np.unique(corners[(corners[:, 2:] >= smallest).all(axis=1)], axis=0)
    corners = corners[np.argsort(-np.prod(corners[:, 2:], axis=1), kind="stable")]
    chances = np.random.default_rng(seed).uniform(size=len(corners)) * np.arange(1, len(corners) + 1)
    return _from_sizes(corners[np.argsort(chances, kind="stable")[:most]])


def in_space(pixels: UInt8[np.ndarray, "height width 3"], space: str) -> UInt8[np.ndarray, "height width *channels"]:
    """Converts BGR to a colour space of the paper: hsv, lab, h (hue), i (grey), or rgi (shares of red and green, i).

    Returns bytes. Raises a UserError for another one.
    """
    if space in ("hsv", "h"):
        converted = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)
        return converted if space == "hsv" else np.ascontiguousarray(converted[..., 0])
    if space == "lab":
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2LAB)
    if space not in ("i", "rgi"):
        raise UserError(f"there is no colour space {space!r}. {suggest(space, QUALITY[0])}")
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if space == "i":
        return grey
    total = np.maximum(pixels.sum(axis=-1, dtype=np.float32), 1)
    red, green = (np.round(255 * pixels[..., channel] / total).astype(np.uint8) for channel in (2, 1))
    return np.stack([red, green, grey], axis=-1)


# --- edge boxes ---------------------------------------------------------------------------------------------------

FOREST = ("options", "childs", "featureIds", "thresholds", "edgeBoundaries", "edgeBins")  # parts of a model's file
CLUSTER = 0.5  # sum of the affinities at which edge groups are one, as in the authors' code


def edge_boxes(
    image: Image,
    model: str | None = None,
    step: Share = 0.65,
    suppression: Share = 0.75,
    least_score: NonNegative = 0.01,
    least_edge: Share = 0.1,
    merge: NonNegative = 0.5,
    longest: Annotated[float, Range(1)] = 3.0,
    smallest: Count = 32,
    most: Count = 2000,
) -> Boxes:
    """Proposes boxes that hold whole contours: Zitnick & Dollár, Edge Boxes, 2014, by OpenCV.

    Its edges are `sobel_edges`, unless a file of a structured forest is named; the defaults are otherwise the authors'.
    Returns boxes by falling score, of equal ones first the upper, then the left one. Raises a UserError for an image of
    neither one channel nor three, or a model that cannot be read.

    Args:
      model: file of a structured forest in OpenCV's format (Dollár & Zitnick, Structured Forests, 2013).
      step: IoU of neighbouring boxes of the sliding search, the paper's alpha.
      suppression: IoU above which the better of two boxes suppresses the other, the paper's beta.
      least_score: of a box.
      least_edge: magnitude in [0, 1] below which there is no edge.
      merge: sum of differences of orientation, over pi / 2, up to which edges are one group.
      longest: greatest ratio of the sides of a box.
      smallest: least width and height in pixels of a square; all boxes have at least its area.
      most: largest number of proposals.
    """
    if model is not None:
        magnitudes, orientations = structured_edges(image, model)
    else:
        magnitudes, orientations = sobel_edges(image)
    search = cv2.ximgproc.createEdgeBoxes(
        alpha=float(step),
        beta=float(suppression),
        minScore=float(least_score),
        maxBoxes=10_000,
        edgeMinMag=float(least_edge),
        edgeMergeThr=float(merge),
        clusterMinMag=CLUSTER,
        maxAspectRatio=float(longest),
        minBoxArea=float(smallest**2),
    )
    corners, scores = search.getBoundingBoxes(magnitudes, orientations)
    corners = np.asarray(corners, np.float32).reshape(-1, 4)
    scores = np.asarray(scores, np.float32).ravel()[: len(corners)]  # of no boxes there may be one
    order = np.lexsort((*corners[:, [3, 2, 0, 1]].T, -scores))
    corners, first = np.unique(corners[order], axis=0, return_index=True)
    return _from_sizes(corners[np.argsort(first)[:most]])


def sobel_edges(image: Image) -> tuple[Map, Map]:
    """Finds edges where the gradient is greatest along its own direction.

    The gradient is that of the channel where it is greatest, by Sobel's operator. Returns (magnitudes over the greatest
    in the image, 0 where a neighbour along the gradient's direction is greater; orientations of the gradients in
    [0, pi), which are across the edges). Raises a UserError for an image of neither one channel nor three.
    """
    _check_channels(image, "edge detection")
    gradients = [
        np.stack([cv2.Sobel(np.ascontiguousarray(image[..., channel]), cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1))])
        for channel in range(image.shape[2])
    ]
    lengths = np.stack([np.hypot(*gradient) for gradient in gradients])
    at = lengths.argmax(axis=0)[None]
    length = np.take_along_axis(lengths, at, axis=0)[0]
    x, y = (np.take_along_axis(np.stack([g[axis] for g in gradients]), at, axis=0)[0] for axis in (0, 1))
    unit = np.maximum(length, 1e-12)
    rows, columns = np.indices(length.shape, np.float32)
    ahead, behind = (
        cv2.remap(length, columns + way * x / unit, rows + way * y / unit, cv2.INTER_LINEAR) for way in (1, -1)
    )
    # To Sobel a step is two pixels wide, equal but for rounding: the second one stays.
    thin = np.where((length > ahead * (1 + 1e-4)) & (length >= behind * (1 - 1e-4)), length, 0)
    orientations = np.mod(np.arctan2(y, x), np.float32(np.pi))
    orientations[orientations >= np.float32(np.pi)] = 0  # by rounding
    return (thin / max(float(length.max()), 1e-6)).astype(np.float32), orientations.astype(np.float32)


def structured_edges(image: Image, model: str) -> tuple[Map, Map]:
    """Finds edges by a structured forest.

    Returns (magnitudes, thinned; orientations across the edges in [0, pi]). Raises a UserError for an image of neither
    one channel nor three, or a file that is no forest.
    """
    pixels = _as_bgr(image, "edge detection")[..., ::-1].astype(np.float32) / 255
    file = Path(model).expanduser()
    if not file.is_file():
        raise UserError(f"model={model!r}: there is no such file.")
    try:
        stored = cv2.FileStorage(str(file), cv2.FILE_STORAGE_READ)
        missing = [part for part in FOREST if stored.getNode(part).empty()]
    except (cv2.error, SystemError) as error:
        raise UserError(f"model={model!r}: OpenCV cannot read the file: expected YAML, XML or JSON.") from error
    if missing:  # OpenCV would divide by zero
        raise UserError(f"model={model!r}: this is no structured forest; it has no {', '.join(missing)}.")
    forest = cv2.ximgproc.createStructuredEdgeDetection(str(file))
    edges = forest.detectEdges(np.ascontiguousarray(pixels))
    orientations = forest.computeOrientation(edges)
    return forest.edgesNms(edges, orientations), orientations


# --- a grid -------------------------------------------------------------------------------------------------------


def sliding_grid(
    image: Image,
    sizes: tuple[tuple[float, float], ...],
    step: Annotated[float, Range(0.01, 1)] = 0.5,
    most: Count = 2000,
    seed: Natural = 0,
) -> Boxes:
    """Proposes boxes of some sizes everywhere, whatever the image shows; the order is random.

    Returns boxes. Raises a UserError without sizes, or for one that is not positive.

    Args:
      sizes: (width, height) of the boxes in pixels. Those larger than the image are as large as it.
      step: greatest distance of neighbours, in widths and heights.
      most: largest number of proposals.
      seed: of the order.
    """
    if not sizes or min(map(min, sizes)) <= 0:
        raise UserError(f"sizes={sizes}: expected (width, height) in pixels of the boxes to propose.")
    height, width = image.shape[:2]
    boxes = []
    for size in sizes:
        sides = np.minimum(np.asarray(size, np.float32), (width, height))
        starts = [_starts(whole, side, step) for whole, side in zip((width, height), sides, strict=True)]
        x, y = (places.ravel() for places in np.meshgrid(*starts))
        boxes.append(np.stack([x, y, x + sides[0], y + sides[1]], axis=-1))
    boxes = np.unique(np.concatenate(boxes).astype(np.float32), axis=0)
    return boxes[np.random.default_rng(seed).permutation(len(boxes))[:most]]


def _starts(whole: int, side: float, step: float) -> Float64[np.ndarray, " places"]:
    """Places of a box along an axis, evenly from border to border."""
    count = 1 + int(np.ceil((whole - side) / (step * side) - 1e-6))
    return np.linspace(0, whole - side, count)


def _check_channels(image: Image, what: Literal["selective search", "edge detection"]) -> None:
    if image.shape[2] not in (1, 3):
        raise UserError(f"{what} takes images of one channel or three, not {image.shape[2]}")


def _as_bgr(image: Image, what: Literal["selective search", "edge detection"]) -> np.ndarray:
    """OpenCV's bytes."""
    _check_channels(image, what)
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*image.shape[:2], 3))[..., ::-1])


def _from_sizes(corners: Boxes) -> Boxes:
    """Boxes of x, y, width, height."""
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
