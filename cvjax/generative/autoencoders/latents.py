"""Latent spaces: the moments of codes, and pictures of interpolations, traversals and maps.

A plain autoencoder has no prior as in Kingma & Welling, 2014, to sample from: a Gaussian is fitted to its codes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int, Key

from cvjax import core
from cvjax.errors import number_of
from cvjax.metrics import plots

Codes = Float[Array, "batch codes"]
Maps = Float[Array, "batch rows columns code"]
Images = Float[Array, "batch height width channels"]
Decode = Callable[[Codes], Images]

ROWS, COLUMNS = 8, 9  # of the pictures
REACH = 2.5  # of a traversal, in standard deviations from the mean


@flax.struct.dataclass
class Moments:
    """A Gaussian's `mean` and `second`, the mean of outer products, of codes, averaged over training steps."""

    mean: Float[Array, " codes"]
    second: Float[Array, "codes codes"]

    @classmethod
    def standard(cls, codes: int) -> "Moments":
        """Returns the moments of N(0, I)."""
        return cls(jnp.zeros(codes), jnp.eye(codes))

    def updated(self, codes: Codes, step: Int[Array, ""], keep: float = 0.99) -> "Moments":
        """Moves the averages towards a batch's moments; `keep` as in `core.moving_average`, 1 for a fixed encoder."""
        codes = jax.lax.stop_gradient(codes)
        latest = Moments(codes.mean(axis=0), codes.T @ codes / len(codes))
        return core.moving_average(self, latest, step, keep)

    def covariance(self) -> Float[Array, "codes codes"]:
        """Returns the covariance."""
        return self.second - jnp.outer(self.mean, self.mean)

    def deviation(self) -> Float[Array, " codes"]:
        """Returns the standard deviations, at least 1e-6."""
        return jnp.sqrt(jnp.maximum(jnp.diag(self.covariance()), 1e-12))

    def correlation(self) -> Float[Array, "codes codes"]:
        """Returns the covariance of standardised codes."""
        return self.covariance() / jnp.outer(self.deviation(), self.deviation())

    def standardise(self, codes: Codes) -> Codes:
        """Returns codes of mean 0 and deviation 1."""
        return (codes - self.mean) / self.deviation()

    def restore(self, codes: Float[Array, "*batch codes"]) -> Float[Array, "*batch codes"]:
        """Returns the codes that `standardise` made these of."""
        return self.mean + self.deviation() * codes

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count codes"]:
        """Draws codes from the Gaussian."""
        values, vectors = jnp.linalg.eigh(self.covariance())
        # The symmetric root: it does not depend on the signs of the eigenvectors.
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T
        return self.mean + jax.random.normal(key, (count, len(self.mean))) @ root


@flax.struct.dataclass
class Scale:
    """The one deviation of all values of codes that are small images, averaged over training steps.

    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, appendix G, divide by that of
    the first batch.
    """

    mean: Float[Array, ""]
    second: Float[Array, ""]  # mean square

    @classmethod
    def standard(cls) -> "Scale":
        """Returns that of N(0, I)."""
        return cls(jnp.zeros(()), jnp.ones(()))

    def updated(self, codes: Maps, step: Int[Array, ""], keep: float = 0.99) -> "Scale":
        """Moves the averages towards a batch's, from that of the first one; `keep` as in `Moments.updated`."""
        codes = jax.lax.stop_gradient(codes)
        latest = Scale(codes.mean(), jnp.square(codes).mean())
        averaged = core.moving_average(self, latest, step, keep)
        return jax.tree.map(lambda first, later: jnp.where(step == 0, first, later), latest, averaged)

    def deviation(self) -> Float[Array, ""]:
        """Returns the standard deviation, at least 1e-6."""
        return jnp.sqrt(jnp.maximum(self.second - self.mean**2, 1e-12))

    def standardise(self, codes: Maps) -> Maps:
        """Returns codes of deviation 1; their mean is not taken off."""
        return codes / self.deviation()

    def restore(self, codes: Float[Array, "*batch rows columns code"]) -> Float[Array, "*batch rows columns code"]:
        """Returns the codes that `standardise` made these of."""
        return codes * self.deviation()


def interpolate(
    decode: Decode, start: Codes, end: Codes, count: int = COLUMNS
) -> Float[Array, "batch count height width channels"]:
    """Returns the decoded straight lines between codes, `count` images each, both ends included."""
    share = jnp.linspace(0.0, 1.0, count)[:, None]
    return _decode_rows(decode, start[:, None] * (1 - share) + end[:, None] * share)


def traverse(
    decode: Decode, code: Float[Array, " codes"], chosen: Int[Array, " chosen"], moments: Moments, count: int = COLUMNS
) -> Float[Array, "chosen count height width channels"]:
    """Returns a decoded code with each of the chosen latents moved through `REACH` deviations around its mean."""
    values = jnp.linspace(-REACH, REACH, count) * moments.deviation()[chosen, None] + moments.mean[chosen, None]
    rows = jnp.broadcast_to(code, (len(chosen), count, len(code)))
    return _decode_rows(decode, rows.at[jnp.arange(len(chosen)), :, chosen].set(values))


def _decode_rows(decode: Decode, codes: Float[Array, "rows count codes"]) -> Array:
    images = decode(codes.reshape(-1, codes.shape[-1]))
    return images.reshape(*codes.shape[:2], *images.shape[1:])


def sheet(rows: Float[Array, "rows count height width channels"]) -> Float[Array, "sheet_height sheet_width channels"]:
    """Returns rows of images on one sheet with grey gaps; small images are enlarged to 48 pixels or more."""
    scale = -(-48 // max(rows.shape[2:4]))
    rows = rows.repeat(scale, axis=2).repeat(scale, axis=3)
    rows = jnp.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=0.5)
    return rows.swapaxes(1, 2).reshape(rows.shape[0] * rows.shape[2], rows.shape[1] * rows.shape[3], rows.shape[4])


def pictures(decode: Decode, codes: Codes, moments: Moments) -> dict[str, Float[Array, "height width channels"]]:
    """Draws interpolations between pairs of codes, and traversals of the latents that vary most in a batch.

    Returns `interpolations`, nothing for a single code, and `traversals`, a row for each latent, from the first code.
    The moments are those of the training set's codes, or of the prior.
    """
    pairs = min(ROWS, len(codes) // 2)
    lines = {"interpolations": sheet(interpolate(decode, codes[:pairs], codes[pairs : 2 * pairs]))} if pairs else {}
    widest = jnp.argsort(codes.var(axis=0), descending=True)[:ROWS]
    return lines | {"traversals": sheet(traverse(decode, codes[0], widest, moments))}


def latent_map(
    codes: Codes, batch: Mapping[str, Any], names: Sequence[str] = ()
) -> dict[str, Float[np.ndarray, "height width 3"]]:
    """Returns `latent_map`, codes in the plane coloured by class; nothing without labels or for a single image.

    More than two latents are drawn by their first two principal components. Codes may be on the devices of several
    hosts; `valid` is False for padding. `names` are those of the classes.
    """
    if not {"label", "valid"} <= batch.keys() or batch["label"].ndim != 1:
        return {}
    codes, labels, valid = fetch((codes, batch["label"], batch["valid"]))
    points, title = codes[valid], "the two latents"
    if len(points) < 2:
        return {}
    if codes.shape[1] == 1:
        points, title = np.pad(points, ((0, 0), (0, 1))), "the latent"
    elif codes.shape[1] > 2:
        centred = points - points.mean(axis=0)
        points = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
        title = f"two principal components of {number_of(codes.shape[1], 'latent')}"
    return {"latent_map": plots.draw_map(points, labels[valid], title, names)}


def fetch(tree: Any) -> Any:
    """Fetches whole arrays to the host; all processes have to call it."""
    return jax.tree.map(lambda array: np.asarray(multihost_utils.process_allgather(array, tiled=True)), tree)
