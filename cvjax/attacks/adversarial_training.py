"""Adversarial training: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018.

arXiv:1706.06083, equation 2.1: the parameters minimise the loss on the images that maximise it within the ball, which
projected gradient descent finds at every step. The network is another run's, and training goes on from its parameters;
the run is a classifier that others can borrow and attack.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Key, Shaped

from cvjax import optim
from cvjax.attacks.attack import (
    COLUMNS,
    Attack,
    Images,
    Labels,
    Logits,
    Scalar,
    check_shape,
    check_sizes,
    columns,
)
from cvjax.attacks.pgd import Norm, pgd
from cvjax.core import Batch, Metrics, Network, Pictures, Recipe, State, advance, descend, start, variables
from cvjax.metrics import robustness
from cvjax.nets.borrowed import logits_of
from cvjax.signature import Count, Range, Share


def apply_training(
    key: Key[Array, ""], module: nn.Module, held: Mapping[str, Any], images: Images
) -> tuple[Logits, dict[str, Any]]:
    """Returns the logits of a network that trains, with dropout, and its new batch statistics, {} if it has none."""
    options = {"train": True} if "train" in inspect.signature(type(module).__call__).parameters else {}
    output, new = module.apply(held, images, mutable=["batch_stats"], rngs={"dropout": key}, **options)
    return output[0] if isinstance(output, tuple) else output, new.get("batch_stats", {})


@dataclasses.dataclass(frozen=True)
class AdversarialTraining(Attack):
    """The training of another run's network. The attributes come from `recipe`'s arguments."""

    epsilon: float
    norm: Norm
    steps: int
    clean_share: float
    evaluated: tuple[float, ...]
    evaluation_steps: int
    ema: float
    tx: optax.GradientTransformation
    predict_inputs = ()

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the network, and starts its optimiser."""
        check_shape(batch, self.classifier)
        first = self.classifier.module.init(key, batch["image"])
        averaged = ("classifier",) if self.ema else ()
        return start({"classifier": first}, {"classifier": self.tx.init(first["params"])}, averaged)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Attacks the latest network on a batch, then takes a step down the loss on what was found."""
        attack_key, clean_key, dropout_key = jax.random.split(key, 3)
        images, labels = batch["image"], batch["label"]
        latest = variables(state, "classifier", averaged=False)
        logits_fn = functools.partial(logits_of, self.classifier.module, latest)
        attacked = pgd(attack_key, logits_fn, images, labels, self.epsilon, self.steps, norm=self.norm)
        clean = jax.random.uniform(clean_key, (len(images), 1, 1, 1)) < self.clean_share
        shown = jnp.where(clean, images, attacked)

        def loss_fn(params):
            logits, stats = apply_training(dropout_key, self.classifier.module, {**latest, "params": params}, shown)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (logits, stats)

        held = state.params["classifier"], state.opt["classifier"]
        params, opt, loss, (logits, stats) = descend(self.tx, loss_fn, *held)
        # Of attacked and clean images alike, in their shares.
        metrics = {"loss/cross_entropy": loss, "training_accuracy": (logits.argmax(axis=-1) == labels).mean()}
        after = ({"classifier": value} for value in (params, opt, stats))
        return advance(state, *after, keep=self.ema), metrics

    def attack(self, key: Key[Array, ""], state: State, images: Images, labels: Labels, epsilon: Scalar) -> Images:
        """Attacks the network as it is evaluated."""
        logits_fn = functools.partial(self.classify, state)
        return pgd(key, logits_fn, images, labels, epsilon, self.evaluation_steps, norm=self.norm)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Bool[Array, "batch ..."]]:
        """Finds out which images are classified right: as they are and, at every epsilon, attacked."""
        images, labels = batch["image"], batch["label"]

        def right(epsilon):
            attacked = self.attack(key, state, images, labels, epsilon)
            return self.classify(state, attacked).argmax(axis=-1) == labels

        clean = self.classify(state, images).argmax(axis=-1) == labels
        return {"clean": clean, "attacked": jax.lax.map(right, jnp.array(self.evaluated)).T}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = list(rows)
        self.check_rows(rows)
        found = columns(rows)
        curve = robustness.accuracies("robust_accuracy", found["attacked"], self.evaluated)
        return {"accuracy": float(found["clean"].mean()), **curve}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images, the change by an attack at the epsilon of training, and what the network sees afterwards."""
        images, labels = batch["image"][:COLUMNS], batch["label"][:COLUMNS]
        attacked = self._attack(key, state, images, labels)
        return {"adversarial": self.gallery(state, images, attacked, labels, self.epsilon)}

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Returns the probabilities of the classes, and the most probable one as `label`."""
        probabilities = jax.nn.softmax(self.classify(state, inputs["image"]))
        return {"probability": probabilities, "label": probabilities.argmax(axis=-1)}

    @functools.partial(jax.jit, static_argnums=0)
    def _attack(self, key, state, images, labels):
        return self.attack(key, state, images, labels, self.epsilon)


Epsilon = Annotated[float, Range(1e-6)]


def recipe(
    classifier: Network,
    epsilon: Epsilon = 0.2,
    norm: Norm = "linf",
    steps: Count = 10,
    clean_share: Share = 0.0,
    evaluated: tuple[Epsilon, ...] = (0.1, 0.2),
    evaluation_steps: Count = 40,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes adversarial training of a classifier of another run, which can be borrowed as `classifier` afterwards.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it. Its parameters are the first.
      epsilon: largest change that training defends against, of a pixel ("linf") or in Euclidean norm ("l2").
      norm: the ball's.
      steps: gradient steps of the attack on each batch.
      clean_share: share of the images that are trained on as they are.
      evaluated: epsilons of the attacks that the network is evaluated with.
      evaluation_steps: their gradient steps.
      ema: share of the averaged network, the one that classifies, that each step keeps; 0: none.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: accuracy on the images as they are, and robust_accuracy_<epsilon> when they are attacked.

    Raises:
      UserError: no epsilons to evaluate with, or two that share their first three digits.
    """
    tx = optim.build(optimiser)
    limits = epsilon, norm, steps, clean_share, check_sizes("evaluated", evaluated), evaluation_steps, ema
    return Recipe.of(AdversarialTraining(classifier, *limits, tx))
