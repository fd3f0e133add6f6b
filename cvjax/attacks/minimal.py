"""The smallest changes that reach a class, or leave one, by several methods on the same images and targets.

Szegedy et al., Intriguing Properties of Neural Networks, 2014 (arXiv:1312.6199): success and root mean square of
targeted changes. Carlini & Wagner, 2017 (arXiv:1608.04644). DeepFool: Moosavi-Dezfooli et al., 2016 (arXiv:1511.04599).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, Shaped

from cvjax.attacks import carlini_wagner, deepfool, szegedy
from cvjax.attacks.attack import COLUMNS, Attack, Images, Labels, LogitsFn, columns
from cvjax.attacks.projection import norms
from cvjax.core import Batch, Network, Pictures, Recipe, State
from cvjax.errors import UserError, number_of
from cvjax.metrics import plots, robustness
from cvjax.signature import Count, NonNegative, Positive

# --- methods ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Szegedy:
    """Box-constrained L-BFGS; see `cvjax.attacks.szegedy.szegedy`.

    Attributes:
      steps: of L-BFGS, for each constant.
      search_steps: constants that are tried.
      memory: steps and changes of the gradient that L-BFGS keeps.
      confidence: by how much the target should lead, in logits.
    """

    steps: Count = 40
    search_steps: Count = 10
    memory: Count = 10
    confidence: NonNegative = 1e-3
    targeted: ClassVar = True

    def __call__(self, logits_fn: LogitsFn, images: Images, targets: Labels) -> Images:
        """Returns the nearest images found that are of their targets."""
        options = dict(steps=self.steps, search_steps=self.search_steps, memory=self.memory)
        return szegedy.szegedy(logits_fn, images, targets, confidence=self.confidence, **options)


@dataclasses.dataclass(frozen=True)
class GradientIteration:
    """Steps up the gradient until the target is reached; see `cvjax.attacks.szegedy.gradient_iteration`.

    Attributes:
      steps: at most.
      step_size: length of a step.
      confidence: by how much the target should lead, in logits.
    """

    steps: Count = 200
    step_size: Positive = 0.05
    confidence: NonNegative = 1e-3
    targeted: ClassVar = True

    def __call__(self, logits_fn: LogitsFn, images: Images, targets: Labels) -> Images:
        """Returns images that have been led to their targets."""
        options = dict(steps=self.steps, step_size=self.step_size, confidence=self.confidence)
        return szegedy.gradient_iteration(logits_fn, images, targets, **options)


@dataclasses.dataclass(frozen=True)
class CarliniWagner:
    """Adam on a change of variables; see `cvjax.attacks.carlini_wagner.carlini_wagner`.

    Attributes:
      steps: of Adam, for each constant.
      search_steps: constants that are tried.
      learning_rate: Adam's.
      constant: the first one.
      confidence: by how much the target should lead, in logits.
    """

    steps: Count = 1000
    search_steps: Count = 9
    learning_rate: Positive = 0.01
    constant: Positive = 1e-3
    confidence: NonNegative = 0.0
    targeted: ClassVar = True

    def __call__(self, logits_fn: LogitsFn, images: Images, targets: Labels) -> Images:
        """Returns the nearest images found that are of their targets."""
        return carlini_wagner.carlini_wagner(logits_fn, images, targets, True, **dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class DeepFool:
    """The way to the nearest boundary; see `cvjax.attacks.deepfool.deepfool`.

    Attributes:
      steps: at most.
      candidates: most probable classes whose boundaries are measured.
      overshoot: by which share of the way the boundary is overstepped.
    """

    steps: Count = 50
    candidates: Count = 10
    overshoot: NonNegative = 0.02
    targeted: ClassVar = False

    def __call__(self, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        """Returns images that have left their classes."""
        return deepfool.deepfool(logits_fn, images, labels, **dataclasses.asdict(self))


Method = Literal["szegedy", "gradient_iteration", "carlini_wagner", "deepfool"]


def draw_targets(key: Key[Array, ""], labels: Labels, classes: int) -> Labels:
    """Returns for each label another class, each as probable."""
    return (labels + jax.random.randint(key, labels.shape, 1, classes)) % classes


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Minimal(Attack):
    """The attacks on another run's classifier, with their names."""

    attacks: tuple[tuple[str, Szegedy | GradientIteration | CarliniWagner | DeepFool], ...]
    shows_outputs = True

    @property
    def methods(self) -> dict[str, Szegedy | GradientIteration | CarliniWagner | DeepFool]:
        """The attacks by name."""
        return dict(self.attacks)

    def aims(self, key: Key[Array, ""], state: State, images: Images, labels: Labels) -> dict[str, Labels]:
        """Returns the classes to reach, or to leave, by method: random targets, the same for all, or the labels."""
        classes = jax.eval_shape(self.classify, state, images).shape[-1]
        if classes < 2:
            raise UserError("the classifier has a single class, which no image can leave.")
        targets = draw_targets(key, labels, classes)
        return {name: targets if method.targeted else labels for name, method in self.methods.items()}

    def perturb(self, state: State, images: Images, aims: Mapping[str, Labels]) -> dict[str, Images]:
        """Returns the changed images of each method."""
        logits_fn = functools.partial(self.classify, state)
        return {name: self.methods[name](logits_fn, images, classes) for name, classes in aims.items()}

    def attack(
        self, key: Key[Array, ""], state: State, images: Images, labels: Labels
    ) -> dict[str, tuple[Images, Bool[Array, " batch"]]]:
        """Returns the changed images of each method, and whether they have reached their aim."""
        aims = self.aims(key, state, images, labels)
        found = {}
        for name, changed in self.perturb(state, images, aims).items():
            there = self.classify(state, changed).argmax(axis=-1) == aims[name]
            found[name] = changed, there if self.methods[name].targeted else ~there
        return found

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Attacks a batch: by method, the changed images, whether each reached its aim, and how far it is.

        Also whether each image is right as it is.
        """
        images, labels = batch["image"], batch["label"]
        found = {"clean": self.classify(state, images).argmax(axis=-1) == labels}
        found["pixels"] = jnp.full(len(images), images[0].size)
        for name, (changed, there) in self.attack(key, state, images, labels).items():
            found |= {f"{name}/fooled": there, f"{name}/norm": norms(changed - images).reshape(-1)}
            found[f"{name}/image"] = changed
        return found

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = [(batch, {n: value for n, value in found.items() if not n.endswith("/image")}) for batch, found in rows]
        self.check_rows(rows)
        found = columns(rows)
        figures, pixels = {"accuracy": float(found["clean"].mean())}, int(found["pixels"][0])
        for name in self.methods:
            counted = found["clean"]  # others have left their class already
            measured = (found[f"{name}/{kind}"][counted] for kind in ("fooled", "norm"))
            figures |= robustness.perturbation_figures(name, *measured, pixels)
        if {"szegedy", "carlini_wagner"} <= set(self.methods) and figures["rms/carlini_wagner"] > 0:
            figures["rms_over_carlini_wagner"] = figures["rms/szegedy"] / figures["rms/carlini_wagner"]
        return figures

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""], outputs: Batch) -> Pictures:
        """Draws attacked images of each method, and the share of the batch that is further away than a distance."""
        images, labels = batch["image"], batch["label"]
        pictures, distances = {}, {}
        for name in self.methods:
            few = images[:COLUMNS], outputs[f"{name}/image"][:COLUMNS], labels[:COLUMNS]
            size = float(jnp.abs(few[1] - few[0]).max())
            pictures[f"adversarial/{name}"] = self.gallery(state, *few, size)
            there, norm = (np.asarray(outputs[f"{name}/{kind}"]) for kind in ("fooled", "norm"))
            distances[name] = np.where(there, norm, np.inf)
        known = np.concatenate([each[np.isfinite(each) & (each > 0)] for each in distances.values()])
        epsilons = np.geomspace(known.min(initial=1) / 2, known.max(initial=1e-3) * 1.1, 30)
        curves = {
            name.replace("_", " "): (epsilons, robustness.accuracy_curve(each, epsilons))
            for name, each in distances.items()
        }
        axes = "Euclidean norm of the change", "share of the images that are further away"
        return pictures | {"robustness": plots.draw_curves(curves, number_of(len(images), "image"), *axes)}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Attacks images by the first method: towards their labels if it is targeted, or away from them.

        Without labels the targets are random, and what is left is what the classifier sees. Returns the adversarial
        `image`, what it is classified as, `label` and `probability`, the `clean_label`, and the `norm` of the change.
        """
        images, name = inputs["image"], next(iter(self.methods))
        clean, _ = self.decide(state, images)
        aims = inputs.get("label") if "label" in inputs else self.aims(key, state, images, clean)[name]
        image = self._perturb(state, images, {name: aims})[name]
        label, probability = self.decide(state, image)
        distance = norms(image - images).reshape(-1)
        return {"image": image, "label": label, "probability": probability, "clean_label": clean, "norm": distance}

    @functools.partial(jax.jit, static_argnums=0)
    def _perturb(self, state, images, aims):
        return self.perturb(state, images, aims)


def recipe(
    classifier: Network,
    methods: tuple[Method, ...] = ("szegedy", "carlini_wagner", "deepfool", "gradient_iteration"),
    szegedy: Szegedy = Szegedy(),
    carlini_wagner: CarliniWagner = CarliniWagner(),
    deepfool: DeepFool = DeepFool(),
    gradient_iteration: GradientIteration = GradientIteration(),
) -> Recipe:
    """Makes attacks on a classifier of another run that change an image as little as they can. Nothing is trained.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      methods: which attacks, each on the same images; the first one is applied to one's own pictures. All but
        "deepfool" lead to a target, a random other class.
      szegedy: of L-BFGS in the box: steps, search_steps, memory, confidence.
      carlini_wagner: of the attack of that name: steps, search_steps, learning_rate, constant, confidence.
      deepfool: of the attack of that name: steps, candidates, overshoot.
      gradient_iteration: of the plain iteration: steps, step_size, confidence.

    Returns:
      The recipe. Figures: accuracy of the classifier on the images as they are and, of those that are right,
      success/<method>, the share that reached the target or left its class; rms/<method>, the root mean square of the
      successful changes; norm/<method>, the median Euclidean norm; rms_over_carlini_wagner, that of L-BFGS over that of
      Carlini and Wagner's. A label that is not one of the classifier's classes is an error.

    Raises:
      UserError: no methods, or one twice.
    """
    known = dict(
        szegedy=szegedy, carlini_wagner=carlini_wagner, deepfool=deepfool, gradient_iteration=gradient_iteration
    )
    if not methods or len(set(methods)) < len(methods):
        raise UserError(f"config.recipe.methods={tuple(methods)}: name each method once, of {', '.join(known)}.")
    return Recipe.of(Minimal(classifier, tuple((name, known[name]) for name in methods)))
