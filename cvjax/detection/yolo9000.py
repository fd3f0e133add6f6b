"""YOLO9000: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), section 4.

A detector of classes that it is never shown a box of. The classes are nodes of a tree of words, with a softmax over
each group of siblings. Images with boxes teach where objects are, images with class labels alone what they can be.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Recipe, State, class_names
from cvjax.data.sources import read_text
from cvjax.detection import region
from cvjax.detection.detector import Candidates, Detection, Found, Images, find_and_select, training_objects
from cvjax.detection.region import DARKNET, Outputs, RegionLoss
from cvjax.detection.yolov2 import DETECTION, PAPER, Parts, YoloV2, YoloV2Detector, training_sizes
from cvjax.errors import UserError, suggest
from cvjax.nets.darknet import STAGES
from cvjax.signature import Count, Natural, NonNegative, Share

Logits = Float[Array, "*batch nodes"]

COCO_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))  # Darknet's yolo9000.cfg

# --- tree ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WordTree:
    """A hierarchy of classes (section 4): names, parents before children, and indices of parents, -1 at the top."""

    names: tuple[str, ...]
    parents: tuple[int, ...]

    @functools.cached_property
    def groups(self) -> tuple[int, ...]:
        """Index of each node's group of siblings."""
        numbers = {parent: number for number, parent in enumerate(dict.fromkeys(self.parents))}
        return tuple(numbers[parent] for parent in self.parents)

    @functools.cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Each node followed by its ancestors, padded to one length with the number of nodes."""
        paths = []
        for node, parent in enumerate(self.parents):
            paths.append((node, *(paths[parent] if parent >= 0 else ())))
        longest = max(map(len, paths))
        return tuple(path + (len(paths),) * (longest - len(path)) for path in paths)


def read_tree(path: str | Path) -> WordTree:
    """Returns the hierarchy in a file, or in one named beside this module: "digits".

    In Darknet's `.tree` format each line is a node: its name, and the line number of its parent counted from 0, or -1
    at the top. Parents come before their children. Anything else raises a UserError, as does a missing file.
    """
    own = {file.stem: file for file in Path(__file__).parent.glob("*.tree")}
    file = own.get(str(path), Path(path))
    if not file.is_file():
        raise UserError(f"config.recipe.tree={str(path)!r}: there is no such file. {suggest(path, own)}")
    names, parents = [], []
    for number, line in enumerate(read_text(file).splitlines()):
        name, *rest = line.split() or [""]
        if len(rest) != 1 or not rest[0].lstrip("-").isdigit() or not -1 <= int(rest[0]) < number:
            raise UserError(
                f"{file}, line {number + 1}: {line!r}: expected a name and the number of an earlier line, or -1."
            )
        if name in names:
            raise UserError(f"{file}, line {number + 1}: the node {name!r} exists already.")
        names.append(name)
        parents.append(int(rest[0]))
    if not names:
        raise UserError(f"{file} has no nodes.")
    return WordTree(tuple(names), tuple(parents))


def log_softmax(logits: Logits, tree: WordTree) -> Logits:
    """Returns the log-probability of each node given its parent, a softmax over each group of siblings."""
    groups, count = jnp.array(tree.groups), max(tree.groups) + 1
    x = jnp.moveaxis(logits, -1, 0)
    x = x - jax.lax.stop_gradient(jax.ops.segment_max(x, groups, count))[groups]
    x = x - jnp.log(jax.ops.segment_sum(jnp.exp(x), groups, count))[groups]
    return jnp.moveaxis(x, 0, -1)


def path_log_probability(logits: Logits, nodes: Int[Array, " chosen"], tree: WordTree) -> Float[Array, "*batch chosen"]:
    """Returns the log-probabilities of nodes, sums of the conditional ones along the path to the top."""
    conditional = log_softmax(logits, tree)
    padded = jnp.concatenate([conditional, jnp.zeros_like(conditional[..., :1])], axis=-1)
    return padded[..., jnp.array(tree.paths)[nodes]].sum(-1)


def walk_down(logits: Logits, tree: WordTree, threshold: float = 0.5) -> Int[Array, "*batch"]:
    """Returns the index of the node at which a descent to the most probable child ends.

    It goes on while the probability of the whole path stays above the threshold; the first step is always taken.
    """
    nodes, groups, count = jnp.arange(len(tree.names)), jnp.array(tree.groups), max(tree.groups) + 1
    conditional = jnp.moveaxis(log_softmax(logits, tree), -1, 0)
    best = conditional == jax.ops.segment_max(conditional, groups, count)[groups]
    first = jax.ops.segment_min(jnp.where(best.T, nodes, len(nodes)).T, groups, count)[groups]
    chosen = jnp.moveaxis(first, 0, -1) == nodes
    paths = jnp.array(tree.paths)
    all_chosen = jnp.concatenate([chosen, jnp.ones_like(chosen[..., :1])], axis=-1)[..., paths].all(-1)
    likely = path_log_probability(logits, nodes, tree) > jnp.log(threshold)
    depth = (paths < len(nodes)).sum(-1)
    return (depth * (all_chosen & (likely | (depth == 1)))).argmax(-1)


# --- loss ---------------------------------------------------------------------------------------------------------


def withhold(
    batch: Mapping[str, Any], unboxed: Sequence[int], classes: int
) -> tuple[dict[str, Any], Bool[Array, " batch"], Bool[Array, "batch classes"]]:
    """Removes the objects of images that show one of the `unboxed` class indices, and keeps their class labels.

    Returns (the batch; which images still have their boxes; the classes that each of the others shows).
    """
    shown = ((batch["labels"][..., None] == jnp.arange(classes)) & batch["mask"][..., None]).any(1)
    boxed = ~shown[:, jnp.array(unboxed, jnp.int32)].any(1)
    boxes = jnp.where(boxed[:, None, None], batch["boxes"], 0)
    labels, mask = jnp.where(boxed[:, None], batch["labels"], 0), batch["mask"] & boxed[:, None]
    return {**batch, "boxes": boxes, "labels": labels, "mask": mask}, boxed, shown & ~boxed[:, None]


def image_losses(
    outputs: Outputs,
    shown: Bool[Array, "batch classes"],
    nodes: Int[Array, " classes"],
    tree: WordTree,
    object_weight: float = 5.0,
    class_weight: float = 1.0,
    least_objectness: float = 0.3,
    gate: float = 0.0,
) -> dict[str, Float[Array, " batch"]]:
    """Computes the loss of images that have class labels but no boxes (section 4, joint classification and detection).

    The box that most probably shows the class is trained on the class, and to be an object. Its IoU with the object is
    unknown and is assumed to be at least .3 (`least_objectness`), the target of smaller objectnesses. `nodes` are those
    of the classes. Returns image_object and image_class, weighted sums over each image.

    Args:
      gate: excludes boxes whose objectness is less than this share of the image's greatest. The paper excludes none; a
        class can then be learnt by a box next to the object, which is never the box that detects it.
    """
    batch, width = len(outputs), outputs.shape[-1]
    flat = outputs.reshape(batch, -1, width)
    likelihoods = path_log_probability(flat[..., 5:], nodes, tree)
    log_objectness = jax.nn.log_sigmoid(flat[..., 4:5])
    eligible = jnp.exp(log_objectness) >= gate * jnp.exp(log_objectness.max(1, keepdims=True))
    best = jax.lax.stop_gradient(jnp.where(eligible, log_objectness + likelihoods, -jnp.inf)).argmax(1)
    likelihood = jnp.take_along_axis(likelihoods, best[:, None], axis=1)[:, 0]
    objectness = jax.nn.sigmoid(jnp.take_along_axis(flat[..., 4], best, axis=1))
    missing = jnp.maximum(least_objectness - objectness, 0.0)
    return {
        "image_object": object_weight * (shown * jnp.square(missing)).sum(-1) / 2,
        "image_class": -class_weight * (shown * likelihood).sum(-1),
    }


def absent_loss(
    outputs: Outputs, shown: Bool[Array, "batch classes"], nodes: Int[Array, " classes"], tree: WordTree
) -> Float[Array, " batch"]:
    """Computes the cross-entropy of the classes that an image without boxes does not show.

    The paper has no such loss: its images without boxes have one label each. Where several unboxed classes often appear
    together, an image that shows them all fits any permutation of their names; and an unboxed object is easily taken
    for one of a boxed class. Returns sums over each image's boxes, weighted by their objectness, which gets no
    gradient; 0 for images that show no class.
    """
    flat = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    likelihoods = jnp.minimum(path_log_probability(flat[..., 5:], nodes, tree), -1e-4)
    objectness = jax.lax.stop_gradient(jax.nn.sigmoid(flat[..., 4:5]))
    losses = (objectness * -jnp.log(-jnp.expm1(likelihoods))).sum(1)
    return (losses * (~shown & shown.any(1, keepdims=True))).sum(-1)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Yolo9000Detector(YoloV2Detector):
    """YOLOv2 with a tree; attributes are those of `YoloV2Detector` and arguments of `recipe`, with the tree read."""

    tree: WordTree
    unboxed: tuple[str, ...]
    gate: float
    absent_weight: float
    tree_threshold: float

    @property
    def shown_nodes(self) -> tuple[int, ...]:
        """The node of each label that `predict` returns: those of the classes, then all others."""
        others = (node for node, name in enumerate(self.tree.names) if name not in self.classes)
        return (*map(self.tree.names.index, self.classes), *others)

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """Names of the labels that `predict` returns."""
        return tuple(self.tree.names[node] for node in self.shown_nodes)

    @property
    def nodes(self) -> Int[Array, " classes"]:
        """The node of each class."""
        return jnp.array(self.shown_nodes[: len(self.classes)])

    def losses(self, outputs: Outputs, batch: Batch, prior_weight: Float[Array, ""]) -> tuple[Parts, Parts]:
        """Returns the parts of the loss of each image, with or without boxes, and counts of the former."""

        def class_loss(logits, labels):
            log_probability = path_log_probability(logits, self.nodes, self.tree)
            return -jnp.take_along_axis(log_probability, labels[..., None], axis=-1)[..., 0]

        withheld = [self.classes.index(name) for name in self.unboxed]
        batch, boxed, shown = withhold(batch, withheld, len(self.classes))
        truth, weights = training_objects(batch), self.loss
        parts, counts = region.losses(outputs, *truth, self.anchors, self.stride, weights, prior_weight, class_loss)
        parts = {name: boxed * part for name, part in parts.items()}
        of_image = (outputs, shown, self.nodes, self.tree)
        parts |= image_losses(*of_image, weights.object_weight, weights.class_weight, gate=self.gate)
        parts |= {"image_absent": self.absent_weight * absent_loss(*of_image)} if self.absent_weight else {}
        return parts, counts

    def find(self, state: State, images: Images) -> Candidates:
        """Finds the best pairs of a box and a class of the dataset."""

        def scores(outputs):
            likelihood = jnp.exp(path_log_probability(outputs[..., 5:], self.nodes, self.tree))
            return jax.nn.sigmoid(outputs[..., 4:5]) * likelihood

        return super().find(state, images, scores)

    def find_nodes(self, state: State, images: Images) -> Candidates:
        """Finds boxes, each with the one node that a walk down the tree ends at."""

        def scores(outputs):
            node = walk_down(outputs[..., 5:], self.tree, self.tree_threshold)
            return jax.nn.sigmoid(outputs[..., 4:5]) * (node[..., None] == jnp.array(self.shown_nodes))

        return super().find(state, images, scores)

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> Found:
        """Detects objects in images, labelled with nodes of the tree."""
        return find_and_select(functools.partial(self.find_nodes, state), inputs["image"], self.detection)

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of all detectors, and the mean over classes with boxes and over those without."""
        figures = super().score(rows)

        def mean(names):
            values = [figures[f"voc07/{name}"] for name in names if figures[f"voc07/{name}"] >= 0]
            return float(np.mean(values)) if values else -1.0

        boxed = [name for name in self.classes if name not in self.unboxed]
        return {"map_boxed": mean(boxed), "map_unboxed": mean(self.unboxed), **figures}


def recipe(
    classes: Count | tuple[str, ...],
    tree: str,
    unboxed: tuple[str, ...],
    shape: tuple[Count, Count, Count] = (416, 416, 3),
    anchors: tuple[tuple[float, float], ...] = COCO_ANCHORS,
    width: Count = 32,
    stages: tuple[Count, ...] = STAGES,
    head: Natural = 0,
    passthrough: bool = False,
    sizes: tuple[Count, ...] = (),
    prior_images: Natural = 12_800,
    loss: RegionLoss = DARKNET,
    gate: Share = 0.0,
    absent_weight: NonNegative = 0.0,
    tree_threshold: Share = 0.5,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes YOLO9000. Training images that show one of `unboxed` count as images without boxes.

    Args:
      classes: names of the dataset's classes, each a node of the tree; a number n means "0" to "n - 1".
      tree: file of the hierarchy, as in `read_tree`.
      unboxed: names of the classes whose boxes are withheld.
      shape, anchors, width, stages, head, passthrough, sizes, prior_images, loss: as in `yolov2.recipe`.
      gate: as in `image_losses`.
      absent_weight: of `absent_loss`; the paper has none.
      tree_threshold: probability down to which `predict` and the drawings descend the tree. They number the nodes that
        are not classes of the dataset after those that are.
      ema, detection, optimiser: as in `yolov2.recipe`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`, with map_boxed and map_unboxed, the VOC
      2007 mAP of the classes with boxes and of those without.

    Raises:
      UserError: a class that is not in the tree, or stages or sizes that do not fit.
    """
    words, classes, unboxed = read_tree(tree), class_names(classes), tuple(unboxed)
    for known, names in ((words.names, classes), (classes, unboxed)):
        for name in (name for name in names if name not in known):
            raise UserError(f"config.recipe: class {name!r} is not known. {suggest(name, known)}")
    if not 0 < len(unboxed) < len(classes):
        raise UserError(f"config.recipe.unboxed={unboxed}: expected some of the classes, but not all: {classes}.")
    net = YoloV2(len(anchors), len(words.names), width, tuple(stages), head, passthrough)
    base = (tuple(shape), classes, ema, detection, optim.build(optimiser))
    boxes = (net, anchors, training_sizes(net, shape, sizes), prior_images, loss)
    return Recipe.of(Yolo9000Detector(*base, *boxes, words, unboxed, gate, absent_weight, tree_threshold))
