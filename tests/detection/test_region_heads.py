"""Sampling of regions, the loss of a head and its detections, beside torchvision's and loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import region_heads
from cvjax.errors import UserError
from cvjax.ops import boxes as box_ops

CLASSES = 3


def draw_boxes(random, *shape, span=50.0):
    near = random.uniform(-5, span, (*shape, 2))
    return np.concatenate([near, near + random.uniform(2, 25, (*shape, 2))], -1).astype(np.float32)


def draw_image(seed, proposals=60, objects=5):
    random = np.random.default_rng(seed)
    truth = draw_boxes(random, objects)
    found = draw_boxes(random, proposals)
    found[:30] = truth[random.integers(0, objects, 30)] + random.normal(0, 1, (30, 4))
    present, valid = random.random(objects) < 0.7, random.random(proposals) < 0.9
    labels = random.integers(0, CLASSES, objects).astype(np.int32)
    return tuple(jnp.asarray(x) for x in (found, valid, truth, labels, present))


@partial(jax.jit, static_argnames=("count", "foreground", "background"))
def sample(key, proposals, valid, boxes, labels, present, outside=None, **settings):
    outside = jnp.ones(len(proposals), bool) if outside is None else outside
    return region_heads.sample_regions(key, proposals, valid, boxes, labels, present, outside, **settings)


# --- sampling -----------------------------------------------------------------------------------------------------


def test_regions_inside_crowds_are_objects_but_no_background():
    proposals = jnp.array([[10.0, 10, 20, 20], [40, 40, 50, 50], [60, 60, 70, 70]])
    boxes, crowd = jnp.array([[10.0, 10, 20, 21], [5, 5, 55, 55]]), jnp.array([False, True])
    outside = region_heads.outside_crowds(proposals, boxes, crowd)
    assert outside.tolist() == [False, False, True]
    labels, there = jnp.array([1, 0]), jnp.ones(3, bool)
    found = sample(jax.random.key(0), proposals, there, boxes, labels, ~crowd, outside, count=8)
    drawn = {tuple(box) for box in found.boxes[found.mask].tolist()}
    assert drawn == {(10.0, 10, 20, 20), (10.0, 10, 20, 21), (60.0, 60, 70, 70)}
    assert sorted(found.labels[found.mask].tolist()) == [0, 2, 2]


def test_random_subsets_are_uniform_and_of_the_number_asked_for():
    mask = jnp.arange(12) % 3 > 0  # 8 of them
    draw = jax.jit(jax.vmap(lambda key, count: region_heads.random_subset(key, mask, count), (0, None)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 2000), jnp.int32(2)))
    assert (drawn.sum(1) == 2).all() and not drawn[:, ~np.asarray(mask)].any()
    np.testing.assert_allclose(drawn.mean(0)[np.asarray(mask)], 0.25, atol=0.05)  # five standard deviations
    few = draw(jax.random.split(jax.random.key(0), 3), jnp.int32(20))
    assert (few == mask).all()
    assert not draw(jax.random.split(jax.random.key(0), 3), jnp.int32(-1)).any()


@pytest.mark.parity
def test_what_may_be_drawn_and_its_targets_are_torchvisions(torchvision):
    import torch
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.ops import box_iou

    kinds = set()
    for seed in range(4):
        found, valid, truth, labels, present = draw_image(seed)
        ours = sample(jax.random.key(seed), found, valid, truth, labels, present, count=65, foreground=1.0)
        theirs_truth = torch.tensor(np.asarray(truth)[np.asarray(present)])
        rois = torch.cat([torch.tensor(np.asarray(found)[np.asarray(valid)]), theirs_truth])
        matches = Matcher(0.5, 0.5)(box_iou(theirs_truth, rois))
        names = torch.tensor(np.asarray(labels)[np.asarray(present)]).long()
        expected = torch.where(matches >= 0, names[matches.clamp(min=0)] + 1, 0).numpy()
        targets = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(theirs_truth[matches.clamp(min=0)], rois).numpy()
        assert ours.mask.sum() == len(rois)
        place = {tuple(row): i for i, row in enumerate(rois.numpy().tolist())}
        columns = (ours.boxes, ours.labels, ours.offsets, ours.matched)
        for box, label, offsets, row in zip(*(np.asarray(x)[np.asarray(ours.mask)] for x in columns), strict=True):
            at = place.pop(tuple(box.tolist()))
            assert label == expected[at] and row == (np.flatnonzero(present)[matches[at]] if label else 0)
            if label:
                np.testing.assert_allclose(offsets, targets[at], rtol=1e-4, atol=1e-4)  # float32
            kinds.add(int(label))
        assert not place  # each once
    assert kinds == {0, 1, 2, 3}


def test_a_quarter_at_most_is_of_objects_and_the_rest_is_background():
    found, valid, truth, labels, present = draw_image(0)
    every = sample(jax.random.key(0), found, valid, truth, labels, present, count=65, foreground=1.0)
    objects = int((every.labels > 0).sum())
    assert objects > 8
    seen = set()
    for seed in range(6):
        drawn = sample(jax.random.key(seed), found, valid, truth, labels, present, count=32)
        assert drawn.mask.all() and (drawn.labels > 0).sum() == 8
        seen |= {tuple(box) for box in np.asarray(drawn.boxes)[np.asarray(drawn.labels) > 0].tolist()}
    assert len(seen) > 8  # other ones each time
    # Too few of objects, which are their own boxes here: the more background.
    alone = sample(jax.random.key(0), found, valid & (jnp.arange(60) > 29), truth, labels, present, count=24)
    assert alone.mask.all() and 0 < (alone.labels > 0).sum() < 6


def test_the_share_of_few_regions_is_rounded():
    found, valid, truth, labels, present = draw_image(0)
    drawn = sample(jax.random.key(0), found, valid, truth, labels, present, count=3)  # as in the author's code
    assert (drawn.labels > 0).sum() == 1 == region_heads.count_positives(3, 0.25)
    with pytest.raises(UserError, match=r"a share of 0\.25 of config\.recipe\.regions=2 leaves none for objects"):
        region_heads.count_positives(2, 0.25)


def test_background_has_some_overlap_in_fast_rcnn():
    found, valid, truth, labels, present = draw_image(1)
    drawn = sample(jax.random.key(0), found, valid, truth, labels, present, count=65, background=(0.1, 0.5))
    overlaps = jnp.where(present, box_ops.iou(drawn.boxes, truth), 0).max(1)
    rest = np.asarray(overlaps)[np.asarray(drawn.mask & (drawn.labels == 0))]
    assert len(rest) and (rest >= 0.1).all() and (rest < 0.5).all()
    usual = sample(jax.random.key(0), found, valid, truth, labels, present, count=65)
    assert usual.mask.sum() > drawn.mask.sum()


def test_objects_own_boxes_are_drawn_and_padding_never():
    found, _, truth, labels, present = draw_image(2)
    drawn = sample(jax.random.key(0), found, jnp.zeros(60, bool), truth, labels, present, count=40, foreground=0.5)
    assert {tuple(b) for b in np.asarray(drawn.boxes)[np.asarray(drawn.mask)].tolist()} == {
        tuple(b) for b in np.asarray(truth)[np.asarray(present)].tolist()
    }
    np.testing.assert_allclose(drawn.offsets[np.asarray(drawn.labels) > 0], 0, atol=1e-5)
    spoilt = jnp.where(present[:, None], truth, jnp.nan)
    same = sample(jax.random.key(0), found, jnp.zeros(60, bool), spoilt, labels, present, count=40, foreground=0.5)
    jax.tree.map(np.testing.assert_array_equal, drawn, same)
    nothing = sample(jax.random.key(0), found, jnp.ones(60, bool), truth, labels, present & False, count=40)
    assert nothing.mask.all() and not nothing.labels.any() and jnp.isfinite(nothing.offsets).all()
    line = truth.at[:, 2].set(truth[:, 0])  # empty boxes are no regions
    assert not sample(jax.random.key(0), found, jnp.zeros(60, bool), line, labels, present, count=40).mask.any()


# --- loss and detections ------------------------------------------------------------------------------------------


def draw_outputs(seed=3):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, 20, CLASSES + 1)).astype(np.float32)
    offsets = random.normal(size=(2, 20, CLASSES, 4)).astype(np.float32)
    labels = random.integers(0, CLASSES + 1, (2, 20)).astype(np.int32)
    targets = random.normal(size=(2, 20, 4)).astype(np.float32)
    boxes, mask = draw_boxes(random, 2, 20), random.random((2, 20)) < 0.8
    boxes[:, :2] += 60  # outside
    regions = region_heads.Regions(*(jnp.asarray(x) for x in (boxes, labels, targets, mask, 0 * labels)))
    return jnp.asarray(logits), jnp.asarray(offsets), regions


@pytest.mark.parity
def test_the_loss_is_torchvisions(torchvision):
    import torch
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    logits, offsets, regions = draw_outputs()
    kept = np.asarray(regions.mask)
    with_background = np.concatenate([np.zeros((*kept.shape, 1, 4), np.float32), offsets], 2)
    flat = [torch.tensor(np.asarray(x)[kept]) for x in (logits, with_background, regions.labels, regions.offsets)]
    theirs = fastrcnn_loss(flat[0], flat[1].flatten(1), [flat[2].long()], [flat[3]])
    ours = region_heads.multi_task_loss(logits, offsets, regions, beta=1 / 9)
    np.testing.assert_allclose(ours, [float(x) for x in theirs], rtol=1e-5)  # the order of float32 sums


def test_an_image_without_regions_has_a_loss_of_zero():
    logits, offsets, regions = draw_outputs()
    empty = regions._replace(mask=regions.mask & False, labels=regions.labels * 0 - 1)

    def loss(logits, offsets):
        return sum(region_heads.multi_task_loss(logits, offsets, empty))

    assert loss(logits, offsets) == 0
    assert all((g == 0).all() for g in jax.grad(loss, (0, 1))(logits, offsets))


def test_candidates_are_each_class_of_each_region():
    logits, offsets, regions = draw_outputs()
    boxes, scores, labels = region_heads.find_objects(logits, offsets, regions.boxes, regions.mask, (40, 50))
    assert boxes.shape == (2, 20 * CLASSES, 4)
    for image, region, label in np.ndindex(2, 20, CLASSES):
        exponents = np.exp(np.float64(logits[image, region]))
        near, far = np.split(np.float64(regions.boxes[image, region]), 2)
        deltas = np.float64(offsets[image, region, label]) / [10, 10, 5, 5]
        centre, half = (near + far) / 2 + deltas[:2] * (far - near), (far - near) * np.exp(deltas[2:]) / 2
        expected = np.clip([*(centre - half), *(centre + half)], 0, [50, 40, 50, 40])
        at = region * CLASSES + label
        np.testing.assert_allclose(boxes[image, at], expected, atol=1e-3)
        seen = regions.mask[image, region] and (expected[2:] - expected[:2]).min() >= 0.01
        chance = exponents[label + 1] / exponents.sum() if seen else 0
        assert scores[image, at] == pytest.approx(chance, abs=1e-6) and labels[image, at] == label


def test_the_head_begins_with_small_offsets_and_drops_only_while_training():
    head = region_heads.RegionHead(CLASSES, hidden=32, dropout=0.5)
    pooled = jax.random.normal(jax.random.key(0), (2, 5, 3, 3, 8))
    (logits, offsets), variables = head.init_with_output(jax.random.key(1), pooled)
    assert logits.shape == (2, 5, CLASSES + 1) and offsets.shape == (2, 5, CLASSES, 4)
    assert jnp.abs(offsets).max() < 0.4 * jnp.abs(logits).max()  # a tenth of the deviation, three times the numbers
    apply = jax.jit(lambda key: head.apply(variables, pooled, train=True, rngs={"dropout": key})[0])
    assert (apply(jax.random.key(0)) != apply(jax.random.key(1))).any()
    np.testing.assert_array_equal(head.apply(variables, pooled)[0], logits)
