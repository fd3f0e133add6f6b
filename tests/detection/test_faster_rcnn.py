"""Faster R-CNN: anchors drawn, proposals, training that stays finite and learns, and torchvision's detections."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import faster_rcnn
from cvjax.detection.detector import Detection
from cvjax.errors import UserError
from cvjax.ops import anchors as grids

SHAPE, CLASSES = (32, 32, 3), 3
SMALL = dict(
    shape=SHAPE,
    classes=CLASSES,
    backbone="resnet",
    depth=18,
    width=4,
    stem="small",
    strides=(2, 2),
    rpn_channels=8,
    sizes=((6.0, 10.0),),
    ratios=(1.0,),
    pooling="align",
    pooled=3,
    hidden=16,
    dropout=0.0,
    anchors=32,
    regions=16,
    proposing=faster_rcnn.Proposing(60, 20, 60, 20, smallest=3.0),
    detection=Detection(score_threshold=0.05, max_detections=20),
    optimiser={"name": "adam", "learning_rate": 5e-3},
)

# --- anchors ------------------------------------------------------------------------------------------------------


def lay(size=(48, 64)):
    cells = grids.cell_anchors(12, (0.7, 1.0, 1.6), (0.5, 1.0, 2.0))
    return grids.grid((size[0] // 4, size[1] // 4), 4, cells)


def draw_objects(seed, count=4):
    random = np.random.default_rng(seed)
    near = random.uniform(0, 36, (count, 2))
    boxes = np.concatenate([near, np.minimum(near + random.uniform(5, 25, (count, 2)), [64, 48])], 1)
    return jnp.asarray(boxes, jnp.float32), jnp.asarray(random.random(count) < 0.8)


draw = jax.jit(partial(faster_rcnn.sample_anchors, size=(48, 64)), static_argnames="count")


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
    ours = faster_rcnn.proposal_loss(*arrays, drawn)
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
    proposing = faster_rcnn.Proposing(90, 60, 40, 25, smallest=6.0)
    small = False
    for train, before, after in ((True, 90, 60), (False, 40, 25)):
        boxes, valid = faster_rcnn.propose(logits, offsets, laid, (48, 64), proposing, train)
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
    assert small


# --- the system ---------------------------------------------------------------------------------------------------


def make_batch(seed=0, most=3, batch=8, objects=3):
    """Images of noise with bright rectangles in the colour of their class."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.3, (batch, *SHAPE)).astype(np.float32)
    near = rng.integers(0, 20, (batch, objects, 2))
    boxes = np.concatenate([near, near + rng.integers(6, 13, (batch, objects, 2))], axis=-1).astype(np.float32)
    labels = rng.integers(0, CLASSES, (batch, objects)).astype(np.int32)
    mask = np.arange(objects) < rng.integers(1, most + 1, (batch, 1))
    for image, row in itertools.product(range(batch), range(objects)):
        if mask[image, row]:
            x1, y1, x2, y2 = boxes[image, row].astype(int)
            images[image, y1:y2, x1:x2] = 0.1
            images[image, y1:y2, x1:x2, labels[image, row]] = 0.9
    boxes[~mask], labels[~mask] = 0, 0
    nothing = np.zeros_like(mask)
    batch = dict(image=images, boxes=boxes, labels=labels, mask=mask, difficult=nothing, crowd=nothing)
    return {name: jnp.asarray(value) for name, value in batch.items()}


def deviation(names, shape):
    return math.sqrt(2 / math.prod(shape[:-1])) if names[-2] not in ("logits", "offsets") else 0.01


@pytest.fixture(scope="module")
def system():
    """The recipe, its first state and the compiled step."""
    recipe = faster_rcnn.recipe(**SMALL, ema=0.5)
    return recipe, draw_state(recipe, make_batch(), deviation=deviation), jax.jit(recipe.train_step)


@pytest.mark.parametrize("how", SPOILT)
def test_losses_and_gradients_stay_finite_and_small(system, how):
    _, state, step = system
    usual, (after, metrics) = (step(state, b, jax.random.key(0)) for b in (make_batch(), spoil(make_batch(), how)))
    assert finite(after, metrics) and metrics["loss/total"] < 10 * usual[1]["loss/total"]
    assert metrics["loss/objectness"] > 0 and metrics["loss/classification"] > 0


def test_learns_to_find_rectangles(system):
    recipe, state, step = system
    for index in range(250):
        state, _ = step(state, make_batch(index, most=1), jax.random.key(index))
    held_out = [make_batch(seed, most=1) for seed in range(1000, 1004)]
    figures = recipe.score(jax.device_get([(b, recipe.eval_step(state, b, jax.random.key(0))) for b in held_out]))
    assert figures["map_voc07"] > 0.4
    pictures = recipe.visualise(state, held_out[0], jax.random.key(0))["detections"]
    assert pictures.shape[0] == 8 and pictures.min() >= 0 and pictures.max() <= 1


@pytest.mark.parametrize("kind", ["pool", "fpn", "vgg"])
def test_the_other_kinds_have_the_same_shapes_and_no_call_of_the_host(kind):
    sizes = ((4.0,), (8.0,), (16.0,))
    changes = {
        "pool": dict(pooling="pool"),
        "fpn": dict(fpn=True, sizes=sizes, channels=8, canonical=10.0),
        "vgg": dict(backbone="vgg", depth=11, dropout=0.5),
    }
    recipe = faster_rcnn.recipe(**{**SMALL, **changes[kind]})
    batch = make_batch(batch=2)
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    after, _ = jax.eval_shape(recipe.train_step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    expected = {
        "pool": {"resnet", "rpn", "head"},
        "fpn": {"resnet", "fpn", "rpn", "head"},
        "vgg": {"vgg", "rpn", "head"},
    }
    assert {*recipe.networks} == expected[kind]
    frame = jax.make_jaxpr(recipe.eval_step)(state, batch, jax.random.key(0))
    assert "callback" not in str(frame) and frame.out_avals[0].shape == (2, 20, 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(sizes=((8.0,), (16.0,))), r"1 groups of one length, for levels of cells of \(4,\) pixels"),
        (dict(fpn=True), "3 groups"),
        (dict(fpn=True, sizes=((8.0,), (16.0,), (3.0, 4.0))), "of one length"),
        (dict(backbone="vgg", depth=18), "depth=11, 13, 16, 19"),
        (dict(backbone="vgg", depth=16, fpn=True), "no pyramid"),
        (dict(strides=()), "one to four stages"),
        (dict(ratios=()), "some of each"),
        (dict(regions=2), "leaves no regions of objects"),
        (dict(shape=(32, 32, 4)), "one channel or three"),
    ],
)
def test_refuses_arguments_that_do_not_fit(wrong, message):
    with pytest.raises(UserError, match=message):
        faster_rcnn.recipe(**{**SMALL, **wrong})
