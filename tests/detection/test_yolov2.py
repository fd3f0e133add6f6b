"""YOLOv2's recipe on a small network: what a step does, what it detects, which sizes it sees, and that it learns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.core import variables
from cvjax.detection import region, yolov2
from cvjax.detection.detector import Detection
from cvjax.errors import UserError
from cvjax.nets.darknet import Darknet

SHAPE, ANCHORS, NAMES = (32, 48, 3), ((1.0, 1.5), (2.0, 2.0)), ("cat", "dog", "cow")
BATCH = 8
SMALL = dict(width=4, stages=(1, 1), head=1)  # cells of 2 pixels


def make_recipe(**options):
    options = dict(ema=0.9, optimiser=dict(name="sgd", learning_rate=1e-2)) | options
    return yolov2.recipe(SHAPE, NAMES, ANCHORS, **(dict(width=8, stages=(1, 1, 1)) | options))


def make_batch(seed=0, batch=BATCH):
    """Noise with bright rectangles, which are the objects; the last row of each image is padding."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 0.3, size=(batch, *SHAPE)).astype(np.float32)
    boxes, labels = np.zeros((batch, 3, 4), np.float32), generator.integers(3, size=(batch, 3)).astype(np.int32)
    for image, slot in np.ndindex(batch, 2):
        x, y = generator.integers((24 * slot, 0), (24 * slot + 14, 18))
        boxes[image, slot] = x, y, x + generator.integers(6, 10), y + generator.integers(6, 14)
        x1, y1, x2, y2 = boxes[image, slot].astype(int)
        images[image, y1:y2, x1:x2, labels[image, slot]] = 1
    mask = np.tile([True, True, False], (batch, 1))
    flags = {name: np.zeros_like(mask) for name in ("difficult", "crowd")}
    return jax.tree.map(jnp.asarray, dict(image=images, boxes=boxes, labels=labels, mask=mask, **flags))


@pytest.fixture(scope="module")
def trained():
    """The recipe, its state after 200 steps on one batch, the batch, and the metrics of each step."""

    def deviation(names, shape):  # large where normalised: running variances are slow to forget that they start at 1
        return (1 if "predictions" in names else 2) / math.sqrt(math.prod(shape[:-1]))

    recipe, batch = make_recipe(prior_images=3 * BATCH, optimiser=dict(name="adam", learning_rate=1e-2)), make_batch()
    step, state, metrics = jax.jit(recipe.train_step), draw_state(recipe, batch, deviation=deviation), []
    for index in range(200):
        state, values = step(state, batch, jax.random.key(index))
        metrics.append(jax.device_get(values))
    return recipe, state, batch, metrics


@pytest.fixture(scope="module")
def started():
    """A smaller recipe, its first state, a batch, and the compiled step."""
    recipe, batch = make_recipe(**SMALL), make_batch()
    return recipe, draw_state(recipe, batch), batch, jax.jit(recipe.train_step)


def overlap(a, b):
    sides = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]))
    return sides.prod() / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - sides.prod())


def test_learns_to_detect(trained):
    recipe, state, batch, metrics = trained
    assert metrics[-1]["loss/total"] < metrics[3]["loss/total"] / 4
    found = jax.device_get(recipe.eval_step(state, batch, jax.random.key(0)))
    truth = jax.device_get(batch)
    for image, slot in np.ndindex(BATCH, 2):
        same = found["labels"][image, :2] == truth["labels"][image, slot]
        overlaps = [overlap(box, truth["boxes"][image, slot]) for box in found["boxes"][image, :2][same]]
        assert max(overlaps, default=0) > 0.5


def test_detections_have_the_shapes_and_order_of_all_detectors(trained):
    recipe, state, batch, _ = trained
    key = jax.random.key(0)
    for found in (recipe.eval_step(state, batch, key), recipe.predict(state, {"image": batch["image"]}, key)):
        shapes = {name: (value.shape, value.dtype) for name, value in found.items()}
        assert shapes == {
            "boxes": ((BATCH, 100, 4), jnp.float32),
            "scores": ((BATCH, 100), jnp.float32),
            "labels": ((BATCH, 100), jnp.int32),
            "detected": ((BATCH, 100), bool),
        }
        assert (np.diff(found["scores"], axis=1) <= 0).all() and found["detected"].any(1).all()
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= np.array([48, 32, 48, 32])).all()
        assert (found["scores"][found["detected"]] > 0.005).all() and not found["scores"][~found["detected"]].any()


def test_figures_and_drawings(trained):
    recipe, state, batch, _ = trained
    rows = jax.device_get((batch, recipe.eval_step(state, batch, jax.random.key(0))))
    figures = recipe.score(iter([rows]))
    assert figures["map_voc07"] > 0.9 and {"ap", "voc07/cat", "ap/cow"} <= set(figures)
    drawn = recipe.visualise(state, batch, jax.random.key(0))["detections"]
    assert drawn.ndim == 4 and drawn.shape[-1] == 3 and 0 <= drawn.min() <= drawn.max() <= 1


def test_the_prior_ends_after_the_first_images(trained):
    metrics = trained[3]
    assert [m["loss/prior"] > 0 for m in metrics[:5]] == [True, True, True, False, False]


def test_a_step_descends_the_mean_loss_and_averages_parameters_and_statistics(started):
    _, state, batch, step = started
    net = yolov2.YoloV2(len(ANCHORS), len(NAMES), **SMALL)
    after, metrics = step(state, batch, jax.random.key(0))

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params):
        detector = {"params": params, "batch_stats": state.stats["detector"]}
        outputs, new = net.apply(detector, batch["image"], train=True, mutable=["batch_stats"])
        truth = batch["boxes"], batch["labels"], batch["mask"]
        parts, _ = region.losses(outputs, *truth, ANCHORS, 2, prior_weight=0.01)
        return sum(parts.values()).mean(), (parts, new["batch_stats"])

    slope, (parts, stats) = gradient(state.params["detector"])
    expected = jax.tree.map(lambda p, g: p - 1e-2 * g, state.params["detector"], slope)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)  # two orders of the same float32 sums
    jax.tree.map(near, after.params["detector"], expected)
    for name, part in parts.items():
        near(metrics[f"loss/{name}"], part.mean())
    old, new = variables(state, "detector", averaged=False), {"params": expected, "batch_stats": stats}
    # (1 + 0) / (10 + 0) of the old average, which the first step starts from, is kept.
    jax.tree.map(lambda e, a, b: near(e, 0.1 * a + 0.9 * b), after.average["detector"], old, new)
    jax.tree.map(near, after.stats["detector"], stats)


def test_the_average_detects(trained):
    recipe, state, batch, _ = trained
    broken = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    for each in (state, broken):
        found = recipe.predict(each, batch, jax.random.key(0))
        assert found["scores"].max() > 0.5


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_and_small(started, how):
    _, state, batch, step = started
    usual, (after, metrics) = (step(state, b, jax.random.key(0)) for b in (batch, spoil(batch, how)))
    assert finite(after, metrics) and metrics["loss/total"] < 50 * usual[1]["loss/total"]  # logarithms of sizes


def test_difficult_and_crowd_objects_are_not_trained_on(started):
    _, state, batch, step = started
    hidden = batch["mask"] & np.array([True, False, False])
    expected = step(state, {**batch, "mask": hidden}, jax.random.key(0))[1]
    for flag in ("difficult", "crowd"):
        metrics = step(state, {**batch, flag: ~hidden}, jax.random.key(0))[1]
        assert jax.device_get(metrics) == jax.device_get(expected)


def test_flip_test_makes_detections_of_mirrored_images_mirrored(trained):
    _, state, batch, _ = trained
    recipe = make_recipe(detection=Detection(0.005, 0.45, flip_test=True))
    key, images = jax.random.key(0), batch["image"]
    found = jax.device_get(recipe.predict(state, {"image": images}, key))
    mirrored = jax.device_get(recipe.predict(state, {"image": images[:, :, ::-1]}, key))
    np.testing.assert_allclose(mirrored["scores"], found["scores"], atol=1e-5)  # ties may come in another order
    top = mirrored["boxes"][:, 0]
    np.testing.assert_allclose(
        np.stack([48 - top[:, 2], top[:, 1], 48 - top[:, 0], top[:, 3]], 1), found["boxes"][:, 0], atol=1e-3
    )


def test_draws_a_size_every_ten_steps():
    drawn = np.asarray(jax.vmap(lambda step: yolov2.draw_size(step, 3))(jnp.arange(600))).reshape(60, 10)
    assert (drawn == drawn[:, :1]).all()
    assert all(10 <= np.sum(drawn[:, 0] == size) <= 30 for size in range(3))


def test_resizes_images_and_boxes_together():
    batch = make_batch(batch=2)
    bigger = yolov2.resize(batch, (64, 96))
    assert bigger["image"].shape == (2, 64, 96, 3)
    for image, slot in np.ndindex(2, 2):
        x1, y1, x2, y2 = np.asarray(bigger["boxes"][image, slot]).astype(int)
        inside = np.asarray(bigger["image"][image, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1, batch["labels"][image, slot]])
        np.testing.assert_allclose(inside, 1, atol=1e-6)
        around = np.asarray(bigger["image"][image, :, :, batch["labels"][image, slot]])
        assert around[y1:y2, max(x1 - 2, 0) : x1].mean() < 0.9 or x1 < 2


def test_one_of_several_sizes_trains_as_it_does_alone():
    smallest = dict(width=2, stages=(1, 1), head=0, passthrough=False)
    batch, both, one = make_batch(), make_recipe(**smallest, sizes=(16, 32)), make_recipe(**smallest, sizes=(16,))
    state = draw_state(both, batch)
    first = next(step for step in range(0, 100, 10) if yolov2.draw_size(jnp.int32(step), 2) == 0)
    at = state.replace(step=jnp.int32(first))
    one, both = (jax.jit(recipe.train_step)(at, batch, jax.random.key(0)) for recipe in (one, both))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), both, one)


def test_the_passthrough_widens_the_last_convolutions_inputs():
    shapes = {}
    for passthrough in (True, False):
        net = yolov2.YoloV2(2, 3, width=4, stages=(1, 1, 1), passthrough=passthrough)
        shapes[passthrough] = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))["params"]
    with_it, without = (shapes[p]["head_2"]["conv"]["kernel"].shape for p in (True, False))
    assert with_it == (3, 3, 16 + 4 * 8, 16) and without == (3, 3, 16, 16)
    assert set(shapes[True]) - set(shapes[False]) == {"passthrough"}


def test_the_default_network_is_that_of_the_paper():
    net = yolov2.YoloV2(5, 20)
    images = jax.ShapeDtypeStruct((1, 416, 416, 3), jnp.float32)
    outputs, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    assert outputs.shape == (1, 13, 13, 5, 25)
    assert len([k for k in jax.tree.leaves(variables["params"]) if len(k.shape) == 4]) == 18 + 3 + 1 + 1
    assert variables["params"]["head_2"]["conv"]["kernel"].shape == (3, 3, 1024 + 4 * 64, 1024)


# Sizes in bytes of Darknet's published files: a header of 16, then four a number. A convolution has a kernel and the
# scale, bias, mean and variance of its normalisation; the last one, a kernel and biases. Those that YOLOv2 starts from
# are the 18 convolutions of darknet19_448.conv.23; yolov2.weights is for COCO.
FILES = {"darknet19_448.conv.23": 79_327_120, "yolov2.weights": 203_934_260}


def test_has_as_many_parameters_as_darknets_files():
    nets = {"darknet19_448.conv.23": Darknet(), "yolov2.weights": yolov2.YoloV2(5, 80)}
    for name, net in nets.items():
        variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 416, 416, 3)))
        assert 16 + 4 * sum(leaf.size for leaf in jax.tree.leaves(variables)) == FILES[name]


def test_has_as_many_operations_as_darknet_counts():
    """62.94 billion for COCO at 608 x 608, says its page of yolov2.cfg."""
    params = jax.eval_shape(yolov2.YoloV2(5, 80).init, jax.random.key(0), jnp.zeros((1, 608, 608, 3)))["params"]
    operations = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        if names[-1] == "kernel":
            halvings = int(names[1].split("_")[1]) if names[0] == "darknet" else 4 if names[0] == "passthrough" else 5
            operations += 2 * leaf.size * (608 >> halvings) ** 2
    assert operations == pytest.approx(62.94e9, abs=0.005e9)


def test_the_recipes_defaults_are_the_papers_network():
    recipe = yolov2.recipe()
    batch = {"image": jnp.zeros((1, 416, 416, 3))}
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    expected = jax.eval_shape(yolov2.YoloV2(5, 20).init, jax.random.key(0), batch["image"])["params"]
    assert state.params["detector"] == expected


def test_refuses_a_passthrough_without_a_finer_stage():
    with pytest.raises(UserError, match="passthrough needs a stage"):
        yolov2.recipe(SHAPE, NAMES, ANCHORS, stages=(1,))
    recipe = yolov2.recipe(SHAPE, NAMES, ANCHORS, width=4, stages=(1,), passthrough=False)
    state = jax.eval_shape(recipe.init, jax.random.key(0), make_batch())
    assert state.params["detector"]["head_2"]["conv"]["kernel"].shape == (3, 3, 4, 4)


@pytest.mark.parametrize("options", [dict(sizes=(30,)), dict(stages=(1,) * 7), dict(sizes=(36,))])
def test_refuses_sizes_that_cannot_be_halved(options):
    arguments = dict(shape=SHAPE, classes=NAMES, anchors=ANCHORS, stages=(1, 1, 1)) | options
    with pytest.raises(UserError, match="have to be multiples of"):
        yolov2.recipe(**arguments)


def test_finds_planted_clusters():
    generator = np.random.default_rng(0)
    planted = np.array([[8, 8], [16, 40], [48, 24]])
    sizes = planted[generator.integers(3, size=(50, 4))] + generator.uniform(-1, 1, (50, 4, 2))
    corner = generator.uniform(0, 10, (50, 4, 2))
    mask = np.ones((50, 4), bool)
    batch = dict(boxes=np.concatenate([corner, corner + sizes], -1).astype(np.float32), mask=mask, valid=mask[:, 0])
    flags = dict(difficult=~mask, crowd=~mask)
    odd = dict(boxes=np.full((1, 4, 4), [0, 0, 300, 1], np.float32), mask=mask[:1], valid=mask[:1, 0])
    odd |= {name: mask[:1] if name == "difficult" else ~mask[:1] for name in flags}
    flat = {**batch, **flags, "boxes": batch["boxes"][:, :, [0, 1, 0, 3]]}
    anchors, fit = yolov2.cluster([{**batch, **flags}, odd, flat], stride=8, count=3)
    np.testing.assert_allclose(anchors, planted / 8, atol=0.05)
    assert fit > 0.9
