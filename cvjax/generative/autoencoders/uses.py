"""What an autoencoder is good for, in figures: fewer dimensions, clean images, fewer bytes, a search by content.

Each use has a rival that needs no network: principal components (Pearson 1901), non-local means (Buades et al. 2005),
JPEG (1992), and the pixels themselves. The recipe's `eval_step` returns `outputs`, and its `score` these figures.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from cvjax import data
from cvjax.generative.autoencoders import latents
from cvjax.metrics import plots
from cvjax.metrics.controls import compression, denoising, principal
from cvjax.ops.neighbours import nearest

STEPS = (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.35, 0.25)  # of the quantiser, in standard deviations of the codes
FOUND = 10  # results of a search
RIVALS = 500  # images at most that slow rivals denoise
PIXELS = 64  # of a digit

Rows = Mapping[str, Shaped[np.ndarray, "batch ..."]]


def outputs(
    key: Key[Array, ""], encode: Any, decode: latents.Decode, codes: latents.Codes, moments: latents.Moments
) -> dict[str, Shaped[Array, "batch ..."]]:
    """Computes on the device what `digit_figures` wants to know, a row an image.

    Args:
      key: of the samples.
      encode: images to codes.
      decode: codes to images in [0, 1].
      codes: of a batch of digits.
      moments: of the training set's codes.

    Returns:
      `neighbours`: indices of the 10 training digits whose codes are nearest. `levels`, `decoded`: codes quantised by
      each of `STEPS`, and what becomes of them. `samples`: two a row, from a Gaussian with those moments.
    """
    training = jnp.asarray(data.arrays("digits", "train")["image"])
    size = jnp.sqrt(jnp.square(moments.deviation()).mean())
    levels = quantise(codes - moments.mean, size)
    values = levels * (size * jnp.asarray(STEPS))[:, None] + moments.mean
    decoded = decode(values.reshape(-1, codes.shape[1]))
    drawn = decode(moments.sample(key, 2 * len(codes)))
    return {
        "neighbours": nearest(codes, encode(training), FOUND),
        "levels": levels,
        "decoded": decoded.reshape(*levels.shape[:2], *decoded.shape[1:]),
        "samples": drawn.reshape(-1, 2, *drawn.shape[1:]),
    }


def quantise(codes: latents.Codes, size: Float[Array, ""]) -> Int[Array, "batch steps codes"]:
    """Rounds codes to multiples of each of `STEPS`.

    Args:
      codes: centred.
      size: what a step of 1 is.

    Returns:
      The multiples, within 127 of 0.
    """
    return jnp.clip(jnp.round(codes[:, None] / (size * jnp.asarray(STEPS))[:, None]), -127, 127).astype(jnp.int32)


def code_figures(rows: Rows) -> dict[str, float]:
    """Measures reconstructions and codes of any images.

    Args:
      rows: `squared_error`, `code` and, where there is one, `jacobian_norm` of each.

    Returns:
      squared_error, mean_activation, sparseness (Hoyer 2004, Non-negative Matrix Factorization with Sparseness
      Constraints, section 3.1, mean over images; 0 where a code is 0), and jacobian_norm.
    """
    codes = np.abs(rows["code"].astype(np.float64))
    figures = {"squared_error": rows["squared_error"].mean(dtype=np.float64), "mean_activation": rows["code"].mean()}
    root, norm = np.sqrt(codes.shape[1]), np.sqrt(np.square(codes).sum(axis=1))
    ratio = np.divide(codes.sum(axis=1), norm, out=np.full(len(codes), root), where=norm > 0)
    figures["sparseness"] = np.mean((root - ratio) / max(root - 1, 1e-9))
    if "jacobian_norm" in rows:
        figures["jacobian_norm"] = rows["jacobian_norm"].mean(dtype=np.float64)
    return {name: float(value) for name, value in figures.items()}


def denoising_figures(clean: denoising.Images, noisy: denoising.Images, denoised: denoising.Images) -> dict[str, float]:
    """Measures denoised images beside classical denoisers, on the first 500.

    Args:
      clean: in [0, 1].
      noisy: what the denoisers are given.
      denoised: what the autoencoder makes of it.

    Returns:
      psnr_noisy, psnr_denoised and their difference psnr_gain; psnr_nonlocal_means and psnr_over_nonlocal_means;
      psnr_median.
    """
    clean, noisy, denoised = clean[:RIVALS], noisy[:RIVALS], denoised[:RIVALS]
    before, after = denoising.psnr(clean, noisy), denoising.psnr(clean, denoised)
    rival = denoising.psnr(clean, denoising.nonlocal_means(clean, noisy))
    return {
        "psnr_noisy": before,
        "psnr_denoised": after,
        "psnr_gain": after - before,
        "psnr_nonlocal_means": rival,
        "psnr_over_nonlocal_means": after - rival,
        "psnr_median": denoising.psnr(clean, denoising.median(noisy)),
    }


def digit_figures(batch: Rows, rows: Rows, linear: bool) -> dict[str, float]:
    """Measures the codes of the test digits beside those of principal components.

    Args:
      batch: `image` and `label` of each.
      rows: `outputs`, and `code`, `squared_error` and `reconstruction` (not clipped) of each.
      linear: whether encoder and decoder are.

    Returns:
      error_over_pca: squared error over that of as many principal components, where codes are fewer than pixels;
      subspace_angle: largest principal angle to the principal subspace in radians, where `linear`;
      precision_at_10: share of the 10 nearest training codes that are of the same class;
      precision_over_pixels: how much more that is than among the 10 nearest in pixels;
      jpeg_gain: PSNR over that of JPEG at the same bytes, in dB, mean over its qualities from 1 to 30;
      and those of samples by `latents.sample_figures`.
    """
    training, figures = data.arrays("digits", "train"), {}
    if rows["code"].shape[1] < PIXELS:
        pca = principal.fit(training["image"], rows["code"].shape[1])
        best = np.square(batch["image"] - principal.reconstruct(pca, batch["image"])).mean()
        figures["error_over_pca"] = float(rows["squared_error"].mean(dtype=np.float64) / best)
        if linear:
            figures["subspace_angle"] = principal.subspace_angle(pca, rows["reconstruction"])
    precision = precision_of(rows["neighbours"], training["label"], batch["label"])
    points = compression.code_points(batch["image"], rows["levels"], rows["decoded"])
    samples = rows["samples"].reshape(-1, *batch["image"].shape[1:])
    return figures | {
        "precision_at_10": precision,
        "precision_over_pixels": precision - pixel_precision(batch),
        "jpeg_gain": compression.gain(points, compression.jpeg_points(batch["image"])),
        **latents.sample_figures(samples),
    }


def precision_of(
    neighbours: Int[np.ndarray, "queries found"],
    reference: Int[np.ndarray, " references"],
    labels: Int[np.ndarray, " queries"],
) -> float:
    """Computes precision at k: the share of what a search found that is of the query's class.

    Args:
      neighbours: indices of the found, k a query.
      reference: classes of all that could be found.
      labels: classes of the queries.

    Returns:
      The mean over queries.
    """
    return float((reference[neighbours] == labels[:, None]).mean())


def pixel_precision(batch: Rows) -> float:
    """Computes the precision at 10 of a search for the nearest training digits in pixels."""
    training = data.arrays("digits", "train")
    flat = (images.reshape(len(images), -1) for images in (batch["image"], training["image"]))
    return precision_of(np.asarray(nearest(*map(jnp.asarray, flat), FOUND)), training["label"], batch["label"])


def controls(codes: int) -> dict[str, dict[str, float]]:
    """Measures what needs no network by the same figures, on the test digits.

    Args:
      codes: how many numbers a digit's code has.

    Returns:
      "raw pixels", and "principal components": as many, with the same quantiser and entropy coder.
    """
    training, batch = data.arrays("digits", "train"), data.arrays("digits", "test")
    pca = principal.fit(training["image"], min(codes, PIXELS))
    found = principal.codes(pca, batch["image"])
    error = np.square(principal.reconstruct(pca, batch["image"]) - batch["image"]).mean()
    known = principal.codes(pca, training["image"])
    size = np.sqrt(known.var(axis=0).mean())
    levels = np.asarray(quantise(jnp.asarray(found, jnp.float32), jnp.float32(size)))
    values = levels * (size * np.asarray(STEPS))[:, None]
    decoded = pca.inverse_transform(values.reshape(-1, pca.n_components_)).reshape(len(found), len(STEPS), 8, 8, 1)
    points = compression.code_points(batch["image"], levels, decoded)
    neighbours = nearest(jnp.asarray(found, jnp.float32), jnp.asarray(known, jnp.float32), FOUND)
    precision = precision_of(np.asarray(neighbours), training["label"], batch["label"])
    pixels = pixel_precision(batch)
    return {
        f"{pca.n_components_} principal components": {
            "squared_error": float(error),
            "error_over_pca": 1.0,
            "subspace_angle": 0.0,
            "precision_at_10": precision,
            "precision_over_pixels": precision - pixels,
            "jpeg_gain": compression.gain(points, compression.jpeg_points(batch["image"])),
        },
        "raw pixels": {"precision_at_10": pixels, "precision_over_pixels": 0.0},
        "test digits themselves": latents.sample_figures(batch["image"]),
    }


def pictures(rows: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Draws the uses on a batch of digits.

    Args:
      rows: `outputs` of each image, and `noisy` and `denoised` where there are any.
      batch: `image`, `label` and `valid` of each; both may lie on the devices of several hosts.

    Returns:
      `rate_distortion`: PSNR over bits a pixel, beside JPEG with and without its header. `neighbours`: 8 images, each
      before the 10 training digits found for it. `denoising`: noisy, by non-local means, denoised, clean.
    """
    rows, batch = latents.fetch((dict(rows), {name: batch[name] for name in ("image", "valid")}))
    images = batch["image"][batch["valid"]]
    rows = {name: value[batch["valid"]] for name, value in rows.items()}
    training = data.arrays("digits", "train")["image"]
    codes = compression.code_points(images, rows["levels"], rows["decoded"])
    jpeg = compression.jpeg_points(images)
    bits = 8 / images.size
    curves = {
        "codes, arithmetic coder": ([bits * p.size for p in codes], [p.psnr for p in codes]),
        "JPEG, one sheet": ([bits * p.size for p in jpeg], [p.psnr for p in jpeg]),
        "JPEG, header not counted": ([bits * (p.size - p.header) for p in jpeg], [p.psnr for p in jpeg]),
    }
    curves = {name: tuple(map(np.asarray, points)) for name, points in curves.items()}
    title = f"{len(images)} images, {rows['code'].shape[1]} codes each"
    found = np.concatenate([images[:8, None], training[rows["neighbours"][:8]]], axis=1)
    shown = {
        "rate_distortion": plots.draw_curves(curves, title, "bits a pixel", "PSNR, dB"),
        "neighbours": np.asarray(latents.sheet(jnp.asarray(found))),
    }
    if "noisy" in rows:
        noisy, denoised = rows["noisy"][:32], rows["denoised"][:32]
        columns = [noisy, denoising.nonlocal_means(images[:32], noisy), denoised, images[:32]]
        shown["denoising"] = np.stack(columns, axis=1).clip(0, 1).reshape(-1, *images.shape[1:])
    return shown
