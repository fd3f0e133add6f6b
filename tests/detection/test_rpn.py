"""Region proposal networks: the anchors drawn, the loss, and the proposals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import rpn
from cvjax.detection.region_heads import outside_crowds
from cvjax.ops import anchors as grids


def lay(size=(48, 64)):
    cells = grids.cell_anchors(12, (0.7, 1.0, 1.6), (0.5, 1.0, 2.0))
    return grids.grid((size[0] // 4, size[1] // 4), 4, cells)


def draw_objects(seed, count=4):
    random = np.random.default_rng(seed)
    near = random.uniform(0, 36, (count, 2))
    boxes = np.concatenate([near, np.minimum(near + random.uniform(5, 25, (count, 2)), [64, 48])], 1)
    return jnp.asarray(boxes, jnp.float32), jnp.asarray(random.random(count) < 0.8)


@partial(jax.jit, static_argnames="count")
def draw(key, anchors, boxes, present, outside=None, count=256):
    outside = jnp.ones(len(anchors), bool) if outside is None else outside
    return rpn.sample_anchors(key, anchors, boxes, present, outside, (48, 64), count)


@pytest.mark.parity
def test_what_anchors_are_drawn_for_is_torchvisions(torchvision):
    """Among the anchors inside: torchvision draws those that cross the border too."""
    import torch
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    anchors, kinds = lay(), set()
    inside = np.asarray((anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= 64) & (anchors[:, 3] <= 48))
    for seed in range(6):
        boxes, present = draw_objects(seed)
        matched, chosen, others = draw(jax.random.key(seed), anchors, boxes, present, count=10_000)
        overlaps = box_iou(torch.tensor(np.asarray(boxes)), torch.tensor(np.asarray(anchors)[inside]))
        expected = Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps[np.asarray(present)]).numpy()
        # Ties in the reals, which float32 breaks, are ties here: more anchors may be chosen.
        ours = np.where(chosen, 0, np.where(others, -1, -2))[inside]
        tied = (overlaps >= overlaps.max(1, keepdim=True).values * (1 - 1e-5))[np.asarray(present)].any(0).numpy()
        np.testing.assert_array_equal(ours[~tied], np.minimum(expected, 0)[~tied])
        assert (ours[tied] == 0).all() and not np.asarray(chosen | others)[~inside].any()
        place = np.flatnonzero(present)
        np.testing.assert_array_equal(np.asarray(matched)[inside][expected >= 0], place[expected[expected >= 0]])
        kinds |= {*ours.tolist()}
    assert kinds == {0, -1, -2}


def test_an_object_at_the_border_has_the_best_anchor_inside():
    """The anchor that crosses the border fits better, but is left out before objects choose theirs."""
    anchors = jnp.array([[-4, 4, 8, 16], [2, 4, 14, 16], [30, 20, 42, 32]], jnp.float32)
    box = jnp.array([[-4.0, 4, 8, 16]])
    _, chosen, others = draw(jax.random.key(0), anchors, box, jnp.array([True]), count=4)
    assert chosen.tolist() == [False, True, False] and others.tolist() == [False, False, True]


def test_half_at_most_is_drawn_for_objects_and_all_for_background_without():
    anchors = jnp.tile(jnp.array([[8.0, 8, 20, 20], [40, 30, 52, 42]]), (50, 1))
    box = jnp.array([[8.0, 8, 20, 20]])
    for present, expected in ((True, (10, 10)), (False, (0, 20))):
        _, chosen, others = draw(jax.random.key(0), anchors, box, jnp.array([present]), count=20)
        assert (int(chosen.sum()), int(others.sum())) == expected


def test_no_background_is_drawn_inside_crowds():
    anchors = jnp.array([[8.0, 8, 20, 20], [40, 30, 52, 42], [42, 30, 54, 42]])
    outside = outside_crowds(anchors, jnp.array([[40.0, 30, 50, 42], [0, 0, 64, 48]]), jnp.array([True, False]))
    assert outside.tolist() == [True, False, False]  # 10 and 8 of 12 columns are inside; the other box is no crowd
    _, chosen, others = draw(jax.random.key(0), anchors, jnp.zeros((1, 4)), jnp.array([False]), outside)
    assert not chosen.any() and others.tolist() == [True, False, False]


@pytest.mark.parity
def test_the_loss_of_proposals_is_torchs():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    logits, offsets = random.normal(size=(2, 6)), random.normal(size=(2, 6, 4))
    anchors = np.array([[i, i, i + 8, i + 12] for i in range(6)], np.float32)
    boxes = np.array([[[1, 2, 10, 11], [3, 3, 6, 8]], [[0, 0, 9, 9], [0, 0, 0, 0]]], np.float32)
    matched = random.integers(0, 2, (2, 6)) * np.array([[1], [0]])
    chosen, others = np.array([[1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]], bool), np.zeros((2, 6), bool)
    others[:, 4:] = True
    drawn = tuple(jnp.asarray(x) for x in (matched, chosen, others))
    arrays = (jnp.asarray(x, jnp.float32) for x in (logits, offsets, anchors, boxes))
    ours = rpn.proposal_loss(*arrays, drawn)
    both = chosen | others
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits[both]), torch.tensor(chosen[both] * 1.0)
    )
    assert float(ours[0]) == pytest.approx(float(expected), rel=1e-6)
    targets = np.take_along_axis(boxes, matched[..., None], 1)
    size, own = targets[..., 2:] - targets[..., :2], anchors[:, 2:] - anchors[:, :2]
    shift = (targets[..., 2:] + targets[..., :2] - anchors[:, 2:] - anchors[:, :2]) / 2 / own
    targets = np.concatenate([shift, np.log(np.maximum(size, 1e-3) / own)], -1)
    distance = torch.nn.functional.smooth_l1_loss(
        torch.tensor(offsets[chosen]), torch.tensor(targets[chosen]), beta=1 / 9, reduction="sum"
    )
    assert float(ours[1]) == pytest.approx(float(distance) / both.sum(), rel=1e-5)


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod()
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - sides
    return sides / union if union > 0 else 0.0


def test_proposals_equal_loops_over_levels():
    """The best of each level, cut off at the border, not small, without those that a better one of theirs covers."""
    laid = [lay(), grids.grid((6, 8), 8, grids.cell_anchors(24, (1.0,), (0.5, 1.0, 2.0)))]
    random = np.random.default_rng(1)
    logits = [jnp.asarray(random.normal(size=(2, len(x))), jnp.float32) for x in laid]
    offsets = [jnp.asarray(random.normal(size=(2, len(x), 4)) * 0.3, jnp.float32) for x in laid]
    proposing = rpn.Proposing(before=90, after=60, test_before=40, test_after=25, smallest=6.0)
    small = False
    for train, before, after in ((True, 90, 60), (False, 40, 25)):
        boxes, valid, found = rpn.propose(logits, offsets, laid, (48, 64), proposing, train)
        assert boxes.shape == (2, after, 4)
        for image in range(2):
            rows = []
            for level, anchors in enumerate(laid):
                scores = np.asarray(logits[level][image])
                for at in np.argsort(-scores, kind="stable")[:before]:
                    near, far = np.split(np.float64(anchors[at]), 2)
                    deltas = np.float64(offsets[level][image, at])
                    centre = (near + far) / 2 + deltas[:2] * (far - near)
                    half = (far - near) * np.exp(deltas[2:]) / 2
                    box = np.clip(np.concatenate([centre - half, centre + half]), 0, [64, 48, 64, 48])
                    small |= bool((box[2:] - box[:2]).min() < 6)
                    if (box[2:] - box[:2]).min() >= 6:
                        rows.append((scores[at], level, box))
            kept = []
            for row in sorted(rows, key=lambda row: -row[0]):
                if all(level != row[1] or overlap(box, row[2]) <= 0.7 for _, level, box in kept):
                    kept.append(row)
            kept = kept[:after]
            assert valid[image].sum() == len(kept)
            np.testing.assert_allclose(boxes[image][: len(kept)], [box for *_, box in kept], atol=1e-3)
            expected = [1 / (1 + np.exp(-score)) for score, *_ in kept]
            np.testing.assert_allclose(found[image][: len(kept)], expected, rtol=1e-5)
    assert small
