"""What detectors share that classify regions: which regions they train on, the head, its loss, and its detections.

Girshick, Fast R-CNN, 2015 (arXiv:1504.08083), sections 2.1 to 2.3. Of the labels of regions 0 is the background, and
class c is c + 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax.errors import UserError
from cvjax.losses.focal import smooth_l1
from cvjax.ops import boxes as box_ops

SMALLEST = 0.01  # pixels a side of a detection, torchvision's
WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of offsets: their standard deviations are about .1, .1, .2, .2

Candidates = tuple[Float[Array, "batch candidates 4"], Float[Array, "batch candidates"], Int[Array, "batch candidates"]]


FOREGROUND = 0.25  # share of the regions that train the head and show an object
INSIDE = 0.5  # share of a region in a crowd from which on it is no background


# --- sampling -----------------------------------------------------------------------------------------------------


class Regions(NamedTuple):
    """Regions of an image to train on, those of objects first.

    Attributes:
      offsets: to the object of each.
      mask: False in padding.
      matched: which object each shows; 0 of background and padding.
    """

    boxes: Float[Array, "*batch regions 4"]
    labels: Int[Array, "*batch regions"]
    offsets: Float[Array, "*batch regions 4"]
    mask: Bool[Array, "*batch regions"]
    matched: Int[Array, "*batch regions"]


def covered(
    regions: Float[Array, "*batch regions 4"], boxes: Float[Array, "*batch boxes 4"]
) -> Float[Array, "*batch regions boxes"]:
    """Returns the share of each region that lies in each box; 0 of empty regions."""
    iou, areas = box_ops.iou(regions, boxes), box_ops.area(regions)[..., None]
    both = iou / (1 + iou) * (areas + box_ops.area(boxes)[..., None, :])
    return jnp.where(areas > 0, both / jnp.maximum(areas, 1e-6), 0.0)


def outside_crowds(
    regions: Float[Array, "*batch regions 4"],
    boxes: Float[Array, "*batch boxes 4"],
    crowd: Bool[Array, "*batch boxes"],
) -> Bool[Array, "*batch regions"]:
    """Returns which regions lie by less than half in a box that is a crowd, whose objects are not annotated."""
    return jnp.where(crowd[..., None, :], covered(regions, boxes), 0.0).max(-1, initial=0.0) < INSIDE


def random_subset(key: Key[Array, ""], mask: Bool[Array, " n"], count: int | Int[Array, ""]) -> Bool[Array, " n"]:
    """Returns a mask of `count` of those in a mask, drawn at random, or of all if there are fewer."""
    priority = jnp.where(mask, jax.random.uniform(key, mask.shape), 2.0)
    return mask & (jnp.argsort(jnp.argsort(priority)) < count)


def count_positives(count: int, share: float, of: str = "regions", named: str = "") -> int:
    """Returns how many of an image's regions are to show an object; raises a UserError if it is none, or all.

    `of` and `named` are the settings of the recipe that hold the count and the share, if one does.
    """
    positives = round(count * share)
    if not 1 <= positives < count:
        given = f"config.recipe.{named}={share}" if named else f"a share of {share}"
        raise UserError(f"{given} of config.recipe.{of}={count} leaves none for objects, or none for background.")
    return positives


def sample_regions(
    key: Key[Array, ""],
    proposals: Float[Array, "proposals 4"],
    valid: Bool[Array, " proposals"],
    boxes: Float[Array, "objects 4"],
    labels: Int[Array, " objects"],
    present: Bool[Array, " objects"],
    outside: Bool[Array, " proposals"],
    count: int = 64,
    foreground: float = FOREGROUND,
    positive: float = 0.5,
    background: tuple[float, float] = (0.0, 0.5),
) -> Regions:
    """Draws regions of an image to train on among its proposals and its objects' own boxes, the objects' first.

    Returns `count` of them: at most the share `foreground`, rounded, are such that overlap an object by `positive` or
    more, and the others overlap none by more than `background` says. If there are too few, the rest is padding.

    Args:
      valid, present: False in padding of the proposals and of the objects.
      outside: which proposals may be background, because they are in no crowd: `outside_crowds`.
      background: least IoU with the nearest object, and the one below which it is: (0.1, 0.5) in Fast R-CNN, whose
        hard examples these are, and (0, 0.5) in Faster R-CNN.
    """
    rois = jnp.concatenate([proposals, boxes])
    solid = present & (boxes[:, 2:] > boxes[:, :2]).all(-1)
    valid = jnp.concatenate([valid, solid])
    rois = jnp.where(valid[:, None], rois, 0)
    overlaps = jnp.where(present, box_ops.iou(rois, boxes), 0)
    greatest, matched = overlaps.max(-1), overlaps.argmax(-1)
    keys = jax.random.split(key)
    chosen = random_subset(keys[0], valid & (greatest >= positive), round(count * foreground))
    outside = jnp.concatenate([outside, solid])
    others = valid & outside & (greatest >= background[0]) & (greatest < min(background[1], positive))
    others = random_subset(keys[1], others, count - chosen.sum())
    order = jnp.argsort(jnp.where(chosen, 0, jnp.where(others, 1, 2)))  # stable
    order = jnp.pad(order, (0, max(count - len(order), 0)), constant_values=-1)[:count]
    on_object, mask = chosen[order] & (order >= 0), (chosen | others)[order] & (order >= 0)
    rois = jnp.where(mask[:, None], rois[order], 0)
    # The others are their own objects, so that their offsets, which no loss counts, are finite.
    unit = jnp.array([0.0, 0, 1, 1], rois.dtype)
    matched = jnp.where(on_object, matched[order], 0)
    near, far = (jnp.where(on_object[:, None], found, unit) for found in (rois, boxes[matched]))
    found = jnp.where(on_object, labels[matched] + 1, 0)
    return Regions(rois, found, box_ops.encode(far, near, WEIGHTS), mask, matched)


# --- head and loss ------------------------------------------------------------------------------------------------


class RegionHead(nn.Module):
    """Two fully connected layers over a region's features, and from them logits of classes and offsets for each.

    Attributes:
      classes: number of classes, without the background.
      hidden: units of the two layers: 4096 of VGG, 1024 with a pyramid.
      dropout: share of their outputs that is dropped while training; takes the random stream "dropout".
    """

    classes: int
    hidden: int = 4096
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, pooled: Float[Array, "*batch size size channels"], train: bool = False
    ) -> tuple[Float[Array, "*batch {self.classes}+1"], Float[Array, "*batch {self.classes} 4"]]:
        """Returns logits, that of the background first, and the offsets of each class's box, float32."""
        x = pooled.reshape(*pooled.shape[:-3], -1)
        for index in (1, 2):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=nn.initializers.he_uniform(), name=f"hidden_{index}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        initial = nn.initializers.normal
        logits = nn.Dense(self.classes + 1, kernel_init=initial(0.01), name="logits")(x)
        offsets = nn.Dense(self.classes * 4, kernel_init=initial(0.001), name="offsets")(x)  # section 2.3
        return logits.astype(jnp.float32), offsets.reshape(*x.shape[:-1], -1, 4).astype(jnp.float32)


def multi_task_loss(
    logits: Float[Array, "*batch outputs"],
    offsets: Float[Array, "*batch classes 4"],
    regions: Regions,
    beta: float = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the mean cross-entropy and the boxes' smooth L1, summed over coordinates (equation 1).

    Returns both, over the number of all regions: the offsets of a region's own class count, and those of background
    do not.
    """
    count = jnp.maximum(regions.mask.sum(), 1)
    on_object = regions.mask & (regions.labels > 0)
    errors = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(regions.mask, regions.labels, 0))
    own = jnp.maximum(regions.labels - 1, 0)[..., None, None]
    own = jnp.take_along_axis(offsets, jnp.broadcast_to(own, (*own.shape[:-1], 4)), axis=-2)[..., 0, :]
    distances = smooth_l1(own, regions.offsets, beta).sum(-1)
    return jnp.where(regions.mask, errors, 0).sum() / count, jnp.where(on_object, distances, 0).sum() / count


# --- detections ---------------------------------------------------------------------------------------------------


def large_enough(boxes: Float[Array, "*batch 4"]) -> Bool[Array, "*batch"]:
    """Returns which boxes, clipped to their image, have something of it inside: .01 px of either side."""
    return (boxes[..., 2:] - boxes[..., :2] >= SMALLEST).all(-1)


def find_objects(
    logits: Float[Array, "batch regions outputs"],
    offsets: Float[Array, "batch regions classes 4"],
    boxes: Float[Array, "batch regions 4"],
    mask: Bool[Array, "batch regions"],
    size: Sequence[int],
) -> Candidates:
    """Returns every region as a candidate of every class: its box for the class, and the class's probability.

    Boxes are clipped to `size`, the images' (height, width). Candidates of padding, and those of which less than .01 px
    is inside, have a probability of 0.
    """
    boxes = jnp.broadcast_to(boxes[..., None, :], offsets.shape)
    found = box_ops.clip(box_ops.decode(offsets, boxes, WEIGHTS), size[0], size[1])
    scores = jnp.where(mask[..., None] & large_enough(found), jax.nn.softmax(logits)[..., 1:], 0)
    labels = jnp.broadcast_to(jnp.arange(scores.shape[-1]), scores.shape)
    return found.reshape(len(found), -1, 4), scores.reshape(len(found), -1), labels.reshape(len(found), -1)
