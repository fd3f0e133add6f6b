"""The fast gradient sign method: Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015.

arXiv:1412.6572, section 4. The control is noise of the same length, to which a fooled classifier may still be robust.
"""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from cvjax.attacks.attack import Away, BoundedAttack, Images, Labels, LogitsFn, Scalar, check_sizes
from cvjax.attacks.projection import project_linf
from cvjax.core import Network, Recipe, State
from cvjax.signature import Range

# --- attacks ------------------------------------------------------------------------------------------------------


def gradient_sign(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns the sign of the cross-entropy's gradient in each pixel: -1, 0 or 1.

    It counts as constant where it is differentiated through. An image's logits may not depend on the other images.
    """

    def loss(images):
        return optax.softmax_cross_entropy_with_integer_labels(logits_fn(images), labels).sum()

    return jax.lax.stop_gradient(jnp.sign(jax.grad(loss)(images)))


def fgsm(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    epsilon: Scalar,
    targeted: bool = False,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images after one step of epsilon along the sign of the gradient, clipped to [lower, upper].

    Args:
      logits_fn: as in `gradient_sign`.
      labels: the true classes, which the step leads away from; or those to lead to, where targeted.
    """
    direction = gradient_sign(logits_fn, images, labels)
    moved = images + (-epsilon if targeted else epsilon) * direction
    return project_linf(moved, images, epsilon, lower, upper)


def random_sign(
    key: Key[Array, ""],
    images: Images,
    epsilon: Scalar,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images with each pixel changed by epsilon up or down at random, then clipped: the control of `fgsm`."""
    moved = images + epsilon * jax.random.rademacher(key, images.shape, images.dtype)
    return project_linf(moved, images, epsilon, lower, upper)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FGSM(BoundedAttack):
    """The attack on another run's classifier."""

    def perturb(self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar) -> Images:
        """Takes the step."""
        return fgsm(functools.partial(self.classify, state), images, labels, epsilon)

    def controls(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar
    ) -> dict[str, Images]:
        """Adds noise."""
        return {"random_sign": random_sign(key, images, epsilon)}


def recipe(
    classifier: Network,
    epsilons: tuple[Annotated[float, Range(1e-6, 1)], ...] = (0.1, 0.2),
    labels: Away = "dataset",
) -> Recipe:
    """Makes the attack on a classifier of another run. Nothing is trained.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      epsilons: largest changes of a pixel to attack with.
      labels: lead away from the dataset's, or from what the classifier has "seen" in each image as it is, which suits
        images of other classes than the classifier's.

    Returns:
      The recipe. Figures: accuracy of the classifier on the images as they are, robust_accuracy_<epsilon> when
      they are attacked, and random_sign_accuracy_<epsilon> when each pixel is changed as much at random. A label
      that is not one of the classifier's classes is an error. With labels "seen", changed_<epsilon> and
      random_sign_changed_<epsilon> in their place, the shares of images whose most probable class is another one.

    Raises:
      UserError: no epsilons, or two that share their first three digits.
    """
    return Recipe.of(FGSM(classifier, check_sizes("epsilons", epsilons), labels))
