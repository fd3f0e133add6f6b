"""The fast gradient sign method: Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015.

arXiv:1412.6572, section 4. The control is noise of the same length, to which a fooled classifier may still be robust.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Integer, Key, Shaped

from cvjax.core import Batch, Network, Pictures, Recipe, State, start, variables
from cvjax.errors import UserError
from cvjax.metrics import classification, plots
from cvjax.ops.drawing import label_text
from cvjax.signature import Range

Images = Float[Array, "batch height width channels"]
Labels = Integer[Array, " batch"]
Logits = Float[Array, "batch classes"]
COLUMNS = 10  # images that are drawn

# --- attacks ------------------------------------------------------------------------------------------------------


def gradient_sign(logits_fn: Callable[[Images], Logits], images: Images, labels: Labels) -> Images:
    """Returns the sign of the cross-entropy's gradient in each pixel: -1, 0 or 1.

    It counts as constant where it is differentiated through. An image's logits may not depend on the other images.
    """

    def loss(images):
        return optax.softmax_cross_entropy_with_integer_labels(logits_fn(images), labels).sum()

    return jax.lax.stop_gradient(jnp.sign(jax.grad(loss)(images)))


def fgsm(
    logits_fn: Callable[[Images], Logits],
    images: Images,
    labels: Labels,
    epsilon: float | Float[Array, ""],
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
    return jnp.clip(images + (-epsilon if targeted else epsilon) * direction, lower, upper)


def random_sign(
    key: Key[Array, ""],
    images: Images,
    epsilon: float | Float[Array, ""],
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images with each pixel changed by epsilon up or down at random, then clipped: the control of `fgsm`."""
    return jnp.clip(images + epsilon * jax.random.rademacher(key, images.shape, images.dtype), lower, upper)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FGSM:
    """The attack on another run's classifier. The attributes are the arguments of `recipe`."""

    classifier: Network
    epsilons: tuple[float, ...]
    train_step = None
    predict_inputs = ("label",)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The classifier that is attacked."""
        return {"classifier": self.classifier.module}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the classifier."""
        if batch["image"].shape[1:] != self.classifier.shape:
            raise UserError(
                f"the images are {batch['image'].shape[1:]}, but the classifier was trained on "
                f"{self.classifier.shape}: resize them by data.transforms and data.eval_transforms."
            )
        return start({}, {}, frozen={"classifier": self.classifier.module.init(key, batch["image"])})

    def classify(self, state: State, images: Images) -> Logits:
        """Returns the classifier's logits."""
        output = self.classifier.module.apply(variables(state, "classifier"), images)
        return output[0] if isinstance(output, tuple) else output

    def attack(
        self, state: State, images: Images, labels: Labels
    ) -> Float[Array, "epsilons batch height width channels"]:
        """Makes adversarial examples of images at every epsilon."""
        logits_fn = functools.partial(self.classify, state)
        return jax.vmap(lambda epsilon: fgsm(logits_fn, images, labels, epsilon))(jnp.array(self.epsilons))

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Bool[Array, "batch ..."]]:
        """Finds out which images are classified right: as they are and, at every epsilon, attacked and with noise."""
        images, labels = batch["image"], batch["label"]
        noisy = jax.vmap(lambda epsilon: random_sign(key, images, epsilon))(jnp.array(self.epsilons))
        right = jax.vmap(lambda images: self.classify(state, images).argmax(axis=-1) == labels)
        return {
            "clean": right(images[None])[0],
            "adversarial": right(self.attack(state, images, labels)).T,
            "random_sign": right(noisy).T,
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = list(rows)
        if self.classifier.classes:
            labels = np.concatenate([batch["label"] for batch, _ in rows])
            classification.check_labels(labels, len(self.classifier.classes))
        rows = [outputs for _, outputs in rows]
        shares = {name: np.concatenate([outputs[name] for outputs in rows]).mean(axis=0) for name in rows[0]}
        figures = {"accuracy": float(shares["clean"])}
        for index, epsilon in enumerate(self.epsilons):
            figures[name_at("robust_accuracy", epsilon)] = float(shares["adversarial"][index])
            figures[name_at("random_sign_accuracy", epsilon)] = float(shares["random_sign"][index])
        return figures

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images, their changes and the adversarial examples in three rows, a picture an epsilon."""
        images, labels = batch["image"][:COLUMNS], np.asarray(batch["label"][:COLUMNS])
        attacked = self._attack(state, images, labels)
        clean, *fooled = (jax.device_get((some, *self._predict(state, some))) for some in (images, *attacked))
        pictures = {}
        for epsilon, adversarial in zip(self.epsilons, fooled, strict=True):
            change = 0.5 + (adversarial[0] - clean[0]) / (2 * epsilon)
            rows = np.concatenate([clean[0], change, adversarial[0]])
            captions = [*self._captions(*clean[1:]), *[""] * len(labels), *self._captions(*adversarial[1:])]
            wrong = np.concatenate([clean[1] != labels, np.zeros(len(labels), bool), adversarial[1] != labels])
            pictures[name_at("adversarial", epsilon)] = plots.draw_gallery(rows, captions, len(labels), wrong)
        return pictures

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Attacks images at the largest epsilon, away from their labels, or from what the classifier sees in them.

        Returns the adversarial `image`, what it is classified as, `label` and `probability`, and the `clean_label`.
        """
        clean, _ = self._predict(state, inputs["image"])
        image = self._attack(state, inputs["image"], inputs.get("label", clean))[np.argmax(self.epsilons)]
        label, probability = self._predict(state, image)
        return {"image": image, "label": label, "probability": probability, "clean_label": clean}

    def _captions(self, labels: np.ndarray, probabilities: np.ndarray) -> list[str]:
        names = self.classifier.classes
        named = [label_text(int(label), names) for label in labels]
        return [f"{name} {100 * share:.0f} %" for name, share in zip(named, probabilities, strict=True)]

    @functools.partial(jax.jit, static_argnums=0)
    def _attack(self, state, images, labels):
        return self.attack(state, images, labels)

    @functools.partial(jax.jit, static_argnums=0)
    def _predict(self, state, images):
        probabilities = jax.nn.softmax(self.classify(state, images))
        return probabilities.argmax(axis=-1), probabilities.max(axis=-1)


def name_at(figure: str, epsilon: float) -> str:
    """Returns the name of a figure at an epsilon: "robust_accuracy_0_1" at 0.1, as keys of configs have no dots."""
    return f"{figure}_{epsilon:.3g}".replace(".", "_")


def recipe(classifier: Network, epsilons: tuple[Annotated[float, Range(1e-6, 1)], ...] = (0.1, 0.2)) -> Recipe:
    """Makes the attack on a classifier of another run. Nothing is trained.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      epsilons: largest changes of a pixel to attack with.

    Returns:
      The recipe. Figures: accuracy of the classifier on the images as they are, robust_accuracy_<epsilon> when
      they are attacked, and random_sign_accuracy_<epsilon> when each pixel is changed as much at random. A label
      that is not one of the classifier's classes is an error.
    """
    return Recipe.of(FGSM(classifier, tuple(epsilons)))
