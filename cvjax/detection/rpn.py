"""Region proposal networks: Ren et al., Faster R-CNN, 2015 (arXiv:1506.01497), sections 3.1 and 3.3.

Details that the paper leaves open follow the authors' code.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax.detection.region_heads import random_subset
from cvjax.detection.retinanet import match
from cvjax.losses.focal import smooth_l1
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.nms import batched_nms
from cvjax.signature import Count, NonNegative, Positive, Share

Boxes = Float[Array, "batch boxes 4"]
Mask = Bool[Array, "batch boxes"]


class RPN(nn.Module):
    """A 3x3 convolution, and what tells `anchors` boxes at each place: whether they hold an object, and offsets."""

    anchors: int = 9
    channels: int = 512

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch rows columns features"]
    ) -> tuple[Float[Array, "batch _"], Float[Array, "batch _ 4"]]:
        """Returns the logit and the offsets of every anchor, as `cvjax.ops.anchors.grid` orders them, float32."""
        conv = partial(Conv, kernel_init=nn.initializers.normal(0.01))  # section 3.1.3
        x = nn.relu(conv(self.channels, 3, padding=1, name="conv")(x))
        logits, offsets = conv(self.anchors, 1, name="logits")(x), conv(4 * self.anchors, 1, name="offsets")(x)
        return logits.reshape(len(x), -1).astype(jnp.float32), offsets.reshape(len(x), -1, 4).astype(jnp.float32)


def sample_anchors(
    key: Key[Array, ""],
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "objects 4"],
    present: Bool[Array, " objects"],
    outside: Bool[Array, " anchors"],
    size: Sequence[int],
    count: int = 256,
    positive: float = 0.7,
    negative: float = 0.3,
) -> tuple[Int[Array, " anchors"], Bool[Array, " anchors"], Bool[Array, " anchors"]]:
    """Draws the anchors that an image of `size` (height, width) trains the network on (sections 3.1.2 and 3.1.3).

    Returns (object of each anchor, which anchors are drawn for an object, which for background): at most half of
    `count` for objects, the rest for background. Those that cross the image's border are never drawn. Drawn for an
    object are those of an IoU of at least `positive` with it, and all those inside that overlap it most; for background
    only those `outside` of crowds.
    """
    height, width = size
    inside = (anchors[:, :2] >= 0).all(-1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
    matched, positives, ignored = match(jnp.where(inside[:, None], anchors, 0), boxes, present, positive, negative)
    keys = jax.random.split(key)
    chosen = random_subset(keys[0], inside & positives, count // 2)
    others = random_subset(keys[1], inside & outside & ~positives & ~ignored, count - chosen.sum())
    return matched, chosen, others


def proposal_loss(
    logits: Float[Array, "batch anchors"],
    offsets: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "batch objects 4"],
    drawn: tuple[Int[Array, "batch anchors"], Bool[Array, "batch anchors"], Bool[Array, "batch anchors"]],
    beta: float = 1 / 9,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the cross-entropy of the drawn anchors and the smooth L1 of those drawn for an object (equation 1).

    Returns both over the number of drawn anchors. The paper divides the second by the number of places, about 2,400,
    and multiplies it by 10, which is as much for 256 drawn anchors.
    """
    matched, chosen, others = drawn
    count = jnp.maximum((chosen | others).sum(), 1)
    entropies = optax.sigmoid_binary_cross_entropy(logits, chosen)
    # Anchors without an object are their own target, so that the values discarded below are finite.
    anchors = jnp.broadcast_to(anchors, offsets.shape)
    targets = jnp.where(chosen[..., None], jnp.take_along_axis(boxes, matched[..., None], axis=1), anchors)
    distances = smooth_l1(offsets, box_ops.encode(targets, anchors), beta).sum(-1)
    return jnp.where(chosen | others, entropies, 0).sum() / count, jnp.where(chosen, distances, 0).sum() / count


@dataclasses.dataclass(frozen=True)
class Proposing:
    """How regions are proposed: `config.recipe.proposing`.

    Attributes:
      channels: of the network's 3x3 convolution.
      sizes: sides of the square anchors in pixels, those of each level.
      ratios: height / width of the anchors, at equal area.
      anchors: number of anchors that train it on an image.
      before: largest number of boxes of each level that are decoded and compete, while training.
      after: largest number of proposals while training.
      test_before, test_after: the same in detection.
      iou_threshold: boxes of an IoU above it with a better one of their level are dropped.
      smallest: least width and height in pixels.
    """

    channels: Count = 512
    sizes: tuple[tuple[Positive, ...], ...] = ((128.0, 256.0, 512.0),)
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)
    anchors: Count = 256
    before: Count = 12_000
    after: Count = 2000
    test_before: Count = 6000
    test_after: Count = 300
    iou_threshold: Share = 0.7
    smallest: NonNegative = 16.0


class Proposals(NamedTuple):
    """Proposals of images, the best first: boxes, a mask of padding, and the probability that each is an object."""

    boxes: Boxes
    mask: Mask
    scores: Float[Array, "batch boxes"]


def propose(
    logits: Sequence[Float[Array, "batch _"]],
    offsets: Sequence[Float[Array, "batch _ 4"]],
    anchors: Sequence[Float[Array, "_ 4"]],
    size: Sequence[int],
    proposing: Proposing,
    train: bool = False,
) -> Proposals:
    """Returns the best proposals of all levels (section 3.3).

    They are clipped to `size`, the images' (height, width), and have no gradient.
    """
    before = proposing.before if train else proposing.test_before
    after = proposing.after if train else proposing.test_after
    found = []
    for level, (scores, deltas, laid) in enumerate(zip(logits, offsets, anchors, strict=True)):
        scores, at = jax.lax.top_k(jax.lax.stop_gradient(scores), min(before, len(laid)))
        deltas = jnp.take_along_axis(jax.lax.stop_gradient(deltas), at[..., None], axis=1)
        boxes = box_ops.clip(box_ops.decode(deltas, laid[at]), size[0], size[1])
        found.append((boxes, scores, jnp.full(scores.shape, level)))
    boxes, scores, levels = (jnp.concatenate(rows, axis=1) for rows in zip(*found, strict=True))
    large = (boxes[..., 2:] - boxes[..., :2] >= max(proposing.smallest, 1e-3)).all(-1)
    suppress = partial(batched_nms, iou_threshold=proposing.iou_threshold, max_outputs=after)
    kept, valid = jax.vmap(lambda *rows: suppress(*rows[:3], mask=rows[3]))(boxes, scores, levels, large)
    boxes = jnp.where(valid[..., None], jnp.take_along_axis(boxes, kept[..., None], axis=1), 0)
    return Proposals(boxes, valid, jnp.where(valid, jax.nn.sigmoid(jnp.take_along_axis(scores, kept, axis=1)), 0))
