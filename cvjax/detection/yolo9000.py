"""YOLO9000: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), section 4.

A detector of classes that it never saw a box of. Classes are the nodes of a tree of words, with a softmax over each
group of siblings; images with boxes teach where objects are, images with no more than a class what they may be.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cvjax.core import Recipe, class_names
from cvjax.detection import region
from cvjax.detection.region import Outputs
from cvjax.detection.yolov2 import PAPER, YoloV2, assemble
from cvjax.errors import UserError, suggest
from cvjax.metrics import detection
from cvjax.nets.darknet import STAGES
from cvjax.signature import Count, Range, Share

Logits = Float[Array, "*batch nodes"]

COCO_ANCHORS = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))  # Darknet's yolo9000.cfg

# --- tree ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WordTree:
    """A hierarchy of classes (section 4, hierarchical classification).

    Attributes:
      names: of the nodes, parents before their children.
      parents: number of each node's parent, -1 at the top.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]

    @functools.cached_property
    def groups(self) -> tuple[int, ...]:
        """Number of each node's group of siblings."""
        numbers = {parent: number for number, parent in enumerate(dict.fromkeys(self.parents))}
        return tuple(numbers[parent] for parent in self.parents)

    @functools.cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Each node and its ancestors, padded with the number of nodes to one length."""
        paths = []
        for node, parent in enumerate(self.parents):
            paths.append((node, *(paths[parent] if parent >= 0 else ())))
        longest = max(map(len, paths))
        return tuple(path + (len(paths),) * (longest - len(path)) for path in paths)


def read_tree(path: str | Path) -> WordTree:
    """Reads a hierarchy in the format of Darknet's `.tree` files.

    Each line is a node: its name and the number of its parent's line, counted from 0, or -1 at the top. Parents come
    before their children.

    Args:
      path: of the file, or the name of one beside this module: "digits".

    Returns:
      The tree.

    Raises:
      UserError: no such file, or a line that is no node.
    """
    own = {file.stem: file for file in Path(__file__).parent.glob("*.tree")}
    file = own.get(str(path), Path(path))
    if not file.is_file():
        raise UserError(f"config.recipe.tree={str(path)!r}: there is no such file. {suggest(path, own)}")
    names, parents = [], []
    for number, line in enumerate(file.read_text().splitlines()):
        name, *rest = line.split() or [""]
        if len(rest) != 1 or not rest[0].lstrip("-").isdigit() or not -1 <= int(rest[0]) < number:
            raise UserError(
                f"{file}, line {number + 1}: {line!r}: expected a name and the number of a line before, or -1."
            )
        if name in names:
            raise UserError(f"{file}, line {number + 1}: there is a node {name!r} already.")
        names.append(name)
        parents.append(int(rest[0]))
    if not names:
        raise UserError(f"{file} has no nodes.")
    return WordTree(tuple(names), tuple(parents))


def log_softmax(logits: Logits, tree: WordTree) -> Logits:
    """Computes the log-probability of each node given its parent: one softmax over each group of siblings.

    Args:
      logits: of the nodes.
      tree: the hierarchy.

    Returns:
      In nats.
    """
    groups, count = jnp.array(tree.groups), max(tree.groups) + 1
    x = jnp.moveaxis(logits, -1, 0)
    x = x - jax.lax.stop_gradient(jax.ops.segment_max(x, groups, count))[groups]
    x = x - jnp.log(jax.ops.segment_sum(jnp.exp(x), groups, count))[groups]
    return jnp.moveaxis(x, 0, -1)


def path_log_probability(logits: Logits, nodes: Int[Array, " chosen"], tree: WordTree) -> Float[Array, "*batch chosen"]:
    """Computes the log-probabilities of nodes: the sum of the conditional ones up to the top.

    Args:
      logits: of all nodes.
      nodes: which to compute.
      tree: the hierarchy.

    Returns:
      In nats.
    """
    conditional = log_softmax(logits, tree)
    padded = jnp.concatenate([conditional, jnp.zeros_like(conditional[..., :1])], axis=-1)
    return padded[..., jnp.array(tree.paths)[nodes]].sum(-1)


def walk_down(logits: Logits, tree: WordTree, threshold: float = 0.5) -> Int[Array, "*batch"]:
    """Descends from the top to the most probable child while the probability of the path stays above a threshold.

    Args:
      logits: of the nodes.
      tree: the hierarchy.
      threshold: of the probability of a node with all its ancestors. The first step is always taken.

    Returns:
      Number of the node where the path ends.
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
    """Makes images that show a class without boxes into images with no more than labels, for training.

    Args:
      batch: `boxes`, `labels` and `mask`.
      unboxed: classes that have no boxes.
      classes: how many there are.

    Returns:
      (the batch, all objects of such images taken away; which images have boxes still; which classes are to be seen on
      each of the others).
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
    """Computes the loss of images of which no more is known than what is to be seen on them.

    Of all boxes the one that is most probably the class learns the class, and that it is an object: its overlap with
    the object, which nobody knows, is taken to be at least .3 (section 4, joint classification and detection).

    Args:
      outputs: of the network.
      shown: which of the classes is to be seen where.
      nodes: of the tree, one a class.
      tree: the hierarchy.
      object_weight: of the objectness.
      class_weight: of the class.
      least_objectness: below which objectness is pulled up to it.
      gate: boxes whose objectness is less than this share of the image's greatest are out of the question. In the paper
        all are in it; a class can then be learnt by a box beside the object, which will never be the one that detects.

    Returns:
      (image_object, image_class: one weighted sum an image).
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
    """Computes the cross-entropy of the classes that are not on an image of which labels alone are known.

    The paper, whose images without boxes have one label each, has no such loss. It matters where several classes
    without boxes are often on the same images: what is learnt of an image with all of them fits any exchange of their
    names. And an object of such a class is most easily taken for one of a class with boxes.

    Args:
      outputs: of the network.
      shown: which of the classes is to be seen where; an image without any has no loss.
      nodes: of the tree, one a class.
      tree: the hierarchy.

    Returns:
      Sums over an image's boxes, each weighted by its objectness, which is not trained by it.
    """
    flat = outputs.reshape(len(outputs), -1, outputs.shape[-1])
    likelihoods = jnp.minimum(path_log_probability(flat[..., 5:], nodes, tree), -1e-4)
    objectness = jax.lax.stop_gradient(jax.nn.sigmoid(flat[..., 4:5]))
    losses = (objectness * -jnp.log(-jnp.expm1(likelihoods))).sum(1)
    return (losses * (~shown & shown.any(1, keepdims=True))).sum(-1)


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    classes: Count | tuple[str, ...],
    tree: str,
    unboxed: tuple[str, ...],
    shape: tuple[Count, Count, Count] = (416, 416, 3),
    anchors: tuple[tuple[float, float], ...] = COCO_ANCHORS,
    width: Count = 32,
    stages: tuple[Count, ...] = STAGES,
    head: Annotated[int, Range(0)] = 0,
    passthrough: bool = False,
    sizes: tuple[Count, ...] = (),
    prior_images: Annotated[int, Range(0)] = 12_800,
    rescore: bool = True,
    gate: Share = 0.0,
    absent_weight: Annotated[float, Range(0)] = 0.0,
    tree_threshold: Share = 0.5,
    ema: Share = 0.0,
    flip_test: bool = False,
    score_threshold: Share = 0.005,
    iou_threshold: Share = 0.45,
    max_detections: Count = 100,
    dtype: Literal["float32", "bfloat16"] = "float32",
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes YOLO9000.

    An image of the training set that shows one of `unboxed` is one without boxes: which classes it shows is all that
    training is told of it.

    Args:
      classes: names of the dataset's classes, each a node of the tree; a number n means "0" to "n - 1".
      tree: file of the hierarchy, as `read_tree` reads it.
      unboxed: names of the classes whose boxes are withheld.
      shape: height, width, channels of the images.
      anchors: widths and heights in cells, as `python -m cvjax.programs.anchors` prints them.
      width: as in `yolov2.recipe`, like all that is not explained here.
      stages: likewise.
      head: likewise.
      passthrough: likewise.
      sizes: likewise.
      prior_images: likewise.
      rescore: likewise.
      gate: as in `image_losses`; the paper has none.
      absent_weight: of `absent_loss`, which the paper does not have.
      tree_threshold: probability of a node down to which `predict` and the drawings descend the tree; they number the
        nodes that are no class of the dataset behind those that are.
      ema: likewise.
      flip_test: likewise.
      score_threshold: likewise.
      iou_threshold: likewise.
      max_detections: likewise.
      dtype: likewise.
      optimiser: likewise.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`, with map_boxed and map_unboxed: the VOC
      2007 mAP of the classes with boxes and of those without.

    Raises:
      UserError: a class that is not in the tree, or stages or sizes that do not fit.
    """
    words = read_tree(tree)
    classes = class_names(classes)
    for known, names in ((words.names, classes), (classes, unboxed)):
        for name in (name for name in names if name not in known):
            raise UserError(f"config.recipe: class {name!r} is not known. {suggest(name, known)}")
    if not 0 < len(unboxed) < len(classes):
        raise UserError(f"config.recipe.unboxed={tuple(unboxed)}: expected some of the classes, not all: {classes}.")
    nodes = jnp.array([words.names.index(name) for name in classes])
    without_boxes = [classes.index(name) for name in unboxed]
    inner = [node for node, name in enumerate(words.names) if name not in classes]
    numbered = [*nodes.tolist(), *inner]  # node of each number that is told of a detection

    def class_loss(logits, labels):
        return -jnp.take_along_axis(path_log_probability(logits, nodes, words), labels[..., None], axis=-1)[..., 0]

    def losses_of(outputs, batch, stride, prior_weight):
        batch, boxed, shown = withhold(batch, without_boxes, len(classes))
        mask = batch["mask"] & ~batch["difficult"] & ~batch["crowd"]
        truth = (batch["boxes"], batch["labels"], mask)
        options = dict(prior_weight=prior_weight, rescore=rescore, class_loss=class_loss)
        parts, counts = region.losses(outputs, *truth, anchors, stride, **options)
        parts = {name: boxed * part for name, part in parts.items()}
        sought = (outputs, shown, nodes, words)
        parts |= image_losses(*sought, gate=gate)
        parts |= {"image_absent": absent_weight * absent_loss(*sought)} if absent_weight else {}
        return parts, counts

    def class_scores(outputs):
        return jax.nn.sigmoid(outputs[..., 4:5]) * jnp.exp(path_log_probability(outputs[..., 5:], nodes, words))

    def scores_down_the_tree(outputs):
        node = walk_down(outputs[..., 5:], words, tree_threshold)
        return jax.nn.sigmoid(outputs[..., 4:5]) * (node[..., None] == jnp.array(numbered))

    def figures(rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        found = detection.figures(rows, classes)

        def mean(names):
            values = [found[f"voc07/{name}"] for name in names if found[f"voc07/{name}"] >= 0]
            return float(np.mean(values)) if values else -1.0

        return {"map_boxed": mean(n for n in classes if n not in unboxed), "map_unboxed": mean(unboxed), **found}

    return assemble(
        YoloV2(len(anchors), len(words.names), width, tuple(stages), head, passthrough, dtype),
        losses_of=losses_of,
        scores_of=class_scores,
        names_of=scores_down_the_tree,
        figures=figures,
        names=[words.names[node] for node in numbered],
        shape=shape,
        anchors=anchors,
        sizes=sizes,
        prior_images=prior_images,
        ema=ema,
        flip_test=flip_test,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        optimiser=optimiser,
    )
