"""Curves, matrices and maps drawn as float32 images in [0, 1], on the host.

Names of classes are shown as `cvjax.ops.drawing.label_text` has them, and letter by letter: a dollar begins no formula.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from cvjax.data.class_maps import VOID
from cvjax.ops.drawing import label_text
from cvjax.ops.palettes import GREY, paint, voc_palette

Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
Image = Float[np.ndarray, "height width 3"]


def draw_precision_recall(curves: Mapping[str, Curve], title: str = "") -> Image:
    """Returns a plot of precision over recall, a line for each class of `cvjax.metrics.detection.precision_recall`."""
    figure, axes = _figure(title, "recall", "precision")
    for recall, precision in curves.values():
        recall, precision = (np.append(values[:1] * first, values) for values, first in ((recall, 0), (precision, 1)))
        axes.plot(recall, precision, linewidth=1.5)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if 0 < len(curves) <= 20:
        _legend(axes, axes.lines, list(curves), loc="lower left", fontsize=8, ncols=2)
    return _pixels(figure)


def draw_confusion(
    matrix: Int[np.ndarray, "n n"], names: Sequence[str], title: str = "", x: str = "detected as", y: str = "object"
) -> Image:
    """Returns a plot of a matrix of confusions, each row shaded by its shares.

    Args:
      matrix: counts [true class, class found], as `confusion` of `cvjax.metrics.mistakes` and of
        `cvjax.metrics.classification` return them.
      names: of its rows; one row more than names is for nothing. More than 60 are not written.
    """
    names = [*(label_text(label, names) for label in range(len(names))), "nothing"][: len(matrix)]
    figure, axes = _figure(title, x, y)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(names) <= 25:
        for (row, column), count in np.ndenumerate(matrix):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count) if count else "", ha="center", va="center", fontsize=7, color=ink)
    return _pixels(figure)


def draw_gallery(
    images: Float[np.ndarray, "count rows columns channels"],
    captions: Sequence[str],
    columns: int = 8,
    marked: Bool[np.ndarray, " count"] | None = None,
) -> Image:
    """Returns a figure of images in rows, grey or RGB, each with a caption above it, red where `marked`."""
    count, height, width = images.shape[:3]
    rows = -(-count // columns)
    lines = 1 + max(caption.count("\n") for caption in captions)
    figure = Figure(figsize=(columns, rows * (height / width + 0.16 * lines)), dpi=120)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.16 * lines / figure.get_figheight(), 0.08, 0.17 * lines)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for index, (axes, image, caption) in enumerate(zip(grid, images, captions, strict=False)):
        axes.imshow(np.broadcast_to(np.clip(image, 0, 1), (height, width, 3)))
        ink = "crimson" if marked is not None and marked[index] else "black"
        axes.set_title(caption, fontsize=7, pad=2, color=ink, parse_math=False)
    return _pixels(figure)


def draw_windows(
    rows: Sequence[tuple[Float[np.ndarray, "_ _ _"], tuple[int, int, int], Mapping[str, Float[np.ndarray, "_ _ _"]]]],
    title: str,
) -> Image:
    """Returns a figure with a row for each picture: the whole, with a square framed, and the square in each version.

    Args:
      rows: (picture, (top, left, side) of the square, {caption: version of the picture}).
    """
    columns = 1 + max(len(versions) for _, _, versions in rows)
    figure = Figure(figsize=(2.3 * columns, 2.5 * len(rows) + 0.3), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=9)
    for grid, (picture, (top, left, side), versions) in zip(
        figure.subplots(len(rows), columns, squeeze=False), rows, strict=True
    ):
        for axes in grid:
            axes.set_axis_off()
        shape = (*picture.shape[:2], 3)
        grid[0].imshow(np.broadcast_to(np.clip(picture, 0, 1), shape))
        grid[0].add_patch(Rectangle((left, top), side, side, fill=False, edgecolor="red"))
        for axes, (caption, version) in zip(grid[1:], versions.items(), strict=False):
            seen = np.broadcast_to(np.clip(version, 0, 1), shape)[top : top + side, left : left + side]
            axes.imshow(seen, interpolation="nearest")
            axes.set_title(caption, fontsize=8, pad=2)
    return _pixels(figure)


def draw_segmentations(
    images: Float[np.ndarray, "count rows columns channels"],
    truth: Integer[np.ndarray, "count rows columns"],
    predicted: Integer[np.ndarray, "count rows columns"],
    names: Sequence[str],
) -> Image:
    """Returns rows of four pictures: the image, grey or RGB, the true classes, those found and the errors.

    In the errors, wrong pixels are red, void ones grey, and right ones those of the image, dimmed. A legend has the
    names of the 24 most frequent classes of `truth` and `predicted`.
    """
    count, height, width = images.shape[:3]
    wrong, void = (truth != predicted)[..., None], (truth == VOID)[..., None]
    shown = np.broadcast_to(np.clip(images, 0, 1), (count, height, width, 3))
    errors = np.select([void, wrong], [np.divide(GREY, 255), (0.9, 0.1, 0.1)], 0.35 * shown.mean(-1, keepdims=True))
    columns = {"image": shown, "truth": paint(truth), "prediction": paint(predicted), "errors": errors}
    frequent = collections.Counter(np.concatenate([truth.ravel(), predicted.ravel()]).tolist())
    labels = sorted(label for label, _ in frequent.most_common() if 0 <= label < len(names))[:24]
    entries = [(label_text(label, names), voc_palette()[label] / 255) for label in labels]
    entries += [("void", np.divide(GREY, 255))] if frequent[VOID] else []
    figure = Figure(figsize=(8, 2 * count * height / width + 0.3 + 0.25 * -(-len(entries) // 6)), dpi=120)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(count, 4, squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        grid[0, column].set_title(title, fontsize=9)
        for axes, picture in zip(grid[:, column], pictures, strict=True):
            axes.imshow(picture, vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
    patches = [Patch(facecolor=colour, edgecolor="0.5") for _, colour in entries]
    texts = [name for name, _ in entries]
    _legend(figure, patches, texts, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return _pixels(figure)


def draw_legend(names: Sequence[str]) -> Image:
    """Returns the names of classes beside their colours in a palette PNG or an overlay."""
    lines = -(-len(names) // 3)
    figure = Figure(figsize=(6, 0.3 + 0.22 * lines), dpi=120)
    patches = [Patch(facecolor=colour, edgecolor="0.5") for colour in voc_palette()[: len(names)] / 255]
    texts = [label_text(label, names) for label in range(len(names))]
    _legend(figure, patches, texts, loc="center", ncols=3, fontsize=8, frameon=False)
    return _pixels(figure)


def draw_map(
    points: Float[np.ndarray, "points 2"],
    labels: Int[np.ndarray, " points"],
    title: str = "",
    names: Sequence[str] = (),
) -> Image:
    """Returns a plot of points (x, y), coloured by class; the ten colours repeat after ten classes."""
    figure, axes = _figure(title, "first", "second")
    there = np.unique(labels).tolist()
    dots = [axes.scatter(*points[labels == label].T, s=14, color=f"C{label % 10}", linewidths=0) for label in there]
    axes.grid(alpha=0.3)
    if 0 < len(there) <= 20:
        texts = [label_text(label, names) for label in there]
        _legend(axes, dots, texts, fontsize=8, title="class", loc="center left", bbox_to_anchor=(1, 0.5))
    return _pixels(figure)


def draw_curves(curves: Mapping[str, Curve], title: str, x: str, y: str) -> Image:
    """Returns a plot of lines, name -> (x, y), with a mark at each point and a logarithmic horizontal axis."""
    figure, axes = _figure(title, x, y)
    for name, points in curves.items():
        axes.plot(*points, label=name, marker=".", linewidth=1.5)
    axes.set_xscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return _pixels(figure)


def draw_recalls(by_number: Mapping[str, Curve], by_iou: Mapping[str, Curve], title: str = "") -> Image:
    """Returns two plots of the recall of proposals, name -> (x, recall): over their number, and over the IoU.

    They are those of `curves_by_number` and `curve_by_iou` of `cvjax.metrics.proposals`.
    """
    figure = Figure(figsize=(10, 4.5), dpi=120, layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    for axes, curves, label in ((left, by_number, "proposals an image"), (right, by_iou, "IoU")):
        for points in curves.values():
            axes.plot(*points, marker="." if axes is left else "", linewidth=1.5)
        axes.set(xlabel=label, ylabel="recall", ylim=(0, 1.02))
        axes.grid(alpha=0.3, which="both")
        _legend(axes, axes.lines, list(curves), fontsize=8, loc="lower right" if axes is left else "lower left")
    left.set_xscale("log")
    right.set_xlim(0.5, 1)
    return _pixels(figure)


def draw_rates(
    curves: Mapping[str, Curve], title: str = "", x: str = "false accept rate", y: str = "true accept rate"
) -> Image:
    """Returns a plot of rates over false rates on a logarithmic axis, name -> (false, true): an ROC or an open set's.

    They are those of `cvjax.metrics.verification.roc` and `.open_set`. The axis begins where one false acceptance is.
    """
    figure, axes = _figure(title, x, y)
    for false, true in curves.values():
        axes.step(false, true, where="post", linewidth=1.5)
    smallest = min((false[false > 0].min() for false, _ in curves.values() if (false > 0).any()), default=0.1)
    axes.set(xscale="log", xlim=(min(smallest, 0.1), 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3, which="both")
    if 0 < len(curves) <= 20:
        _legend(axes, axes.lines, list(curves), loc="lower right", fontsize=8)
    return _pixels(figure)


def draw_distances(
    distances: Float[np.ndarray, " pairs"],
    same: Bool[np.ndarray, " pairs"],
    threshold: float | None = None,
    title: str = "",
) -> Image:
    """Returns histograms of the distances of pairs of one person and of two, each kind's area 1, and a threshold."""
    figure, axes = _figure(title, "distance", "density")
    edges = np.histogram_bin_edges(distances, 50)
    bars = [axes.hist(distances[kind], edges, density=True, alpha=0.6)[2][0] for kind in (same, ~same) if kind.any()]
    texts = [text for kind, text in ((same, "one person"), (~same, "two people")) if kind.any()]
    if threshold is not None:
        bars.append(axes.axvline(threshold, color="black", linewidth=1))
        texts.append(f"threshold {threshold:.3g}")
    _legend(axes, bars, texts, fontsize=8)
    return _pixels(figure)


def _figure(title: str, x: str, y: str) -> tuple[Figure, object]:
    figure = Figure(figsize=(6, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def _legend(place: Any, handles: Sequence[Artist], texts: Sequence[str], **options: Any) -> None:
    """Adds a legend to a figure or axes; of matplotlib's own texts, those that begin with "_" would be left out."""
    legend = place.legend(handles, list(map(str, range(len(texts)))), **options)
    for shown, text in zip(legend.get_texts(), texts, strict=True):
        shown.set(text=text, parse_math=False)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
