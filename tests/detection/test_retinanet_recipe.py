"""RetinaNet as a whole: outputs, training that stays finite and learns, averages, detections, mistakes."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.core import variables
from cvjax.detection import retinanet
from cvjax.detection.detector import Detection
from cvjax.errors import UserError
from cvjax.nets.resnet import ResNet, stage_strides

SHAPE, CLASSES = (32, 32, 3), 3
SMALL = dict(
    shape=SHAPE,
    classes=CLASSES,
    depth=18,
    width=4,
    stem="small",
    strides=(2, 2, 2),
    levels=(3, 4, 5),
    sizes=(6.0, 12.0, 24.0),
    channels=8,
    subnet_depth=1,
    subnet_deviation=0.1,
    candidates=50,
    detection=Detection(score_threshold=0.05, max_detections=20),
    optimiser={"name": "adam", "learning_rate": 3e-3},
)


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


@pytest.fixture(scope="module")
def system():
    """The recipe, its first state and the compiled step."""

    def deviation(names, shape):
        *window, inputs, outputs = shape
        if names[0] == "retinanet":
            return math.sqrt(1 / math.prod(window) / inputs) if "fpn" in names else 0.1
        return math.sqrt(2 / math.prod(window) / outputs)

    recipe = retinanet.recipe(**SMALL, ema=0.5)
    state = draw_state(recipe, make_batch(), deviation=deviation)
    for network in (state.params["retinanet"], state.average["retinanet"]["params"]):
        network["classification"]["output"]["bias"] -= math.log(99)
    return recipe, state, jax.jit(recipe.train_step)


def test_the_backbone_has_the_variables_of_a_classifiers():
    recipe, backbone = retinanet.recipe(**SMALL, ema=0.5), ResNet(18, 4, "small", (2, 2, 2))
    state = jax.eval_shape(recipe.init, jax.random.key(0), make_batch())
    expected = jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))  # a classifier's
    assert recipe.networks["resnet"] == backbone and {*recipe.networks} == {"resnet", "retinanet"}
    assert state.average["resnet"] == variables(state, "resnet", averaged=False) == expected
    assert {"params", "batch_stats"} == {*expected} and {*state.stats} == {"resnet"}


@pytest.mark.parametrize("fpn", [True, False])
def test_there_is_an_output_for_every_anchor(fpn):
    arguments = {**SMALL, "shape": (45, 37, 3), "fpn": fpn}
    recipe = retinanet.recipe(**arguments)
    batch = {"image": jnp.zeros((2, 45, 37, 3))}
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    found = jax.eval_shape(recipe.eval_step, state, batch, jax.random.key(0))  # decoding fails where they differ
    assert found["boxes"].shape == (2, 20, 4)
    # Twelve rows and ten columns of stride 4, and so on; without a pyramid all 27 anchors of a cell are on stride 8.
    places = [12 * 10, 6 * 5, 3 * 3] if fpn else [3 * 6 * 5]
    stages = stage_strides("small", (2, 2, 2))
    anchors = retinanet.lay_anchors(
        (45, 37), stages, (3, 4, 5), (6.0, 12.0, 24.0), (1.0, 1.26, 1.59), (0.5, 1.0, 2.0), fpn
    )
    assert [len(level) for level in anchors] == [9 * count for count in places]
    output = state.params["retinanet"]["classification"]["output"]["kernel"]
    assert output.shape[-1] == (9 if fpn else 27) * CLASSES


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", SPOILT)
def test_losses_and_gradients_stay_finite_and_small(system, how):
    _, state, step = system
    usual, (after, metrics) = (step(state, b, jax.random.key(0)) for b in (make_batch(), spoil(make_batch(), how)))
    assert finite(after, metrics) and metrics["loss/total"] < 10 * usual[1]["loss/total"]
    assert metrics["loss/classification"] > 0
    moved = jnp.abs(after.params["retinanet"]["classification"]["output"]["bias"] + math.log(99))
    assert moved.min() > 0  # background is learnt from all the same


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_crowd_and_difficult_objects_are_not_trained_on(system, flag):
    _, state, step = system
    batch = make_batch()
    without = {**batch, "mask": batch["mask"].at[:, 0].set(False)}
    flagged = {**batch, flag: batch[flag].at[:, 0].set(True)}
    one, two, all_ = (step(state, each, jax.random.key(0))[1] for each in (without, flagged, batch))
    assert one == two and one != all_


def test_learns_to_find_rectangles(system):
    recipe, state, step = system
    for index in range(200):
        state, _ = step(state, make_batch(index, most=1), jax.random.key(index))
    held_out = [make_batch(seed, most=1) for seed in range(1000, 1004)]
    rows = [(batch, recipe.eval_step(state, batch, jax.random.key(0))) for batch in held_out]
    figures = recipe.score(jax.device_get(rows))
    assert figures["map_voc07"] > 0.4  # .6 or so; untrained it is 0
    pictures = recipe.visualise(state, held_out[0], jax.random.key(0))["detections"]
    assert pictures.shape[0] == 8 and pictures.min() >= 0 and pictures.max() <= 1


def test_average_is_of_parameters_and_statistics_and_detects(system):
    recipe, state, step = system
    batch, key = make_batch(), jax.random.key(0)
    after, _ = step(state, batch, key)
    decay = min(0.5, 1 / 10)  # of step 0
    expected = jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new,
        state.average,
        {name: variables(after, name, averaged=False) for name in ("resnet", "retinanet")},
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.average, expected)
    latest_spoilt = after.replace(
        params=jax.tree.map(jnp.zeros_like, after.params), stats=jax.tree.map(jnp.ones_like, after.stats)
    )
    average_spoilt = after.replace(average=jax.tree.map(jnp.ones_like, after.average))
    found, same, other = (
        recipe.eval_step(each, batch, key)["scores"] for each in (after, latest_spoilt, average_spoilt)
    )
    assert (found == same).all() and not (found == other).all()


# --- detection ----------------------------------------------------------------------------------------------------


def test_detections_are_sorted_and_score_more_than_the_threshold(system):
    recipe, state, _ = system
    found = recipe.eval_step(state, make_batch(), jax.random.key(0))
    scores = found["scores"]
    assert (scores[found["detected"]] > 0.05).all() and (jnp.diff(scores, axis=1) <= 0).all()


def test_detections_equal_loops_over_levels_and_pairs(system):
    """Section 4.1: score over .05, a number of pairs a level (of which the paper decodes 1,000), suppression at .5."""
    state, batch = system[1], make_batch()
    detect = retinanet.recipe(**{**SMALL, "detection": Detection(0.05, max_detections=150)}, ema=0.5).eval_step
    bias = state.average["retinanet"]["params"]["classification"]["output"]["bias"]
    average = jax.tree.map(lambda leaf: jnp.zeros_like(leaf) - 3.1 if leaf is bias else leaf, state.average)
    state = state.replace(average=average)
    found = jax.device_get(detect(state, batch, jax.random.key(0)))

    @jax.jit
    def look(images):
        stages = ResNet(18, 4, "small", (2, 2, 2)).apply(average["resnet"], images)
        return retinanet.RetinaNet(CLASSES, 9, (3, 4, 5), channels=8, depth=1).apply(average["retinanet"], stages)

    levels, counts, lengths = jax.device_get(look(batch["image"])), [], []
    sizes, scales, ratios = SMALL["sizes"], (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), (0.5, 1.0, 2.0)
    laid = retinanet.lay_anchors((32, 32), stage_strides("small", (2, 2, 2)), (3, 4, 5), sizes, scales, ratios)
    for image in range(2):
        pairs = []
        for (logits, deltas), anchors in zip(levels, jax.device_get(laid), strict=True):
            scores = 1 / (1 + np.exp(-np.float64(logits[image])))
            best = np.argsort(-scores, axis=None, kind="stable")[: SMALL["candidates"]]
            counts.append((scores > 0.05).sum())
            for anchor, label in zip(*np.unravel_index(best, scores.shape), strict=True):
                near, far = anchors[anchor, :2], anchors[anchor, 2:]
                centre = (near + far) / 2 + deltas[image, anchor, :2] * (far - near)
                half = (far - near) * np.exp(deltas[image, anchor, 2:]) / 2
                box = np.clip(np.concatenate([centre - half, centre + half]), 0, 32)
                pairs.append((scores[anchor, label], label, box))
        kept = []
        for score, label, box in sorted(pairs, key=lambda pair: -pair[0]):
            rivals = [other for _, same, other in kept if same == label]
            if score > 0.05 and all(overlap(box, other) <= 0.5 for other in rivals):
                kept.append((score, label, box))
        for i, (score, label, box) in enumerate(kept):
            assert found["labels"][image, i] == label and found["scores"][image, i] == pytest.approx(score, rel=1e-4)
            np.testing.assert_allclose(found["boxes"][image, i], box, atol=1e-3)
        assert found["detected"][image].sum() == len(kept)
        lengths.append((len(kept), sum(score > 0.05 for score, *_ in pairs), len(pairs)))
    assert max(counts) > SMALL["candidates"]  # there are levels with more than are decoded
    assert all(kept < likely < pairs for kept, likely, pairs in lengths)  # both thresholds leave some out


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - sides.prod()
    return sides.prod() / union if union > 0 else 0.0


def test_flip_test_searches_the_mirrored_image_too(system):
    _, state, _ = system
    recipe = retinanet.recipe(**{**SMALL, "detection": Detection(0.0, max_detections=20, flip_test=True)})
    state = state.replace(average={})
    found = recipe.predict(state, make_batch(), jax.random.key(0))
    assert found["detected"].any()
    # In mirrored images it finds what it finds, mirrored, because it looks at both.
    mirrored = recipe.predict(state, {"image": make_batch()["image"][:, :, ::-1]}, jax.random.key(0))
    np.testing.assert_allclose(mirrored["scores"], found["scores"], atol=1e-6)
    boxes = jnp.stack([SHAPE[1] - found["boxes"][..., 2], found["boxes"][..., 1]], -1)
    np.testing.assert_allclose(jnp.sort(mirrored["boxes"][..., :2].sum(-1)), jnp.sort(boxes.sum(-1)), atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(sizes=(8.0,)), r"sizes=\(8.0,\): levels=\(3, 4, 5\) need 3"),
        (dict(fpn=False, strides=(2, 2)), "fpn=False"),
        (dict(stem="smalls"), "Did you mean 'small'"),
    ],
)
def test_refuses_arguments_that_do_not_fit(wrong, message):
    if "stem" in wrong:
        with pytest.raises(UserError, match=message):
            stage_strides(wrong["stem"], (2,))
        return
    with pytest.raises(UserError, match=message):
        retinanet.recipe(**{**SMALL, **wrong})


def test_refuses_images_of_another_size(system):
    with pytest.raises(UserError, match=r"config\.recipe\.shape"):
        system[0].init(jax.random.key(0), {"image": jnp.zeros((1, 16, 16, 3))})
