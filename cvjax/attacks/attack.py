"""What attacks on another run's classifier share: what it says, and figures over the size of a change.

Robust accuracy over epsilon: Carlini et al., On Evaluating Adversarial Robustness, 2019 (arXiv:1902.06705).
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, Shaped

from cvjax.core import Batch, Network, Pictures, State
from cvjax.errors import UserError
from cvjax.metrics import plots, robustness
from cvjax.nets.borrowed import BorrowedClassifier, Images, Logits
from cvjax.ops.drawing import label_text

Labels = Integer[Array, " batch"]
LogitsFn = Callable[[Images], Logits]  # an image's logits do not depend on the other images
Scalar = float | Float[Array, ""]
COLUMNS = 10  # images that are drawn
Away = Literal["dataset", "seen"]


def lead(logits: Logits, labels: Labels) -> Float[Array, " batch"]:
    """Returns by how much the logit of each label leads those of all other classes; negative if another one leads."""
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = jnp.where(own, -jnp.inf, logits).max(axis=-1)
    return jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0] - others


def fooled(logits: Logits, labels: Labels, targeted: bool, confidence: float = 0.0) -> Bool[Array, " batch"]:
    """Returns whether an attack has reached its aim: a class other than the label or, if targeted, the label.

    A positive `confidence` asks that the wanted class lead the others by more than that, in logits.
    """
    margin = lead(logits, labels)
    return (margin if targeted else -margin) > confidence


def check_shape(batch: Batch, classifier: Network) -> None:
    """Raises a UserError if images do not have the shape that a classifier was trained on."""
    if batch["image"].shape[1:] != classifier.shape:
        raise UserError(
            f"the images are {batch['image'].shape[1:]}, but the classifier was trained on "
            f"{classifier.shape}: resize them by data.transforms and data.eval_transforms."
        )


def check_sizes(argument: str, sizes: Sequence[float]) -> tuple[float, ...]:
    """Returns the sizes of a recipe's argument; raises a UserError if there are none or figures would share a name."""
    sizes = tuple(sizes)
    if not sizes:
        raise UserError(f"config.recipe.{argument}=(): name at least one size, such as (0.1, 0.2).")
    names = [robustness.name_at("", size) for size in sizes]
    same = tuple(size for size, name in zip(sizes, names, strict=True) if names.count(name) > 1)
    if same:
        raise UserError(
            f"config.recipe.{argument}={sizes}: figures have names of three digits, which are the same for {same}; "
            "name sizes that differ in them."
        )
    return sizes


def columns(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, Shaped[np.ndarray, "examples ..."]]:
    """Returns the rows of all batches of an evaluation, joined by name."""
    outputs = [row for _, row in rows]
    return {name: np.concatenate([row[name] for row in outputs]) for name in outputs[0]}


@dataclasses.dataclass(frozen=True)
class Attack(BorrowedClassifier, abc.ABC):
    """Base of the attacks on another run's classifier. The attributes are the arguments of `recipe`."""

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the classifier."""
        check_shape(batch, self.classifier)
        return self.hold(key, batch["image"])

    def check_rows(self, rows: Iterable[tuple[Mapping, Mapping]]) -> None:
        """Raises a UserError if the label of an image is not one of the classifier's classes."""
        self.check_labels(np.concatenate([batch["label"] for batch, _ in rows]))

    def captions(self, labels: Integer[np.ndarray, " n"], probabilities: Float[np.ndarray, " n"]) -> list[str]:
        """Returns what the classifier sees in images, and how sure it is."""
        names = self.classifier.classes
        named = [label_text(int(label), names) for label in labels]
        return [f"{name} {100 * share:.0f} %" for name, share in zip(named, probabilities, strict=True)]

    def gallery(
        self, state: State, images: Images, attacked: Images, labels: Labels, size: float
    ) -> Float[np.ndarray, "rows columns 3"]:
        """Draws images, their changes and the attacked images in three rows, with what the classifier sees in them.

        It is red where that is not their label. Changes of `size` are drawn black or white.
        """
        (clean, *seen), (adversarial, *found) = (
            jax.device_get((some, *self.decide(state, some))) for some in (images, attacked)
        )
        change = 0.5 + (adversarial - clean) / (2 * max(size, 1e-9))
        texts = [*self.captions(*seen), *[""] * len(clean), *self.captions(*found)]
        same = np.zeros(len(clean), bool)
        wrong = np.concatenate([seen[0] != np.asarray(labels), same, found[0] != np.asarray(labels)])
        return plots.draw_gallery(np.concatenate([clean, change, adversarial]), texts, len(clean), wrong)

    @functools.partial(jax.jit, static_argnums=0)
    def decide(self, state: State, images: Images) -> tuple[Labels, Float[Array, " batch"]]:
        """Returns the most probable class of each image, and its probability."""
        probabilities = jax.nn.softmax(self.classify(state, images))
        return probabilities.argmax(axis=-1), probabilities.max(axis=-1)


@dataclasses.dataclass(frozen=True)
class BoundedAttack(Attack):
    """Base of the attacks within a distance `epsilons` of an image, which add `perturb` and `controls`."""

    epsilons: tuple[float, ...]
    labels: Away

    @abc.abstractmethod
    def perturb(self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar) -> Images:
        """Makes adversarial examples of images at one epsilon."""

    @abc.abstractmethod
    def controls(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar
    ) -> dict[str, Images]:
        """Makes images that are changed as much by something weaker, by name."""

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Bool[Array, "batch ..."]]:
        """Finds out which images are classified right: as they are and, at every epsilon, attacked and by controls."""
        images, labels = batch["image"], self.labels_of(state, batch)

        def right(images):
            return self.classify(state, images).argmax(axis=-1) == labels

        def at(epsilon):
            changed = {"adversarial": self.perturb(key, state, images, labels, epsilon)}
            changed |= self.controls(key, state, images, labels, epsilon)
            return {name: right(images) for name, images in changed.items()}

        found = jax.lax.map(at, jnp.array(self.epsilons))
        return {"clean": right(images)} | {name: rows.T for name, rows in found.items()}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows, figures = list(rows), {}
        found = columns(rows)
        clean, seen = found.pop("clean"), self.labels == "seen"
        if not seen:
            self.check_rows(rows)
            figures["accuracy"] = float(clean.mean())
        for name, right in found.items():
            figures |= robustness.accuracies(self.figure(name), ~right if seen else right, self.epsilons)
        return figures

    def figure(self, name: str) -> str:
        """Returns the name of a figure of the attack, "adversarial", or of a control."""
        if self.labels == "seen":
            return "changed" if name == "adversarial" else f"{name}_changed"
        return "robust_accuracy" if name == "adversarial" else f"{name}_accuracy"

    def labels_of(self, state: State, batch: Batch) -> Labels:
        """Returns what images are attacked away from: their labels, or what the classifier sees in them."""
        return batch["label"] if self.labels == "dataset" else self.decide(state, batch["image"])[0]

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images, their changes and the adversarial examples in three rows, a picture per epsilon."""
        some = {name: batch[name][:COLUMNS] for name in ("image", "label") if name in batch}
        images, labels = some["image"], self.labels_of(state, some)
        pictures = {}
        for epsilon in self.epsilons:
            attacked = self._perturb(key, state, images, labels, epsilon)
            name = robustness.name_at("adversarial", epsilon)
            pictures[name] = self.gallery(state, images, attacked, labels, epsilon)
        return pictures

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Attacks images at the largest epsilon, away from their labels, or from what the classifier sees in them.

        Returns the adversarial `image`, what it is classified as, `label` and `probability`, and the `clean_label`.
        """
        clean, _ = self.decide(state, inputs["image"])
        image = self._perturb(key, state, inputs["image"], inputs.get("label", clean), max(self.epsilons))
        label, probability = self.decide(state, image)
        return {"image": image, "label": label, "probability": probability, "clean_label": clean}

    @functools.partial(jax.jit, static_argnums=0)
    def _perturb(self, key, state, images, labels, epsilon):
        return self.perturb(key, state, images, labels, epsilon)
