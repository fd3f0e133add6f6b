"""Measures of codes: dimensionality reduction, denoising, compression and retrieval on the evaluation split.

The same images go to methods without a network: principal components (Pearson 1901), fitted to them, so that no linear
code of that width has a lower error; non-local means (Buades et al. 2005); JPEG (1992); distances between pixels.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from sklearn.neighbors import NearestNeighbors

from cvjax.errors import number_of
from cvjax.generative.autoencoders import latents
from cvjax.metrics import plots
from cvjax.metrics.controls import compression, denoising, principal

STEPS = (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25)  # of the quantiser, in standard deviations of the codes
FOUND = 10  # results of a search
IMAGES = 2000  # of the evaluation split, at most, that the methods are compared on
DENOISED = 500  # of these, at most, that are denoised: non-local means is slow

Rows = Mapping[str, Shaped[np.ndarray, "..."]]  # a row an image: of the first images only, where they are large
Images = Float[np.ndarray, "batch height width channels"]


def quantise(codes: latents.Codes, size: Float[Array, ""]) -> Int[Array, "batch steps codes"]:
    """Returns centred codes as multiples of each of `STEPS` times `size`, rounded and clipped to [-127, 127]."""
    return jnp.clip(jnp.round(codes[:, None] / (size * jnp.asarray(STEPS))[:, None]), -127, 127).astype(jnp.int32)


def quantised(
    decode: latents.Decode, codes: latents.Codes, moments: latents.Moments
) -> dict[str, Shaped[Array, "batch steps ..."]]:
    """Returns `levels`, the codes quantised by each of `STEPS`, and `decoded`, the images of these."""
    size = jnp.sqrt(jnp.square(moments.deviation()).mean())
    levels = quantise(codes - moments.mean, size)
    values = levels * (size * jnp.asarray(STEPS))[:, None] + moments.mean
    decoded = decode(values.reshape(-1, codes.shape[1]))
    return {"levels": levels, "decoded": decoded.reshape(*levels.shape[:2], *decoded.shape[1:])}


def gather(rows: Iterable[tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    """Returns (batch, outputs) concatenated over an evaluation; large arrays end after the first `IMAGES`."""
    parts: tuple[dict, dict] = ({}, {})
    seen = 0
    for pair in rows:
        for side, arrays in zip(parts, pair, strict=True):
            for name, array in arrays.items():
                kept = array if array.ndim <= 2 else array[: max(IMAGES - seen, 0)]
                side.setdefault(name, []).append(kept)
        seen += len(pair[0]["image"])
    batch, outputs = ({name: np.concatenate(arrays) for name, arrays in side.items()} for side in parts)
    return batch, outputs


def figures(batch: Rows, rows: Rows, linear: bool) -> dict[str, float]:
    """Computes all figures that the data allow.

    Args:
      batch: `image`, and optionally `label`.
      rows: `code`, `squared_error`, `reconstruction` (not clipped), `levels` and `decoded`; optionally `jacobian_norm`,
        `noisy` and `denoised`.
      linear: whether encoder and decoder are linear.

    Returns:
      squared_error, mean over images and pixels; mean_activation; sparseness (Hoyer 2004, Non-negative Matrix
      Factorization with Sparseness Constraints, section 3.1; 0 for a code of zeros); jacobian_norm; error_over_pca:
      squared error over that of the same number of principal components of the same images; subspace_angle: largest
      principal angle to their subspace in radians, where linear; jpeg_gain: PSNR of quantised and entropy-coded codes
      over that of JPEG at the same bytes, in dB, mean over its qualities from 1 to 30; of grey and RGB images.
      With `denoised`: psnr_noisy, psnr_denoised, their difference psnr_gain, psnr_nonlocal_means, the difference
      psnr_over_nonlocal_means, and psnr_median.
      With `label`: precision_at_10, the share of the 10 images with the nearest codes that are of the same class, and
      precision_over_pixels, how much more that is than by pixels.
    """
    images, found = batch["image"], code_figures(rows)
    found |= component_figures(images, rows, linear)
    if images.shape[-1] in (1, 3):
        found |= compression_figures(images, rows)
    if "denoised" in rows:
        found |= denoising_figures(images, rows["noisy"], rows["denoised"])
    if "label" in batch and batch["label"].ndim == 1:
        found |= search_figures(images, rows["code"], batch["label"])
    return found


def code_figures(rows: Rows) -> dict[str, float]:
    """Returns the figures of reconstructions and codes."""
    codes = np.abs(rows["code"].astype(np.float64))
    found = {"squared_error": rows["squared_error"].mean(dtype=np.float64), "mean_activation": rows["code"].mean()}
    root, norm = np.sqrt(codes.shape[1]), np.sqrt(np.square(codes).sum(axis=1))
    ratio = np.divide(codes.sum(axis=1), norm, out=np.full(len(codes), root), where=norm > 0)
    found["sparseness"] = np.mean((root - ratio) / max(root - 1, 1e-9))
    if "jacobian_norm" in rows:
        found["jacobian_norm"] = rows["jacobian_norm"].mean(dtype=np.float64)
    return {name: float(value) for name, value in found.items()}


def component_figures(images: Images, rows: Rows, linear: bool) -> dict[str, float]:
    """Returns error_over_pca and subspace_angle; nothing where that number of components leaves no error."""
    codes = rows["code"].shape[1]
    if codes >= min(len(images) - 1, images[0].size):
        return {}
    pca = principal.fit(images, codes)
    best = np.square(images - principal.reconstruct(pca, images)).mean()
    found = {"error_over_pca": float(rows["squared_error"][: len(images)].mean(dtype=np.float64) / best)}
    return found | ({"subspace_angle": principal.subspace_angle(pca, rows["reconstruction"])} if linear else {})


def compression_figures(images: Images, rows: Rows) -> dict[str, float]:
    """Returns jpeg_gain."""
    points = compression.code_points(images, rows["levels"], rows["decoded"])
    return {"jpeg_gain": compression.gain(points, compression.jpeg_points(images))}


def denoising_figures(clean: Images, noisy: Images, denoised: Images) -> dict[str, float]:
    """Returns the PSNR of the first `DENOISED` images, by the autoencoder and by classical denoisers."""
    clean, noisy, denoised = clean[:DENOISED], noisy[:DENOISED], denoised[:DENOISED]
    before, after = denoising.psnr(clean, noisy), denoising.psnr(clean, denoised)
    nonlocal_means = denoising.psnr(clean, denoising.nonlocal_means(clean, noisy))
    return {
        "psnr_noisy": before,
        "psnr_denoised": after,
        "psnr_gain": after - before,
        "psnr_nonlocal_means": nonlocal_means,
        "psnr_over_nonlocal_means": after - nonlocal_means,
        "psnr_median": denoising.psnr(clean, denoising.median(noisy)),
    }


def search_figures(
    images: Images, codes: Float[np.ndarray, "all codes"], labels: Int[np.ndarray, " all"]
) -> dict[str, float]:
    """Returns precision_at_10 and precision_over_pixels; nothing for 10 images or fewer."""
    count = len(images)
    if count <= FOUND:
        return {}
    by_codes = precision(codes[:count], labels[:count])
    return {
        "precision_at_10": by_codes,
        "precision_over_pixels": by_codes - precision(images.reshape(count, -1), labels[:count]),
    }


def precision(features: Float[np.ndarray, "batch features"], labels: Int[np.ndarray, " batch"]) -> float:
    """Returns the share of the 10 nearest rows that have the label of the row, averaged over rows."""
    return float((labels[nearest(features, FOUND)] == labels[:, None]).mean())


def nearest(features: Float[np.ndarray, "batch features"], count: int) -> Int[np.ndarray, "batch count"]:
    """Returns the indices of the `count` other rows that are nearest to each row, the nearest first."""
    return NearestNeighbors(n_neighbors=count).fit(features).kneighbors(return_distance=False)


def pictures(batch: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Draws compression, retrieval and denoising on a batch, which may be on the devices of several hosts.

    Returns `rate_distortion`: PSNR over bits a pixel; `neighbours`: images, each followed by those with the nearest
    codes; `denoising`: noisy, by non-local means, by the autoencoder, clean. The rows are those of `figures`.
    """
    rows, batch = latents.fetch((dict(rows), {name: batch[name] for name in ("image", "valid")}))
    images = batch["image"][batch["valid"]]
    rows = {name: value[batch["valid"]] for name, value in rows.items()}
    shown = {}
    if images.shape[-1] in (1, 3):
        shown["rate_distortion"] = draw_rate_distortion(images, rows)
    if len(images) > 1:
        found = images[nearest(rows["code"], min(FOUND, len(images) - 1))[:8]]
        shown["neighbours"] = np.asarray(latents.sheet(jnp.asarray(np.concatenate([images[:8, None], found], axis=1))))
    if "noisy" in rows:
        noisy, denoised = rows["noisy"][:32], rows["denoised"][:32]
        columns = [noisy, denoising.nonlocal_means(images[:32], noisy), denoised, images[:32]]
        shown["denoising"] = np.stack(columns, axis=1).clip(0, 1).reshape(-1, *images.shape[1:])
    return shown


def draw_rate_distortion(images: Images, rows: Rows) -> Float[np.ndarray, "plot_height plot_width 3"]:
    """Returns a plot of PSNR over bits a pixel, of codes and of JPEG with and without its header."""
    codes = compression.code_points(images, rows["levels"], rows["decoded"])
    jpeg = compression.jpeg_points(images)
    bits = 8 / images.size
    curves = {
        "codes, entropy-coded": ([bits * p.size for p in codes], [p.psnr for p in codes]),
        "JPEG, one sheet": ([bits * p.size for p in jpeg], [p.psnr for p in jpeg]),
        "JPEG, header not counted": ([bits * (p.size - p.header) for p in jpeg], [p.psnr for p in jpeg]),
    }
    curves = {name: tuple(map(np.asarray, points)) for name, points in curves.items()}
    title = f"{number_of(len(images), 'image')}, {number_of(rows['code'].shape[1], 'code')} each"
    return plots.draw_curves(curves, title, "bits a pixel", "PSNR, dB")
