"""Mask R-CNN: training that stays finite and learns masks and joints, and what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import mask_rcnn
from cvjax.detection.detector import Detection
from cvjax.detection.faster_rcnn import Classifying, Features
from cvjax.detection.mask_rcnn import Branches
from cvjax.detection.rpn import Proposing
from cvjax.errors import UserError

SHAPE, CLASSES, JOINTS = (32, 32, 3), 2, 2
OBJECTS = 300  # rows of a batch, most of them padding
PROPOSING = Proposing(
    channels=8,
    sizes=((8.0, 12.0),),
    ratios=(1.0,),
    anchors=32,
    before=60,
    after=20,
    test_before=60,
    test_after=20,
    smallest=3.0,
)
SMALL = dict(
    shape=SHAPE,
    classes=CLASSES,
    keypoints=JOINTS,
    features=Features("resnet", depth=18, width=4, stem="small", strides=(2, 2)),
    proposing=PROPOSING,
    classifying=Classifying("align", pooled=3, hidden=16, dropout=0.0, count=16),
    branches=Branches(pooled=6, mask_channels=(12,), keypoint_channels=(12, 12), sigmas=(0.1, 0.1)),
    detection=Detection(score_threshold=0.05, max_detections=8),
    optimiser={"name": "adam", "learning_rate": 5e-3},
)


def make_batch(seed=0, most=3, batch=8, objects=OBJECTS, full=False):
    """Images of noise with triangles, the lower left or the upper right half of a box, in the colour of their class.

    The joints are the two corners on the diagonal, the second of which is hidden in half of the objects and not
    labelled in others.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.3, (batch, *SHAPE)).astype(np.float32)
    near = rng.integers(0, 18, (batch, objects, 2))
    boxes = np.concatenate([near, near + rng.integers(8, 15, (batch, objects, 2))], axis=-1).astype(np.float32)
    labels = rng.integers(0, CLASSES, (batch, objects)).astype(np.int32)
    mask = np.arange(objects) < (objects if full else rng.integers(1, most + 1, (batch, 1)))
    mask = np.broadcast_to(mask, labels.shape)
    instances = np.zeros((batch, *SHAPE[:2]), np.int32)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    for image, row in zip(*np.nonzero(mask), strict=True):
        x1, y1, x2, y2 = boxes[image, row]
        share = (x - x1) / (x2 - x1) - (y - y1) / (y2 - y1)
        half = share < 0 if labels[image, row] else share >= 0
        inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & half
        images[image][inside] = np.eye(3)[labels[image, row]]
        instances[image][inside] = 1 + row
    keypoints = boxes.reshape(batch, objects, 2, 2) * mask[..., None, None]
    visibility = np.stack([np.full(labels.shape, 2), rng.integers(0, 3, labels.shape)], -1) * mask[..., None]
    boxes[~mask], labels[~mask] = 0, 0
    nothing = np.zeros_like(mask)
    batch = dict(image=images, boxes=boxes, labels=labels, mask=mask, difficult=nothing, crowd=nothing)
    batch |= dict(instances=instances, keypoints=keypoints.astype(np.float32), visibility=visibility.astype(np.int32))
    return {name: jnp.asarray(value) for name, value in batch.items()}


def one_pixel(batch):
    """An object of one pixel alone in each image, the last one in the corner."""
    corner = jnp.where(jnp.arange(8) < 7, 5, 31)
    box = jnp.stack([corner, corner, corner + 1, corner + 1], -1).astype(jnp.float32)
    instances = jnp.zeros((8, 32, 32), jnp.int32).at[jnp.arange(8), corner, corner].set(1)
    joints = batch["keypoints"].at[:, 0].set(box.reshape(8, 2, 2))
    present = jnp.zeros_like(batch["mask"]).at[:, 0].set(True)
    return {"boxes": batch["boxes"].at[:, 0].set(box), "mask": present, "instances": instances, "keypoints": joints}


MORE = {"one pixel": one_pixel, "three hundred": lambda _: make_batch(full=True)}


def deviation(names, shape):
    return math.sqrt(2 / math.prod(shape[:-1])) if names[-2] not in ("logits", "offsets") else 0.01


@pytest.fixture(scope="module")
def system():
    """The recipe, its first state and the compiled step."""
    recipe = mask_rcnn.recipe(**SMALL, ema=0.5)
    return recipe, draw_state(recipe, make_batch(), deviation=deviation), jax.jit(recipe.train_step)


@pytest.mark.parametrize("how", [*SPOILT, *MORE])
def test_losses_and_gradients_stay_finite(system, how):
    _, state, step = system
    batch = make_batch()
    spoilt = {**batch, **MORE[how](batch)} if how in MORE else spoil(batch, how)
    if "padding" in how:
        spoilt["keypoints"] = jnp.where(spoilt["mask"][..., None, None], spoilt["keypoints"], jnp.nan)
    after, metrics = step(state, spoilt, jax.random.key(0))
    assert finite(after, metrics)
    if how == "no objects":
        assert metrics["loss/masks"] == 0 and metrics["loss/keypoints"] == 0
    if how in MORE:
        assert metrics["loss/masks"] > 0 and metrics["loss/keypoints"] > 0 and metrics["positive_regions"] > 0.5


def test_learns_masks_and_joints(system):
    recipe, state, step = system
    first = step(state, make_batch(0, most=1), jax.random.key(0))[1]
    for index in range(250):
        state, last = step(state, make_batch(index, most=1), jax.random.key(index))
    assert last["loss/masks"] < 0.5 * first["loss/masks"] and last["loss/keypoints"] < 0.6 * first["loss/keypoints"]
    held_out = [make_batch(seed, most=1) for seed in range(1000, 1004)]
    rows = jax.device_get([(b, recipe.eval_step(state, b, jax.random.key(0))) for b in held_out])
    figures = recipe.score(iter(rows))
    assert figures["map_voc07"] > 0.5 and figures["mask_ap50"] > 0.5 and figures["keypoint_ap50"] > 0.5
    for _, found in rows:
        padding = ~found["detected"]
        assert not found["masks"][padding].any() and not found["keypoints"][padding].any()
        assert found["masks"].shape == (8, 8, 12, 12) and found["keypoints"].shape == (8, 8, JOINTS, 3)
    pictures = recipe.visualise(state, held_out[0], jax.random.key(0))["detections"]
    assert pictures.shape[0] == 8 and pictures.min() >= 0 and pictures.max() <= 1


def test_masks_of_objects_come_as_a_stack_or_as_a_map():
    batch = make_batch()
    stack = {**batch, "masks": jnp.zeros((8, OBJECTS, 32, 32), bool)}
    assert mask_rcnn.object_masks(stack) is stack["masks"]
    masks = mask_rcnn.object_masks(batch)
    assert masks.shape == (8, OBJECTS, 32, 32) and (masks.argmax(1) + masks.any(1) == batch["instances"]).all()


@pytest.mark.parametrize("kind", ["pool", "fpn", "masks alone", "joints alone", "mirrored"])
def test_the_other_kinds_have_the_same_shapes(kind):
    sizes = ((6.0,), (8.0,), (12.0,))
    features = Features("resnet", depth=18, width=4, stem="small", strides=(2, 2), fpn=True, channels=8)
    changes = {
        "pool": dict(classifying=Classifying("pool", pooled=3, hidden=16, dropout=0.0, count=16)),
        "fpn": dict(features=features, proposing=Proposing(8, sizes, after=20, test_after=20)),
        "masks alone": dict(keypoints=None),
        "joints alone": dict(masks=False),
        "mirrored": dict(detection=Detection(max_detections=8, flip_test=True)),
    }
    recipe = mask_rcnn.recipe(**{**SMALL, **changes[kind]})
    batch = make_batch(batch=2)
    if kind == "joints alone":
        del batch["instances"]
    if kind == "masks alone":
        del batch["keypoints"], batch["visibility"]
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    after, metrics = jax.eval_shape(recipe.train_step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    found = jax.eval_shape(recipe.eval_step, state, batch, jax.random.key(0))
    parts = {"masks": kind != "joints alone", "keypoints": kind != "masks alone"}
    for name, there in parts.items():
        assert (name in found) == there == (f"loss/{name}" in metrics)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(masks=False, keypoints=None), "without masks and keypoints this is .*faster_rcnn"),
        (dict(keypoints=5), "one for each of the 5 joints, and there are 2"),
        (dict(classifying=Classifying("align", count=2)), "leaves none for objects"),
    ],
)
def test_refuses_arguments_that_do_not_fit(wrong, message):
    with pytest.raises(UserError, match=message):
        mask_rcnn.recipe(**{**SMALL, **wrong})


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("instances", r"config\.recipe\.masks=True: the batches have no masks\. Set config\.data\.keep"),
        ("keypoints", r"config\.recipe\.keypoints=2: the batches have no joints\. Set config\.data\.keypoints"),
        ("a joint", r"config\.recipe\.keypoints=2: the dataset's objects have 1 joints"),
    ],
)
def test_refuses_batches_without_what_it_learns(missing, message):
    batch = make_batch(batch=2)
    if missing == "a joint":
        batch["keypoints"] = batch["keypoints"][:, :, :1]
    else:
        del batch[missing]
    with pytest.raises(UserError, match=message):
        jax.eval_shape(mask_rcnn.recipe(**SMALL).init, jax.random.key(0), batch)
