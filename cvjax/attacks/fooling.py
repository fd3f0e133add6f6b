"""Fooling images: Nguyen, Yosinski & Clune, Deep Neural Networks are Easily Fooled, 2015 (arXiv:1412.1897).

Images that mean nothing to people and of which a classifier is sure, one for each class, evolved by MAP-Elites (Mouret
& Clune, Illuminating Search Spaces by Mapping Elites, 2015; arXiv:1504.04909): an offspring replaces the champion of
every class of which the classifier is surer than before. Images are encoded pixel by pixel ("direct") or as networks
that draw them ("cppn"). A generation of all classes is one step of a compiled loop.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from cvjax.attacks import cppn as networks
from cvjax.attacks.attack import COLUMNS, Attack, Images, LogitsFn, Scalar, columns
from cvjax.attacks.cppn import CPPN, INPUTS
from cvjax.core import Batch, Metrics, Network, Pictures, Recipe, State, advance
from cvjax.errors import UserError
from cvjax.metrics import plots
from cvjax.ops.precision import at_least_float32
from cvjax.signature import Count, Positive, Share

SHOWN = 50  # classes that are drawn

# --- encodings ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How images are written down, drawn and changed; a genome is a pytree of arrays.

    Attributes:
      begin: key -> a random genome.
      mutate: (key, genome, generation) -> a changed copy.
      express: genome -> its image, [height, width, channels] in [0, 1].
    """

    begin: Callable[[Array], PyTree]
    mutate: Callable[[Array, PyTree, Array], PyTree]
    express: Callable[[PyTree], Array]


@dataclasses.dataclass(frozen=True)
class Direct:
    """The direct encoding's mutation.

    Attributes:
      rate: probability that a pixel changes.
      halved: generations after which the rate is half of what it was, again and again.
      strength: index of polynomial mutation; the larger, the smaller the changes.
    """

    rate: Share = 0.1
    halved: Count = 1000
    strength: Positive = 15.0


def polynomial_mutation(
    key: Key[Array, ""],
    values: Float[Array, "*shape"],
    rate: Scalar,
    strength: float = 15.0,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Float[Array, "*shape"]:
    """Returns values, each changed with a probability by a share of [lower, upper], and clipped to it.

    The density of the share d is proportional to (1 - |d|)^strength: Deb, Multi-Objective Optimization Using
    Evolutionary Algorithms, 2001, section 4.3.

    Args:
      rate: the probability.
      strength: its index (eta).
    """
    toss_key, share_key = jax.random.split(key)
    chosen = jax.random.uniform(toss_key, values.shape) < rate
    u = jax.random.uniform(share_key, values.shape)
    power = 1 / (strength + 1)
    share = jnp.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    return jnp.clip(jnp.where(chosen, values + share * (upper - lower), values), lower, upper)


def direct_encoding(shape: tuple[int, int, int], settings: Direct) -> Encoding:
    """Returns the encoding in which a genome is an image, at first of uniform noise."""

    def mutate(key, genome, generation):
        rate = settings.rate * 0.5 ** (generation // settings.halved)
        return polynomial_mutation(key, genome, rate, settings.strength)

    return Encoding(lambda key: jax.random.uniform(key, shape), mutate, lambda genome: genome)


def cppn_encoding(shape: tuple[int, int, int], settings: CPPN) -> Encoding:
    """Returns the encoding in which a genome is a network that draws an image; see `cvjax.attacks.cppn`."""
    height, width, channels = shape
    return Encoding(
        lambda key: networks.begin(key, settings, channels),
        lambda key, genome, generation: networks.mutate(key, genome, settings, channels),
        lambda genome: networks.express(genome, height, width, channels),
    )


# --- MAP-Elites ---------------------------------------------------------------------------------------------------

Archive = dict[str, PyTree]  # genomes, with a first axis of classes; confidences, one per class; generation, a number


def confidences_of(logits_fn: LogitsFn, encoding: Encoding, genomes: PyTree) -> Float[Array, "genomes classes"]:
    """Returns the probability of each class for the image of each genome."""
    return jax.nn.softmax(at_least_float32(logits_fn(jax.vmap(encoding.express)(genomes))))


def new_archive(key: Key[Array, ""], encoding: Encoding, classes: int) -> Archive:
    """Returns a random genome for each class, of which the classifier is not sure at all: any offspring is better."""
    genomes = jax.vmap(encoding.begin)(jax.random.split(key, classes))
    return {"genomes": genomes, "confidences": jnp.zeros(classes), "generation": jnp.int32(0)}


def generation(
    key: Key[Array, ""], logits_fn: LogitsFn, encoding: Encoding, archive: Archive, offspring: int
) -> Archive:
    """Returns the archive after one generation: random champions, changed, replace those of which they are better.

    Args:
      offspring: number of them.
    """
    parent_key, mutation_key = jax.random.split(key)
    parents = jax.random.randint(parent_key, (offspring,), 0, len(archive["confidences"]))
    genomes = jax.tree.map(lambda leaf: leaf[parents], archive["genomes"])
    keys = jax.random.split(mutation_key, offspring)
    genomes = jax.vmap(encoding.mutate, in_axes=(0, 0, None))(keys, genomes, archive["generation"])
    confidences = confidences_of(logits_fn, encoding, genomes)
    best, surest = confidences.argmax(axis=0), confidences.max(axis=0)
    better = surest > archive["confidences"]

    def replace(champions, leaf):
        return jnp.where(better.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[best], champions)

    return {
        "genomes": jax.tree.map(replace, archive["genomes"], genomes),
        "confidences": jnp.where(better, surest, archive["confidences"]),
        "generation": archive["generation"] + 1,
    }


def evolve(
    key: Key[Array, ""],
    logits_fn: LogitsFn,
    encoding: Encoding,
    archive: Archive,
    generations: int = 200,
    offspring: int = 400,
) -> tuple[Archive, Float[Array, "generations classes"]]:
    """Evolves fooling images of all classes in one compiled loop.

    Args:
      archive: where to begin, such as `new_archive`.
      offspring: of each generation.

    Returns:
      The archive, and the confidences after each generation.
    """

    def step(archive, key):
        archive = generation(key, logits_fn, encoding, archive, offspring)
        return archive, archive["confidences"]

    return jax.lax.scan(step, archive, jax.random.split(key, generations))


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fooling(Attack):
    """The evolution against another run's classifier; a training step is some of its generations."""

    encoding: Encoding
    generations: int
    offspring: int
    predict_inputs = ()
    sample_inputs = ("label",)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the classifier, and an archive of random genomes."""
        network_key, archive_key = jax.random.split(key)
        state = super().init(network_key, batch)
        classes = jax.eval_shape(self.classify, state, batch["image"]).shape[-1]
        return state.replace(extra={"archive": new_archive(archive_key, self.encoding, classes)})

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Evolves the archive by some generations; the batch plays no part."""
        sizes = self.generations, self.offspring
        logits_fn = functools.partial(self.classify, state)
        archive, _ = evolve(key, logits_fn, self.encoding, state.extra["archive"], *sizes)
        sure = archive["confidences"]
        metrics = {"mean": sure.mean(), "median": jnp.median(sure), "smallest": sure.min()}
        return advance(state, {}, {}, extra={"archive": archive}), {f"confidence/{k}": v for k, v in metrics.items()}

    def express(self, state: State) -> Images:
        """Draws the champion of each class."""
        return jax.vmap(self.encoding.express)(state.extra["archive"]["genomes"])

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Looks at real images; all rows hold the champions' confidences too, 0 before the first generation."""
        logits, sure = self.classify(state, batch["image"]), state.extra["archive"]["confidences"]
        return {
            "right": logits.argmax(axis=-1) == batch["label"],
            "confidence": jax.nn.softmax(at_least_float32(logits)).max(axis=-1),
            "fooling": jnp.broadcast_to(sure, (len(logits), len(sure))),
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = list(rows)
        self.check_rows(rows)
        found = columns(rows)
        sure = found["fooling"][0]
        return {
            "accuracy": float(found["right"].mean()),
            "real_confidence": float(found["confidence"].mean()),
            "fooling_confidence": float(sure.mean()),
            "fooling_confidence_median": float(np.median(sure)),
            "fooling_confidence_smallest": float(sure.min()),
        }

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the champions with what the classifier sees in them."""
        images = self._express(state)[:SHOWN]
        labels, sure = jax.device_get(self.decide(state, images))
        texts = self.captions(labels, sure)
        return {"fooling": plots.draw_gallery(np.asarray(images), texts, COLUMNS, labels != np.arange(len(labels)))}

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Returns the champions of the labels or, without them, of the classes in turn."""
        images = self._express(state)
        turn = jnp.arange(inputs["count"]) % len(images)
        return {"image": images[inputs.get("label", turn)]}

    @functools.partial(jax.jit, static_argnums=0)
    def _express(self, state):
        return self.express(state)


def recipe(
    classifier: Network,
    encoding: Literal["direct", "cppn"] = "direct",
    generations: Count = 1,
    offspring: Count = 400,
    direct: Direct = Direct(),
    cppn: CPPN = networks.USUAL,
) -> Recipe:
    """Makes the evolution of images that fool a classifier of another run.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      encoding: of an image: its pixels, or a network that draws it.
      generations: of each training step.
      offspring: of each generation.
      direct: how pixels change: rate, halved, strength.
      cppn: how networks change: capacity, and the probabilities of each change.

    Returns:
      The recipe. It samples the champion of each class. Figures: fooling_confidence, the mean over the classes of the
      probability of each for its champion, with _median and _smallest; real_confidence, the mean probability that the
      classifier gives the class that it sees in real images; accuracy on them.

    Raises:
      UserError: no room for a hidden node, or images that are neither grey nor RGB, with `cppn`.
    """
    channels = classifier.shape[-1]
    if encoding == "direct":
        made = direct_encoding(classifier.shape, direct)
    elif channels not in (1, 3):
        raise UserError(f"config.recipe.encoding='cppn': draws grey or RGB images, not {channels} channels.")
    elif cppn.capacity <= INPUTS + channels:
        least = INPUTS + channels + 1
        raise UserError(f"config.recipe.cppn.capacity={cppn.capacity}: at least {least}, for a hidden node.")
    else:
        made = cppn_encoding(classifier.shape, cppn)
    return Recipe.of(Fooling(classifier, made, generations, offspring))
