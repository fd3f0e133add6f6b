"""Figures of translated images beside the truth, and what colours alone would reach."""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from cvjax.metrics.image import WINDOW, Convention, psnr, ssim
from cvjax.metrics.saturation import chroma_histogram, saturation_distance

Images = Float[np.ndarray, "batch height width channels"]
Batch = Float[np.ndarray, "..."]  # of any number and size, which differ from batch to batch
Affine = Float[np.ndarray, "terms channels"]

BEST = 100.0  # dB; more, as of equal images, counts as this
CONVENTION = Convention("rgb")


def decibels(truth: Images, images: Images) -> Float[np.ndarray, " batch"]:
    """Returns the PSNR of each image over all channels, rounded to 8 bits, at most 100 dB."""
    return np.minimum(psnr(truth, images, CONVENTION), BEST)


def similarities(truth: Images, images: Images) -> dict[str, Float[np.ndarray, " batch"]]:
    """Returns the `psnr` of each image and, where its sides reach the window, its `ssim`, both in RGB and 8 bits."""
    found = {"psnr": decibels(truth, images)}
    return found | ({"ssim": ssim(truth, images, CONVENTION)} if min(images.shape[1:3]) >= WINDOW else {})


def detail_correlation(truth: Images, images: Images, window: int = 5) -> Float[np.ndarray, " batch"]:
    """Returns the correlation of each image's detail with the truth's.

    Detail is the mean of the channels, less its mean over a square of `window` pixels around each (the border is
    reflected). It is 1 for the same stripes, -1 for inverted ones, and 0 for those a quarter of a period apart. An
    image without any detail has 0.
    """
    seen, found = (_detail(side, window) for side in (truth, images))
    norms = np.sqrt((seen**2).sum((1, 2)) * (found**2).sum((1, 2)))
    return np.divide((seen * found).sum((1, 2)), norms, out=np.zeros(len(seen)), where=norms > 1e-9)


def _detail(images: Images, window: int) -> Float[np.ndarray, "batch height width"]:
    grey = images.astype(np.float64).mean(axis=-1)
    return grey - ndimage.uniform_filter(grey, size=(1, window, window), mode="reflect")


def fit_colours(images: Images, truth: Images) -> Affine:
    """Returns the affine map of a pixel's colour to the truth's with the least squared error over all pixels.

    The last row is the constant. No translation that looks at colours alone and is affine in them comes nearer.
    """
    gram, cross = 0.0, 0.0
    for image, true in zip(images, truth, strict=True):
        terms = _terms(image)
        gram, cross = gram + terms.T @ terms, cross + terms.T @ true.reshape(-1, true.shape[-1]).astype(np.float64)
    return np.linalg.pinv(gram, hermitian=True) @ cross


def recolour(images: Images, affine: Affine) -> Images:
    """Returns images with each pixel's colour mapped as `fit_colours` says, clipped to [0, 1]."""
    made = np.stack([_terms(image) @ affine for image in images])
    return np.clip(made, 0, 1).reshape(*images.shape[:3], affine.shape[1]).astype(np.float32)


def _terms(image: Float[np.ndarray, "height width channels"]) -> Float[np.ndarray, "pixels terms"]:
    pixels = image.reshape(-1, image.shape[-1]).astype(np.float64)
    return np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)


def trivial_figures(a: Images, b: Images) -> dict[str, float]:
    """Returns figures from A to B that need no training: of the images, of the mean colour of B, of changed colours."""
    recoloured = recolour(a, fit_colours(a, b))
    flat = np.broadcast_to(b.mean(axis=(0, 1, 2)), b.shape)
    figures = {"flat_psnr": decibels(b, flat), "recoloured_detail": detail_correlation(b, recoloured)}
    for control, images in {"identity": a, "recoloured": recoloured}.items():
        figures |= {f"{control}_{name}": values for name, values in similarities(b, images).items()}
    return {name: float(values.mean()) for name, values in figures.items()}


def above_controls(figures: Mapping[str, float]) -> dict[str, float]:
    """Returns by how much the figures from A to B, {} without any, are above those of `trivial_figures`."""
    above = {}
    for control, title in {"identity": "input", "recoloured": "recoloured"}.items():
        for name in ("psnr", "ssim"):
            if f"{name}_a_to_b" in figures:
                above[f"{name}_over_{title}"] = figures[f"{name}_a_to_b"] - figures[f"{control}_{name}"]
    return above


def score_pictures(rows: Iterable[tuple[Batch, Batch, Batch | None]], recoloured: bool = False) -> dict[str, float]:
    """Returns the figures of `cvjax.translation.pix2pix`.

    `rows` are batches of (truth, pictures, images that they were made of or None).
    """
    found, histograms, pairs = {}, [], []
    for truth, made, given in rows:
        measured = similarities(truth, made)
        if given is not None and given.shape == truth.shape and (given != truth).any():
            of_input = similarities(truth, given)
            measured |= {f"{name}_over_input": measured[name] - values for name, values in of_input.items()}
        measured["l1"] = np.abs(truth - made).mean(axis=(1, 2, 3))
        for name, values in measured.items():
            found.setdefault(name, []).append(values)
        if made.shape[-1] == 3:
            histograms.append([chroma_histogram(x) for x in (truth, made)])
        if recoloured:
            pairs.append((given, truth))
    figures = {name: float(np.concatenate(values).mean(dtype=np.float64)) for name, values in found.items()}
    if histograms:
        figures["saturation_distance"] = saturation_distance(*np.sum(histograms, axis=0))
    if pairs:
        given, truth = (np.concatenate(side) for side in zip(*pairs, strict=True))
        for name, values in similarities(truth, recolour(given, fit_colours(given, truth))).items():
            figures[f"recoloured_{name}"] = float(values.mean())
            figures[f"{name}_over_recoloured"] = figures[name] - figures[f"recoloured_{name}"]
    return figures
