"""Detectors that classify proposed regions one by one: what R-CNN and SPP-net share once a region has its features.

Girshick, Donahue, Darrell & Malik, Rich Feature Hierarchies for Accurate Object Detection, 2014 (arXiv:1311.2524).
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from cvjax.core import Batch, Metrics, State, advance, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Images
from cvjax.detection.proposal_detector import Present, ProposalDetector, Regions
from cvjax.detection.region_heads import covered, large_enough, outside_crowds
from cvjax.detection.region_svms import BoxRegression, Miner, RegionSVMs
from cvjax.detection.sliding_window import label_windows
from cvjax.nets.vgg import VGG
from cvjax.ops import boxes as box_ops

Pooled = Float[Array, "batch regions features"]

POSITIVE_IOU = 0.5  # least IoU with an object at which a region shows it, in fine-tuning (section 2.3)
STEEPNESS = 3.0  # logits in a margin: one of -1, where background lies, has a score of 0.05
DETECTION = Detection(score_threshold=0.01, iou_threshold=0.3)


class VGGHead(nn.Module):
    """The last three layers of a VGG on the features of regions: `fc6`, `fc7` and `fc8`, which has `outputs` logits.

    Attributes:
      dropout: share of the outputs of `fc6` and `fc7` dropped while training; takes the random stream "dropout".
    """

    outputs: int
    hidden: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "*batch features"], train: bool = False
    ) -> tuple[Float[Array, "*batch {self.outputs}"], Float[Array, "*batch {self.hidden}"]]:
        """Returns (logits, `fc7` after its ReLU), both in float32."""
        drop = nn.Dropout(self.dropout, deterministic=not train)
        dense = partial(nn.Dense, kernel_init=nn.initializers.he_normal())
        x = drop(nn.relu(dense(self.hidden, name="fc6")(pooled)))
        features = nn.relu(dense(self.hidden, name="fc7")(x))
        logits = nn.Dense(self.outputs, kernel_init=nn.initializers.normal(0.01), name="fc8")(drop(features))
        return logits.astype(jnp.float32), features.astype(jnp.float32)


def sample(
    key: Key[Array, ""],
    labels: Int[Array, " regions"],
    certain: Bool[Array, " regions"],
    background: int,
    count: int,
    positives: int,
) -> tuple[Int[Array, " count"], Bool[Array, " count"]]:
    """Draws regions that show an object, and others that show background, with replacement.

    Returns (indices, the first `positives` of objects; which of them are what they should be, False where the image has
    no region of the kind).
    """
    shows = certain & (labels != background)
    chosen, real = [], []
    kinds = ((positives, shows), (count - positives, certain & ~shows))
    for (number, kind), of_kind in zip(kinds, jax.random.split(key), strict=True):
        chosen.append(jax.random.categorical(of_kind, jnp.where(kind, 0.0, -1e9), shape=(number,)))
        real.append(kind[chosen[-1]])
    return jnp.concatenate(chosen), jnp.concatenate(real)


@dataclasses.dataclass(frozen=True)
class RegionDetector(ProposalDetector):
    """Functions of R-CNN and SPP-net.

    The attributes are those of `ProposalDetector`, the networks and arguments of `recipe`.
    """

    vgg: VGG
    head: VGGHead
    windows: int
    positives: int
    classifier: str
    regression: bool
    frozen: bool
    svm: RegionSVMs
    candidates: int

    @abc.abstractmethod
    def pool(self, vgg: Mapping[str, Any], images: Images, regions: Regions) -> Pooled:
        """Computes the features of regions, whatever their size; `vgg` are the variables of that network."""

    def pool_many(self, vgg: Mapping[str, Any], images: Images, regions: Regions) -> Pooled:
        """Computes the same outside of training, where regions are many."""
        return self.pool(vgg, images, regions)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks, by their names in the state."""
        return {"vgg": self.vgg, "head": self.head}

    # --- fine-tuning ----------------------------------------------------------------------------------------------

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages; SVMs and regression are zero."""
        self.check(batch)
        keys, images = jax.random.split(key), jnp.zeros((1, *self.shape))
        held = {"vgg": self.vgg.init(keys[0], images)}
        pooled = self.pool(held["vgg"], images, jnp.array([[[0.0, 0.0, self.shape[1], self.shape[0]]]]))
        held["head"] = self.head.init(keys[1], pooled)
        frozen = {"vgg": held.pop("vgg")} if self.frozen else {}
        classes, sizes = len(self.classes), (self.head.hidden, pooled.shape[-1])
        extra = {
            "svm": {"kernel": jnp.zeros((sizes[0], classes)), "bias": jnp.zeros(classes), "scale": jnp.ones(())},
            "boxes": {
                "kernel": jnp.zeros((sizes[1], classes, 4)),
                "bias": jnp.zeros((classes, 4)),
                "scale": jnp.ones(()),
            },
            "concluded": jnp.zeros((), bool),
        }
        opt = {"head": self.tx.init({name: held[name]["params"] for name in held})}
        return start(held, opt, averaged=tuple(held) if self.ema else (), frozen=frozen, extra=extra)

    def label(self, batch: Batch) -> tuple[Regions, Int[Array, "batch regions"], Present]:
        """Returns the proposals and, after them, the true boxes; their labels, background last; which are certain."""
        boxes, mask = box_ops.visible(batch["boxes"], batch["mask"], *self.shape[:2])
        regions = jnp.concatenate([batch["proposals"], boxes], axis=1)
        ignored = batch["difficult"] | batch["crowd"]
        iou = dict(positive_iou=POSITIVE_IOU, negative_iou=POSITIVE_IOU)
        find = jax.vmap(partial(label_windows, classes=len(self.classes), **iou))
        labels, certain = find(regions, boxes, batch["labels"], mask, ignored)
        certain &= (labels != len(self.classes)) | outside_crowds(regions, boxes, mask & batch["crowd"])
        return regions, labels, certain & jnp.concatenate([batch["proposals_mask"], mask], axis=1)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the cross-entropy of some regions of each image."""
        draw_key, dropout_key = jax.random.split(key)
        regions, labels, certain = self.label(batch)
        choose = partial(sample, background=len(self.classes), count=self.windows, positives=self.positives)
        chosen, real = jax.vmap(choose)(jax.random.split(draw_key, len(regions)), labels, certain)
        regions = jnp.take_along_axis(regions, chosen[..., None], axis=1)
        labels = jnp.take_along_axis(labels, chosen, axis=1)
        total = jnp.maximum(real.sum(), 1)

        def loss_fn(params):
            vgg = state.frozen["vgg"] if self.frozen else {"params": params["vgg"]}
            pooled = self.pool(vgg, batch["image"], regions)
            logits, _ = self.head.apply({"params": params["head"]}, pooled, train=True, rngs={"dropout": dropout_key})
            errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.where(real, errors, 0.0).sum() / total, logits.argmax(-1) == labels

        params, opt, loss, right = descend(self.tx, loss_fn, state.params, state.opt["head"])
        shown = real & (labels < len(self.classes))
        shares = {"share/right": (right & real).sum() / total, "share/objects": shown.sum() / total}
        # SVMs and regression of a run that is continued do not suit the new features.
        extra = {"concluded": jnp.zeros((), bool)}
        return advance(state, params, {"head": opt}, extra=extra, keep=self.ema), {"loss/cross_entropy": loss} | shares

    # --- SVMs and box regression ----------------------------------------------------------------------------------

    @partial(jax.jit, static_argnums=0)
    def describe(self, state: State, batch: Batch) -> dict[str, Shaped[Array, "batch ..."]]:
        """Computes, for proposals and true boxes, features and overlaps with the objects.

        Returns `pooled`; `features`, those of `fc7`; `present`; `own`, the class of true boxes, else -1; `overlaps`
        with the objects of each class, with crowds the share of the region inside; `nearest`, the class of the nearest
        object, `iou` with it and `offsets` to it.
        """
        boxes, mask = box_ops.visible(batch["boxes"], batch["mask"], *self.shape[:2])
        regions = jnp.concatenate([batch["proposals"], boxes], axis=1)
        pooled, _, features = self._apply(state, batch["image"], regions)
        iou = jnp.where(mask[:, None], box_ops.iou(regions, boxes), 0.0)
        classes = jnp.arange(len(self.classes))
        of_class = (batch["labels"][..., None] == classes) & mask[..., None]
        overlaps = jnp.where(batch["crowd"][:, None], covered(regions, boxes), iou)
        overlaps = jnp.where(of_class[:, None], overlaps[..., None], 0.0).max(axis=2)
        counted = mask & ~(batch["difficult"] | batch["crowd"])
        iou = jnp.where(counted[:, None], iou, 0.0)
        at = iou.argmax(axis=2)
        target = jnp.take_along_axis(boxes, at[..., None], axis=1)
        own = jnp.where(counted, batch["labels"], -1)
        return {
            "pooled": pooled,
            "features": features,
            "present": jnp.concatenate([batch["proposals_mask"], counted], axis=1),
            "own": jnp.concatenate([jnp.full(batch["proposals_mask"].shape, -1), own], axis=1),
            "overlaps": overlaps,
            "nearest": jnp.take_along_axis(batch["labels"], at, axis=1),
            "iou": iou.max(axis=2),
            "offsets": box_ops.encode(target, _not_empty(regions)),
        }

    def conclude(self, state: State, rows: Callable[[Callable], Iterator[tuple[Mapping, Mapping]]]) -> State:
        """Fits the SVMs and the regression of boxes to regions of training images."""
        seen, miner, regression, scales = 0, None, None, {}
        for outputs, _ in rows(self.describe):
            there = outputs["present"]
            found = {name: values[there] for name, values in outputs.items()}
            if miner is None:
                miner = Miner(len(self.classes), found["features"].shape[1], self.svm)
                regression = BoxRegression(len(self.classes), found["pooled"].shape[1], self.svm)
                for name in ("features", "pooled"):
                    norms = np.linalg.norm(found[name], axis=1)
                    scales[name] = np.float32(self.svm.norm / max(float(norms.mean()), 1e-6))
            if self.classifier == "svm":
                miner.add(scales["features"] * found["features"], found["own"], found["overlaps"])
            if self.regression:
                nearest = (found[name] for name in ("nearest", "offsets", "iou"))
                regression.add(scales["pooled"] * found["pooled"], *nearest)
            seen += len(there)
            if seen >= self.svm.images:
                break
        fitted = {"svm": (*miner.finish(), scales["features"]), "boxes": (*regression.finish(), scales["pooled"])}
        parts = {name: dict(zip(("kernel", "bias", "scale"), values, strict=True)) for name, values in fitted.items()}
        return state.replace(extra={**state.extra, **parts, "concluded": np.ones((), bool)})

    # --- detection ------------------------------------------------------------------------------------------------

    def _apply(self, state: State, images: Images, regions: Regions) -> tuple[Array, Array, Array]:
        """Features that regions pool, their logits, and the features of `fc7`; all in float32."""
        pooled = self.pool_many(variables(state, "vgg"), images, regions)
        logits, features = self.head.apply(variables(state, "head"), pooled)
        return pooled.astype(jnp.float32), logits, features

    def find(self, state: State, images: Images, regions: Regions, present: Present) -> Candidates:
        """Scores each region for each class, and moves it onto what it would show.

        A margin of an SVM, a few times steeper, counts as a logit. Until the training is concluded, regions have the
        scores of the softmax and stay where they are. Those moved out of the image have a score of 0.
        """
        pooled, logits, features = self._apply(state, images, regions)
        svm, moves, concluded = (state.extra[name] for name in ("svm", "boxes", "concluded"))
        scores = jax.nn.softmax(logits)[..., :-1]
        if self.classifier == "svm":
            margins = svm["scale"] * features @ svm["kernel"] + svm["bias"]
            scores = jnp.where(concluded, jax.nn.sigmoid(STEEPNESS * margins), scores)
        scores = jnp.where(present[..., None], scores, 0.0)
        best, index = jax.lax.top_k(scores.reshape(len(scores), -1), min(self.candidates, scores[0].size))
        at, labels = jnp.divmod(index, len(self.classes))
        boxes = jnp.take_along_axis(regions, at[..., None], axis=1)
        if self.regression:
            offsets = jnp.einsum("brf,fcd->brcd", moves["scale"] * pooled, moves["kernel"]) + moves["bias"]
            offsets = offsets.reshape(len(scores), -1, 4)
            moved = jnp.where(concluded, jnp.take_along_axis(offsets, index[..., None], axis=1), 0.0)
            boxes = box_ops.decode(moved, _not_empty(boxes))
        boxes = box_ops.clip(boxes, *self.shape[:2])
        return boxes, jnp.where(large_enough(boxes), best, 0.0), labels


def _not_empty(regions: Float[Array, "*batch 4"]) -> Float[Array, "*batch 4"]:
    """Regions at least a pixel wide and high: padding is empty, and nothing is relative to that."""
    return jnp.concatenate([regions[..., :2], jnp.maximum(regions[..., 2:], regions[..., :2] + 1.0)], axis=-1)
