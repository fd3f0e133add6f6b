"""Faster R-CNN: training that stays finite and learns, and what it refuses."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import faster_rcnn
from cvjax.detection.detector import Detection
from cvjax.detection.faster_rcnn import Classifying, Features
from cvjax.detection.rpn import Proposing
from cvjax.errors import UserError

SHAPE, CLASSES = (32, 32, 3), 3
FEATURES = Features("resnet", depth=18, width=4, stem="small", strides=(2, 2))
PROPOSING = Proposing(
    channels=8,
    sizes=((6.0, 10.0),),
    ratios=(1.0,),
    anchors=32,
    before=60,
    after=20,
    test_before=60,
    test_after=20,
    smallest=3.0,
)
CLASSIFYING = Classifying("align", pooled=3, hidden=16, dropout=0.0, count=16)
SMALL = dict(
    shape=SHAPE,
    classes=CLASSES,
    features=FEATURES,
    proposing=PROPOSING,
    classifying=CLASSIFYING,
    detection=Detection(score_threshold=0.05, max_detections=20),
    optimiser={"name": "adam", "learning_rate": 5e-3},
)

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
    change = dataclasses.replace
    pyramid = dict(features=change(FEATURES, fpn=True, channels=8), classifying=change(CLASSIFYING, canonical=10.0))
    changes = {
        "pool": dict(classifying=change(CLASSIFYING, pooling="pool")),
        "fpn": pyramid | dict(proposing=change(PROPOSING, sizes=((4.0,), (8.0,), (16.0,)))),
        "vgg": dict(features=change(FEATURES, backbone="vgg", depth=11), classifying=change(CLASSIFYING, dropout=0.5)),
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
        (
            dict(proposing=dict(sizes=((8.0,), (16.0,)))),
            r"1 groups of one length, for levels of cells of \(4,\) pixels",
        ),
        (dict(features=dict(fpn=True)), "3 groups"),
        (dict(features=dict(fpn=True), proposing=dict(sizes=((8.0,), (16.0,), (3.0, 4.0)))), "of one length"),
        (dict(features=dict(backbone="vgg", depth=18)), "depth=11, 13, 16, 19"),
        (dict(features=dict(backbone="vgg", depth=16, fpn=True)), "no pyramid"),
        (dict(features=dict(strides=())), "one to four stages"),
        (dict(proposing=dict(ratios=())), "some of each"),
        (dict(classifying=dict(count=2)), "config.recipe.classifying.count=2 leaves none for objects"),
        (dict(shape=(32, 32, 4)), "one channel or three"),
    ],
)
def test_refuses_arguments_that_do_not_fit(wrong, message):
    given = {k: dataclasses.replace(SMALL[k], **v) if isinstance(v, dict) else v for k, v in wrong.items()}
    with pytest.raises(UserError, match=message):
        faster_rcnn.recipe(**{**SMALL, **given})
