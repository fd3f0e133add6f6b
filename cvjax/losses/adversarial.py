"""Losses of adversarial games, by the name of the game; what holds for a discriminator holds for a critic.

Cross-entropy: Goodfellow et al., Generative Adversarial Nets, 2014 (arXiv:1406.2661). Least squares: Mao et al., Least
Squares Generative Adversarial Networks, 2017 (arXiv:1611.04076). Wasserstein: Arjovsky, Chintala & Bottou, Wasserstein
GAN, 2017 (arXiv:1701.07875), with the penalty of Gulrajani et al., Improved Training of Wasserstein GANs, 2017
(arXiv:1704.00028). Hinge: Lim & Ye, Geometric GAN, 2017 (arXiv:1705.02894).

`real_logits` and `fake_logits` are the discriminator's, of real and of generated images, in any shape: one per image or
one per patch. They are averaged in float32 at least.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from cvjax.ops.precision import at_least_float32

Logits = Float[Array, "*shape"]
Others = Float[Array, "*others"]  # of a batch that may have another size


def cross_entropy_discriminator_loss(
    real_logits: Logits, fake_logits: Others, real_label: float | Float[Array, "..."] = 1.0
) -> Float[Array, ""]:
    """Returns the mean cross-entropy of real images + that of generated ones, in nats (Goodfellow et al., equation 1).

    `real_label` is the target of real images, one for all or one each; .9 is the one-sided smoothing of Salimans et al.
    (arXiv:1606.03498).
    """
    real_logits, fake_logits = at_least_float32(real_logits), at_least_float32(fake_logits)
    labels = jnp.broadcast_to(_per_image(real_label, real_logits), real_logits.shape)
    real = optax.sigmoid_binary_cross_entropy(real_logits, labels)
    return real.mean() + optax.sigmoid_binary_cross_entropy(fake_logits, jnp.zeros_like(fake_logits)).mean()


def _per_image(label: float | Float[Array, "..."], logits: Logits) -> Float[Array, "..."]:
    """Gives labels, one for all images or one each, as many axes as the logits."""
    label = jnp.asarray(label, logits.dtype)
    return label.reshape(*label.shape, *[1] * (logits.ndim - label.ndim)) if label.ndim else label


def cross_entropy_generator_loss(fake_logits: Logits, saturating: bool = False) -> Float[Array, ""]:
    """Returns the mean of -log D(G(z)), or of log(1 - D(G(z))) if saturating, in nats (Goodfellow et al., section 3).

    The saturating form is that of the minimax game; its gradient vanishes where the discriminator is sure.
    """
    fake_logits = at_least_float32(fake_logits)
    return jax.nn.log_sigmoid(-fake_logits).mean() if saturating else -jax.nn.log_sigmoid(fake_logits).mean()


def least_squares_discriminator_loss(
    real_logits: Logits,
    fake_logits: Others,
    real_label: float | Float[Array, "..."] = 1.0,
    fake_label: float = 0.0,
) -> Float[Array, ""]:
    """Returns half the sum of both batches' mean squared errors, of logits without a sigmoid (Mao et al., equation 2).

    Args:
      real_label: the paper's b, one for all or one each.
      fake_label: the paper's a; 0 with 1 is equation 9, -1 with 1 equation 8.
    """
    real_logits, fake_logits = at_least_float32(real_logits), at_least_float32(fake_logits)
    return (
        jnp.square(real_logits - _per_image(real_label, real_logits)).mean()
        + jnp.square(fake_logits - fake_label).mean()
    ) / 2


def least_squares_generator_loss(fake_logits: Logits, target: float = 1.0) -> Float[Array, ""]:
    """Returns half the mean squared distance of the logits to the paper's c: 1 in equation 9, 0 in 8 (Mao et al.)."""
    return jnp.square(at_least_float32(fake_logits) - target).mean() / 2


def wasserstein_discriminator_loss(real_logits: Logits, fake_logits: Others) -> Float[Array, ""]:
    """Returns the mean over generated images - that over real ones: minus equation 3 of Arjovsky et al."""
    return at_least_float32(fake_logits).mean() - at_least_float32(real_logits).mean()


def wasserstein_generator_loss(fake_logits: Logits) -> Float[Array, ""]:
    """Returns minus the mean score of generated images, the generator's loss against a critic or a hinge."""
    return -at_least_float32(fake_logits).mean()


def hinge_discriminator_loss(real_logits: Logits, fake_logits: Others) -> Float[Array, ""]:
    """Returns the discriminator's hinge loss, mean over real + mean over generated images (Lim & Ye, equation 16)."""
    real_logits, fake_logits = at_least_float32(real_logits), at_least_float32(fake_logits)
    return jax.nn.relu(1.0 - real_logits).mean() + jax.nn.relu(1.0 + fake_logits).mean()


LOSSES = {  # name: (discriminator's, generator's)
    "cross_entropy": (cross_entropy_discriminator_loss, cross_entropy_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
    "wasserstein": (wasserstein_discriminator_loss, wasserstein_generator_loss),
    "hinge": (hinge_discriminator_loss, wasserstein_generator_loss),
}
LABELLED = ("cross_entropy", "least_squares")  # whose discriminator has a label to reach


def draw_labels(key: Key[Array, ""], count: int, real_label: float | tuple[float, float]) -> Float[Array, " count"]:
    """Returns targets of real images, all `real_label`, or uniform in it if it is (low, high), such as (.7, 1.2)."""
    low, high = real_label if isinstance(real_label, tuple) else (real_label, real_label)
    return jax.random.uniform(key, (count,), minval=low, maxval=high) if low != high else jnp.full((count,), low)


def gradient_penalty(
    key: Key[Array, ""],
    critic: Callable[[Float[Array, "batch ..."]], Float[Array, "batch ..."]],
    real: Float[Array, "batch ..."],
    fake: Float[Array, "batch ..."],
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Computes (|gradient of the critic| - 1)^2 between real and generated images (Gulrajani et al., algorithm 1).

    Each pair's place in between is drawn uniformly. Returns (penalty, norm of the gradient over all rows, columns and
    channels) of each pair; neither is averaged.

    Args:
      critic: images -> scores. A score must depend on its own image alone: no batch normalisation.
      real, fake: images, in the range in which the slope is to be 1.
    """
    batch = len(real)
    share = jax.random.uniform(key, (batch, *[1] * (real.ndim - 1)))
    gradients = jax.grad(lambda images: critic(images).sum())(share * real + (1 - share) * fake)
    norms = optax.safe_norm(
        at_least_float32(gradients).reshape(batch, -1), 0.0, axis=1
    )  # its derivative at 0 is 0 and not NaN
    return jnp.square(norms - 1.0), norms


def clip_weights(params: PyTree, limit: float) -> PyTree:
    """Returns every parameter of a critic clipped to [-limit, limit] (Arjovsky et al., algorithm 1; limit is .01)."""
    return jax.tree.map(lambda weights: jnp.clip(weights, -limit, limit), params)
