"""Iterated gradient attacks within a ball: the basic iterative method and projected gradient descent.

BIM: Kurakin, Goodfellow & Bengio, Adversarial Examples in the Physical World, 2017 (arXiv:1607.02533), section 2.2.
PGD: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018 (arXiv:1706.06083), section 2.1.
The control is a single step of the whole length, the fast gradient (sign) method.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from cvjax.attacks.attack import Away, BoundedAttack, Images, Labels, LogitsFn, Scalar, check_sizes, fooled
from cvjax.attacks.fgsm import fgsm, gradient_sign, random_sign
from cvjax.attacks.projection import norms, project_l2, project_linf, unit
from cvjax.core import Batch, Network, Pictures, Recipe, State
from cvjax.errors import number_of
from cvjax.metrics import plots, robustness
from cvjax.signature import Count, NonNegative, Range

Norm = Literal["linf", "l2"]
Step = Scalar | None

# --- attacks ------------------------------------------------------------------------------------------------------


def bim(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    epsilon: Scalar,
    steps: int = 10,
    step_size: Step = None,
    norm: Norm = "linf",
    targeted: bool = False,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images after several gradient steps from the images themselves: the basic iterative method.

    Args:
      labels: the true classes, which the steps lead away from; or those to lead to, where targeted.
      step_size: length of a step in `norm`; None: epsilon / steps.
    """
    size = epsilon / steps if step_size is None else step_size
    return _descend(logits_fn, images, images, labels, epsilon, steps, size, norm, targeted, lower, upper)


def pgd(
    key: Key[Array, ""],
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    epsilon: Scalar,
    steps: int = 40,
    step_size: Step = None,
    norm: Norm = "linf",
    targeted: bool = False,
    random_start: bool = True,
    restarts: int = 1,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images after gradient steps from random points of the ball, each projected to the ball, then to the box.

    The difference to the images is at most epsilon in `norm`, and every pixel is in [lower, upper], without rounding.

    Args:
      labels: the true classes, which the steps lead away from; or those to lead to, where targeted.
      step_size: length of a step in `norm`; None: 2.5 epsilon / steps, which reaches the edge from any start.
      random_start: begin at a point drawn evenly from the ball, not at the images.
      restarts: number of starts; of each image the one is kept that reaches the aim, else that of the greatest loss.
    """
    size = 2.5 * epsilon / steps if step_size is None else step_size
    project = PROJECTIONS[norm]

    def attempt(best, key):
        begin = images
        if random_start:
            begin = project(images + draw_in_ball(key, images, epsilon, norm), images, epsilon, lower, upper)
        found = _descend(logits_fn, begin, images, labels, epsilon, steps, size, norm, targeted, lower, upper)
        if restarts == 1:
            return (found, *best[1:]), None
        logits = logits_fn(found)
        loss = (-1 if targeted else 1) * optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        there = fooled(logits, labels, targeted)
        better = (there & ~best[1]) | ((there == best[1]) & (loss > best[2]))
        keep = (jnp.where(better.reshape(-1, 1, 1, 1), found, best[0]), jnp.where(better, there, best[1]))
        return (*keep, jnp.where(better, loss, best[2])), None

    nothing = (images, jnp.zeros(len(images), bool), jnp.full(len(images), -jnp.inf))
    (found, *_), _ = jax.lax.scan(attempt, nothing, jax.random.split(key, restarts))
    return found


def draw_in_ball(key: Key[Array, ""], images: Images, epsilon: Scalar, norm: Norm) -> Images:
    """Returns changes of images, drawn evenly from the ball of radius epsilon around 0."""
    if norm == "linf":
        return jax.random.uniform(key, images.shape, images.dtype, -1, 1) * epsilon
    direction_key, radius_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, images.shape, images.dtype)
    radius = jax.random.uniform(radius_key, (len(images), 1, 1, 1)) ** (1 / images[0].size)
    return epsilon * radius * direction / norms(direction)


def gradient_direction(logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
    """Returns the cross-entropy's gradient of each image, divided by its Euclidean norm; 0 where the gradient is 0."""

    def loss(images):
        return optax.softmax_cross_entropy_with_integer_labels(logits_fn(images), labels).sum()

    return jax.lax.stop_gradient(unit(jax.grad(loss)(images)))


DIRECTIONS: Mapping[Norm, Callable] = {"linf": gradient_sign, "l2": gradient_direction}
PROJECTIONS: Mapping[Norm, Callable] = {"linf": project_linf, "l2": project_l2}


def _descend(logits_fn, begin, images, labels, epsilon, steps, size, norm, targeted, lower, upper):
    """Takes the steps of one start."""
    signed = -size if targeted else size

    def step(moved, _):
        moved = moved + signed * DIRECTIONS[norm](logits_fn, moved, labels)
        return jax.lax.stop_gradient(PROJECTIONS[norm](moved, images, epsilon, lower, upper)), None

    return jax.lax.scan(step, jax.lax.stop_gradient(begin), length=steps)[0]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PGD(BoundedAttack):
    """The attack on another run's classifier."""

    norm: Norm
    steps: int
    step: float
    restarts: int

    def perturb(self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar) -> Images:
        """Takes the steps."""
        size = self.step * epsilon if self.step else None
        options = dict(steps=self.steps, step_size=size, norm=self.norm, restarts=self.restarts)
        return pgd(key, functools.partial(self.classify, state), images, labels, epsilon, **options)

    def controls(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar
    ) -> dict[str, Images]:
        """Takes one step of the whole length, and a random one."""
        logits_fn = functools.partial(self.classify, state)
        if self.norm == "linf":
            random = random_sign(key, images, epsilon)
            return {"one_step": fgsm(logits_fn, images, labels, epsilon), "random": random}
        random = jax.random.normal(key, images.shape)
        moved = {"one_step": gradient_direction(logits_fn, images, labels), "random": random / norms(random)}
        return {name: project_l2(images + epsilon * way, images, epsilon) for name, way in moved.items()}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        figures = super().score(rows)
        for epsilon in self.epsilons:
            names = (robustness.name_at(self.figure(name), epsilon) for name in ("one_step", "adversarial"))
            one, many = (figures[name] for name in names)
            gain = many - one if self.labels == "seen" else one - many
            figures[robustness.name_at("gain_over_one_step", epsilon)] = gain
        return figures

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the attacked images, and accuracy over epsilon for the images of the batch."""
        epsilons = np.linspace(0, 1.5 * max(self.epsilons), 7)[1:]
        labels = self.labels_of(state, batch)
        found = jax.device_get(self._curves(state, batch["image"], labels, key, jnp.float32(epsilons)))
        curves = {name.replace("_", " "): (epsilons, share) for name, share in found.items()}
        title = f"{number_of(len(labels), 'image')}, {number_of(self.steps, 'step')}"
        measured = "share that keeps its class" if self.labels == "seen" else "accuracy"
        plot = plots.draw_curves(curves, title, f"epsilon ({self.norm})", measured)
        return super().visualise(state, batch, key) | {"robustness": plot}

    @functools.partial(jax.jit, static_argnums=0)
    def _curves(self, state, images, labels, key, epsilons):
        def at(epsilon):
            changed = {"attacked": self.perturb(key, state, images, labels, epsilon)}
            changed |= self.controls(key, state, images, labels, epsilon)
            return {name: (self.classify(state, x).argmax(axis=-1) == labels).mean() for name, x in changed.items()}

        return jax.lax.map(at, epsilons)


def recipe(
    classifier: Network,
    epsilons: tuple[Annotated[float, Range(1e-6)], ...] = (0.1, 0.2),
    norm: Norm = "linf",
    steps: Count = 40,
    step: NonNegative = 0.0,
    restarts: Count = 1,
    labels: Away = "dataset",
) -> Recipe:
    """Makes projected gradient descent on a classifier of another run. Nothing is trained.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      epsilons: largest changes to attack with, of a pixel ("linf") or in Euclidean norm ("l2").
      norm: the ball's.
      steps: gradient steps per start.
      step: length of a step, relative to epsilon; 0: 2.5 / steps.
      restarts: random starts, of which the best counts.
      labels: lead away from the dataset's, or from what the classifier has "seen" in each image as it is, which suits
        images of other classes than the classifier's.

    Returns:
      The recipe. Figures: accuracy of the classifier on the images as they are; robust_accuracy_<epsilon> when they are
      attacked; one_step_accuracy_<epsilon> after a single step of the whole length, and gain_over_one_step_<epsilon>,
      by how much that is higher; random_accuracy_<epsilon> after a random change of the same size. A label that is not
      one of the classifier's classes is an error. With labels "seen", changed_<epsilon>, one_step_changed_<epsilon> and
      random_changed_<epsilon> in their place, the shares of images whose most probable class is another one.

    Raises:
      UserError: no epsilons, or two that share their first three digits.
    """
    return Recipe.of(PGD(classifier, check_sizes("epsilons", epsilons), labels, norm, steps, step, restarts))
