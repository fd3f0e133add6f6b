"""Maps of what a classifier looks at, measured beside controls that know nothing of it.

Deletion and insertion: Petsiuk et al., RISE, 2018 (arXiv:1806.07421). The pointing game: Zhang et al., Top-down Neural
Attention by Excitation Backprop, 2016 (arXiv:1608.00507). The methods are in `cvjax.interpret.maps`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, Shaped

from cvjax.core import Batch, Network, Pictures, Recipe, State, variables
from cvjax.errors import UserError
from cvjax.interpret import maps
from cvjax.interpret.maps import Classifier
from cvjax.interpret.saliency import STEPS
from cvjax.metrics import attribution, plots
from cvjax.nets.borrowed import BorrowedClassifier, takes
from cvjax.ops.drawing import label_text
from cvjax.ops.palettes import heat
from cvjax.signature import Count, Natural, Share

Images = Float[Array, "batch height width channels"]
Maps = Float[Array, "batch height width"]
Method = Literal[
    "gradcam", "saliency", "input_x_gradient", "guided", "deconvnet", "smoothgrad", "integrated", "occlusion"
]
METHODS: tuple[Method, ...] = ("gradcam", "saliency", "guided", "deconvnet", "smoothgrad", "integrated", "occlusion")
CONTROLS = ("random", "edges")
ROWS = 6  # images that are drawn
ASKED = 2  # objects in the scenes of the pointing game


@dataclasses.dataclass(frozen=True)
class Questions:
    """Which classes are explained in which images, flattened: one row for each question.

    Attributes:
      counted: whether the question counts; of images that cannot be asked about, it does not.
      boxes: where the object of that class is, or None.
    """

    images: Images
    labels: Integer[Array, " batch"]
    counted: Bool[Array, " batch"]
    boxes: Float[Array, "batch 4"] | None = None

    @classmethod
    def of(cls, batch: Batch) -> "Questions":
        """Asks for the labels of images, or for both objects of the scenes with two of different classes."""
        labels, counted = _asked_labels(batch)
        if "label" in batch:
            return cls(jnp.asarray(batch["image"]), labels, counted)
        boxes = jnp.asarray(batch["boxes"])[:, :ASKED].reshape(-1, 4)
        return cls(jnp.repeat(jnp.asarray(batch["image"]), ASKED, axis=0), labels, counted, boxes)


def _asked_labels(batch: Batch) -> tuple[Integer[Array, " questions"], Bool[Array, " questions"]]:
    if "label" in batch:
        labels = jnp.asarray(batch["label"])
        return jnp.maximum(labels, 0), labels >= 0
    labels = jnp.asarray(batch["labels"])[:, :ASKED]
    pairs = (batch["mask"].sum(axis=1) == ASKED) & (labels[:, 0] != labels[:, 1])
    return labels.reshape(-1), jnp.repeat(pairs, ASKED)


@dataclasses.dataclass(frozen=True)
class Attribution(BorrowedClassifier):
    """The maps of another run's classifier. The attributes are the arguments of `recipe`."""

    methods: tuple[Method, ...]
    layer: str
    points: int
    samples: int
    window: int
    tolerance: float

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes room for the classifier, and another one whose weights stay random."""
        check(self.classifier, batch)
        state, other = (self.hold(one, batch["image"]) for one in jax.random.split(key))
        maps.find_layer(self.classifier.module, variables(state, "classifier"), batch["image"], self.layer)
        return state.replace(extra={"random": variables(other, "classifier")})

    def explain(self, key: Key[Array, ""], explained: Classifier, method: str, asked: Questions) -> Images | Maps:
        """Returns what a method finds for questions."""
        window = self.window or max(2, min(asked.images.shape[1:3]) // 8)
        options = {
            "gradcam": dict(layer=self.layer),
            "smoothgrad": dict(samples=self.samples),
            "integrated": dict(steps=self.samples),
            "occlusion": dict(window=window, stride=max(1, window // 2), baseline=0.5),
        }
        return maps.attribute(key, method, explained, asked.images, asked.labels, **options.get(method, {}))

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Shaped[Array, "batch ..."]]:
        """Returns the measures of every method and control for each question of an image."""
        asked, module = Questions.of(batch), self.classifier.module
        held = variables(state, "classifier")
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), held, state.extra["random"])
        rows, found = {"counted": asked.counted}, {}
        of_random, *keys = jax.random.split(key, 1 + len(self.methods))
        for each, method in zip(keys, self.methods, strict=True):
            # One compiled function serves both classifiers, with the same noise.
            attributed = jax.lax.map(functools.partial(self._explain_by, each, method, asked), both)
            for name, reduce in {"randomised": maps.strength, "signed_randomised": maps.with_sign}.items():
                pair = jax.vmap(reduce)(attributed)
                rows[f"{name}_correlation/{method}"] = attribution.rank_correlation(*pair)
            found[method] = maps.strength(attributed[0])
            if asked.boxes is not None:
                near = self.tolerance * max(asked.images.shape[1:3])
                rows[f"pointing/{method}"] = attribution.points_inside(found[method], asked.boxes, near)
                rows[f"pointing_exactly/{method}"] = attribution.points_inside(found[method], asked.boxes)
                rows[f"mass/{method}"] = attribution.mass_inside(found[method], asked.boxes)
        found |= {"random": jax.random.uniform(of_random, asked.images.shape[:3]), "edges": maps.edges(asked.images)}
        explained = Classifier(module, held)

        def probability(images: Images) -> Float[Array, " batch"]:
            shares = jax.nn.softmax(explained.logits(images))
            return jnp.take_along_axis(shares, asked.labels[:, None], axis=1)[:, 0]

        mean = jnp.broadcast_to(asked.images.mean(axis=(1, 2), keepdims=True), asked.images.shape)
        for name, measure in {"deletion": attribution.deletion, "insertion": attribution.insertion}.items():
            area = functools.partial(measure, probability, asked.images, baseline=mean, steps=self.points)
            areas = jax.lax.map(lambda one, area=area: area(maps=one), jnp.stack([*found.values()]))
            rows |= {f"{name}/{method}": row for method, row in zip(found, areas, strict=True)}
        rows["asked_probability"] = probability(asked.images)
        return {name: row.reshape(len(batch["image"]), -1) for name, row in rows.items()}

    def _explain_by(self, key, method, asked, held):
        return self.explain(key, Classifier(self.classifier.module, held), method, asked)

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = list(rows)
        asked = [map(np.asarray, _asked_labels(batch)) for batch, _ in rows]
        self.check_labels(np.concatenate([labels[counted] for labels, counted in asked]))
        joined = {name: np.concatenate([outputs[name] for _, outputs in rows]) for name in rows[0][1]}
        counted = joined.pop("counted")
        if not counted.any():
            raise UserError("no image can be asked about: the pointing game takes scenes of two objects that differ.")
        figures = {name: float(values[counted].mean()) for name, values in joined.items()}
        for method in self.methods:
            lowest = min(figures[f"deletion/{control}"] for control in CONTROLS)
            highest = max(figures[f"insertion/{control}"] for control in CONTROLS)
            figures[f"deletion_gain/{method}"] = lowest - figures[f"deletion/{method}"]
            figures[f"insertion_gain/{method}"] = figures[f"insertion/{method}"] - highest
        return {"questions": float(counted.sum()), **figures}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images with the maps of every method, of the first questions that count, and of the random weights."""
        asked = Questions.of(batch)
        chosen = np.flatnonzero(asked.counted)[:ROWS]
        if not len(chosen):
            return {"attributions": np.asarray(batch["image"][:ROWS])}
        some = Questions(asked.images[chosen], asked.labels[chosen], asked.counted[chosen])
        found = jax.device_get(self._maps(state, some.images, some.labels, key, self.methods))
        found = {method: found[method] for method in self.methods}  # a compiled function sorts them
        images, names = np.asarray(some.images), ["image", *found]
        cells, captions = [], []
        for row, label in enumerate(np.asarray(some.labels).tolist()):
            cells += [np.broadcast_to(images[row], (*images.shape[1:3], 3))]
            cells += [heat(images[row], values[row]) for values in found.values()]
            captions += [label_text(label, self.classifier.classes), *(names[1:] if row == 0 else [""] * len(found))]
        return {"attributions": plots.draw_gallery(np.stack(cells), captions, len(names))}

    def predict(
        self, state: State, inputs: Batch, key: Key[Array, ""]
    ) -> dict[str, Shaped[Array | np.ndarray, "batch ..."]]:
        """Paints the map of the first method over images, for their labels or for the most probable class.

        Returns `image`, the `map` alone, its highest value 1, and the explained `label` with its `probability`.
        """
        images = jnp.asarray(inputs["image"])
        shares = self._shares(state, images)
        labels = jnp.asarray(inputs.get("label", shares.argmax(axis=-1)))
        found = self._maps(state, images, labels, key, self.methods[:1])[self.methods[0]]
        probability = jnp.take_along_axis(shares, labels[:, None], axis=1)[:, 0]
        level = (found / jnp.maximum(found.max(axis=(1, 2), keepdims=True), 1e-30))[..., None]
        return {"image": jax.vmap(heat)(images, found), "map": level, "label": labels, "probability": probability}

    @functools.partial(jax.jit, static_argnums=0)
    def _shares(self, state, images):
        return jax.nn.softmax(self.classify(state, images))

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def _maps(self, state, images, labels, key, methods):
        explained = Classifier(self.classifier.module, variables(state, "classifier"))
        asked = Questions(images, labels, labels >= 0)
        return {method: maps.strength(self.explain(key, explained, method, asked)) for method in methods}


def check(classifier: Network, batch: Batch) -> None:
    """Raises a UserError if a classifier cannot take a batch's images, or the batch has nothing to ask for."""
    if "label" not in batch and not ("boxes" in batch and batch["boxes"].shape[1] >= ASKED):
        raise UserError(
            f"the examples have neither a class nor {ASKED} boxes: choose a dataset with labels, or set data.max_boxes."
        )
    shape = batch["image"].shape[1:]
    if not takes(classifier, shape):
        raise UserError(
            f"the images are {shape}, but the classifier was trained on {classifier.shape} and takes no other size: "
            "resize them by data.transforms and data.eval_transforms."
        )


def recipe(
    classifier: Network,
    methods: tuple[Method, ...] = METHODS,
    layer: str = "",
    points: Count = 16,
    samples: Annotated[int, STEPS] = 25,
    window: Natural = 0,
    tolerance: Share = 0.03,
) -> Recipe:
    """Makes the measures of a classifier of another run. Nothing is trained.

    Datasets of labelled images are asked for their labels. Those with boxes play the pointing game: scenes with two
    objects of different classes are asked for both; the others are left out.

    Args:
      classifier: takes images in [0, 1] to logits; `config.borrow.classifier` names it.
      methods: the maps to measure, of `cvjax.interpret.maps.METHODS`; `apply` paints the first.
      layer: Grad-CAM's, of those that the classifier returns by name; "": the last with more than one position.
      points: steps of the deletion and insertion curves, in which pixels are replaced by the image's mean colour.
      samples: noisy copies of SmoothGrad, and steps of integrated gradients.
      window: side of the grey squares of occlusion, which move by half of it; 0: an eighth of the shorter side.
      tolerance: of the pointing game, as a share of the longer side; the paper's 15 pixels were about that of VOC's.

    Returns:
      The recipe. Figures of each method, such as "deletion/gradcam": deletion and insertion, the areas below the
      probability of the class, also of the controls "random" and "edges"; deletion_gain and insertion_gain, by how
      much they are better than the better control; randomised_correlation, Spearman's with the maps of random weights,
      and signed_randomised_correlation, of the channels' sums in place of their largest absolute values.
      With boxes also pointing, the share of the highest pixels in the asked object's box or near it, pointing_exactly,
      only those in it, and mass, the share of the whole map. `questions` is the number of asked classes, and
      `asked_probability` the classifier's probability of them.
    """
    if not methods:
        raise UserError("config.recipe.methods is empty: name at least one.")
    return Recipe.of(Attribution(classifier, tuple(methods), layer, points, samples, window, tolerance))
