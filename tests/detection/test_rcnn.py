"""R-CNN: regions warped with context, sampled, fine-tuned on, and judged by SVMs and moved by regression at the end."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from proposed_squares import COUNT, SEARCH, TINY, rows_of, squares
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import rcnn
from cvjax.detection.region_classifier import sample
from cvjax.detection.region_svms import RegionSVMs
from cvjax.errors import UserError
from cvjax.nets.imagenet import MEAN

KEY = jax.random.key(0)
warp = jax.jit(rcnn.warp, static_argnums=(2, 3))


def tiny(**changes):
    arguments = {**TINY, "side": 16, "context": 2, **changes}
    return rcnn.recipe(**{**arguments, "svm": RegionSVMs(**arguments["svm"])})


# --- regions ------------------------------------------------------------------------------------------------------


def test_a_region_is_warped_with_context_as_opencv_warps_it():
    image = np.random.default_rng(0).uniform(size=(40, 60, 3)).astype(np.float32)
    box = np.float32([20, 12, 26.5, 23])
    warped = np.asarray(warp(jnp.asarray(image), jnp.asarray(box), 36, 4))
    scale = (36 - 2 * 4) / np.array([6.5, 11.0])  # x, y: enlarged, so that nothing is averaged
    to_image = np.array([[1 / scale[0], 0, 20 - 4 / scale[0]], [0, 1 / scale[1], 12 - 4 / scale[1]]])
    to_image[:, 2] += to_image[:, :2] @ (0.5, 0.5) - 0.5  # centres of pixels
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # OpenCV interpolates to 1/32 of a pixel.
    np.testing.assert_allclose(warped, cv2.warpAffine(image, to_image, (36, 36), flags=flags), atol=0.04)


def test_the_box_has_exactly_the_context_around_it():
    image = np.zeros((40, 60, 3), np.float32)
    image[12:20, 20:36] = 1
    warped = np.asarray(warp(jnp.asarray(image), jnp.array([20.0, 12.0, 36.0, 20.0]), 40, 12))[..., 0]
    inside = np.zeros((40, 40), bool)
    inside[12:28, 12:28] = True
    assert (warped[inside] >= 0.5).all() and (warped[~inside] < 0.5).all()


def test_beyond_the_image_a_region_has_the_mean():
    warped = np.asarray(warp(jnp.ones((20, 20, 3)), jnp.array([-10.0, 0.0, 10.0, 20.0]), 24, 2))
    np.testing.assert_allclose(warped[4:-4, 14:], 1, atol=1e-5)
    np.testing.assert_allclose(warped[4:-4, :10], np.broadcast_to(MEAN, (16, 10, 3)), atol=1e-5)
    thin = warp(jnp.ones((20, 20, 3)), jnp.array([5.0, 5.0, 5.0, 5.0]), 24, 2)
    assert bool(jnp.isfinite(thin).all())


def test_regions_are_drawn_of_both_kinds_as_many_as_asked():
    labels, certain = jnp.array([2, 0, 2, 1, 2, 0]), jnp.array([True, True, True, True, False, False])
    draw = jax.jit(jax.vmap(lambda key, certain: sample(key, labels, certain, 2, 8, 3), (0, None)))
    chosen, real = map(np.asarray, draw(jax.random.split(KEY, 200), certain))
    assert real.all() and set(chosen[:, :3].ravel()) == {1, 3} and set(chosen[:, 3:].ravel()) == {0, 2}
    assert 0.4 < (chosen[:, :3] == 1).mean() < 0.6
    _, real = draw(jax.random.split(KEY, 200), certain & (labels == 2))
    assert real[0].tolist() == [False] * 3 + [True] * 5
    _, real = draw(jax.random.split(KEY, 200), jnp.zeros(6, bool))
    assert not real.any()


# --- the recipe ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A recipe, its state after some steps, the same concluded, and its step."""
    recipe, batch = tiny(), squares()
    state, step = draw_state(recipe, batch), jax.jit(recipe.train_step)
    shapes = jax.eval_shape(recipe.init, KEY, batch).extra
    state = state.replace(extra=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    for _ in range(80):
        state, metrics = step(state, batch, jax.random.fold_in(KEY, state.step))
    return recipe, state, recipe.conclude(state, rows_of([squares(), squares(seed=3)])(state)), step, metrics


def figures(recipe, state, batch):
    return recipe.score(iter([(batch, jax.device_get(recipe.eval_step(state, batch, KEY)))]))


def test_learns_to_detect_squares_and_svms_and_regression_add_to_it(trained):
    recipe, state, concluded, _, metrics = trained
    assert metrics["share/right"] > 0.8 and 0.2 < metrics["share/objects"] <= 0.25
    batch = squares(seed=1)
    before, after = (figures(recipe, each, batch) for each in (state, concluded))
    assert before["map_voc07"] > 0.6 and after["map_voc07"] > 0.85
    assert after["ap75"] > before["ap75"] + 0.05  # moved onto the squares
    assert before["proposal_recall"] == after["proposal_recall"] == 1.0
    shown = recipe.visualise(concluded, batch, KEY)["detections"]
    assert shown.shape == (16, 256, 768, 3) and shown.min() >= 0 and shown.max() <= 1


def test_concluding_keeps_shapes_and_changes_nothing_but_the_fits(trained):
    recipe, state, concluded, _, _ = trained
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (state, concluded)]
    assert shapes[0] == shapes[1]
    jax.tree.map(np.testing.assert_array_equal, state.params, concluded.params)
    again = recipe.conclude(state, rows_of([squares(), squares(seed=3)])(state))
    jax.tree.map(np.testing.assert_array_equal, again.extra, concluded.extra)
    described = recipe.train_step.__self__.describe(state, squares())
    norms = np.linalg.norm(described["features"], axis=-1)[np.asarray(described["present"])]
    np.testing.assert_allclose(norms.mean() * concluded.extra["svm"]["scale"], 20, rtol=1e-4)


def test_a_concluded_state_that_is_trained_on_is_judged_by_the_softmax_until_it_is_concluded_again(trained):
    recipe, _, concluded, step, _ = trained
    further, _ = step(concluded, squares(), KEY)
    assert bool(concluded.extra["concluded"]) and not bool(further.extra["concluded"])
    fresh = further.replace(extra=jax.tree.map(jnp.zeros_like, further.extra))
    found = (recipe.eval_step(each, squares(4), KEY) for each in (further, fresh))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_what_a_region_is_described_by(trained):
    recipe, state, _, _, _ = trained
    batch = squares()
    batch["difficult"] = np.zeros((16, 2), bool)
    batch["difficult"][0, 1] = True
    found = jax.device_get(recipe.train_step.__self__.describe(state, batch))
    assert (found["own"][:, :COUNT] == -1).all() and (found["own"][1:, COUNT:] == batch["labels"][1:]).all()
    assert found["own"][0, COUNT + 1] == -1 and not found["present"][0, COUNT + 1]  # nobody's positive
    label = batch["labels"][0, 1]
    assert found["overlaps"][0, COUNT + 1, label] == 1  # nor a negative of its class
    near = found["iou"][1] > 0.6
    assert near.sum() > 2 and np.abs(found["offsets"][1][near]).max() < 0.5
    np.testing.assert_allclose(found["offsets"][1][COUNT:], 0, atol=1e-6)  # true boxes have nowhere to go


def test_a_region_inside_a_crowd_is_neither_an_object_nor_background(trained):
    recipe, state, _, _, _ = trained
    detector, batch = recipe.train_step.__self__, squares(1)
    batch["boxes"] = np.float32([[[0, 0, 24, 30], [30, 10, 40, 20]]])
    batch["crowd"] = np.array([[True, False]])
    # In the crowd; for the most part; a little; the object; elsewhere; the crowd itself.
    regions = [[2, 2, 10, 10], [18, 0, 28, 10], [22, 0, 30, 10], [30, 10, 40, 20], [41, 21, 48, 30], [0, 0, 24, 30]]
    batch["proposals"], batch["proposals_mask"] = np.float32([regions]), np.ones((1, 6), bool)
    batch = jax.tree.map(jnp.asarray, batch)
    _, labels, certain = detector.label(batch)
    assert certain[0, :6].tolist() == [False, False, True, True, True, False]
    shown = np.asarray(labels[0, :6]) != 2
    assert shown[[2, 3, 4]].tolist() == [False, True, False]
    found, label = detector.describe(state, batch), batch["labels"][0, 0]
    np.testing.assert_allclose(found["overlaps"][0, [0, 1, 2, 4, 5], label], [1, 0.6, 0.25, 0, 1], atol=1e-5)
    assert found["iou"][0, 0] == 0 == found["overlaps"][0, 0, 1 - label]


def test_padding_of_proposals_is_never_detected(trained):
    recipe, _, concluded, _, _ = trained
    batch = squares(4, seed=2)
    spoilt = dict(batch, proposals=np.where(batch["proposals_mask"][..., None], batch["proposals"], 7.0))
    one, two = (recipe.eval_step(concluded, each, KEY) for each in (batch, spoilt))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    none = dict(batch, proposals_mask=np.zeros_like(batch["proposals_mask"]))
    assert not recipe.eval_step(concluded, none, KEY)["detected"].any()


def test_regions_moved_out_of_the_image_are_not_found(trained):
    recipe, _, concluded, _, _ = trained
    batch, detector = jax.tree.map(jnp.asarray, squares(4, seed=2)), recipe.train_step.__self__
    regions = batch["proposals"], batch["proposals_mask"]
    away = jnp.zeros_like(concluded.extra["boxes"]["bias"]).at[:, 0].set(9.0)  # by nine widths to the right
    moved = {**concluded.extra["boxes"], "kernel": jnp.zeros_like(concluded.extra["boxes"]["kernel"]), "bias": away}
    state = concluded.replace(extra={**concluded.extra, "boxes": moved})
    boxes, scores, _ = detector.find(state, batch["image"], *regions)
    gone = np.asarray(boxes[..., 2] - boxes[..., 0]) < 0.01
    assert gone[np.asarray(detector.find(concluded, batch["image"], *regions)[1]) > 0.5].any()
    assert (np.asarray(scores)[gone] == 0).all()


def test_of_an_image_of_ones_own_the_regions_are_proposed(trained):
    recipe, _, concluded, _, _ = trained
    images = squares(2, seed=5)["image"]
    found = recipe.predict(concluded, {"image": jnp.asarray(images)}, KEY)
    proposals = recipe.train_step.__self__.proposals
    boxes = [proposals.compute(image) for image in images]
    batch = {"image": images, "proposals": np.zeros((2, COUNT, 4), np.float32)}
    batch["proposals_mask"] = np.zeros((2, COUNT), bool)
    for row, each in enumerate(boxes):
        batch["proposals"][row, : len(each)], batch["proposals_mask"][row, : len(each)] = each, True
    jax.tree.map(np.testing.assert_array_equal, found, recipe.eval_step(concluded, batch, KEY))
    with pytest.raises(UserError, match="cannot be exported"):
        jax.eval_shape(lambda images: recipe.predict(concluded, {"image": images}, KEY), jnp.asarray(images))


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_whatever_the_objects(trained, how):
    _, state, _, step, _ = trained
    usual, (new, metrics) = (step(state, batch, KEY) for batch in (squares(), spoil(squares(), how)))
    assert finite(new, metrics)
    if how in ("no objects", "rubbish in padding alone", "outside", "inside out"):
        assert float(metrics["share/objects"]) == 0 < usual[1]["share/objects"]


def test_without_any_region_a_step_changes_nothing_but_is_finite(trained):
    _, state, _, step, _ = trained
    batch = squares()
    batch |= {"mask": np.zeros_like(batch["mask"]), "proposals_mask": np.zeros_like(batch["proposals_mask"])}
    new, metrics = step(state, batch, KEY)
    assert finite(new, metrics) and float(metrics["loss/cross_entropy"]) == 0


def test_outside_of_training_a_few_regions_are_in_memory_at_a_time(trained):
    recipe, state, _, _, _ = trained
    detector, random = recipe.train_step.__self__, np.random.default_rng(0)
    near = random.uniform(0, 30, (2, 3 * rcnn.AT_ONCE + 5, 2)).astype(np.float32)
    regions, images = jnp.asarray(np.concatenate([near, near + 9], -1)), jnp.asarray(squares(2)["image"])
    vgg = {"params": state.params["vgg"]}

    def largest(jaxpr):
        inner = [value for equation in jaxpr.eqns for value in jax.tree.leaves(list(equation.params.values()))]
        inner = [getattr(value, "jaxpr", value) for value in inner]
        sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
        return max(sizes + [largest(value) for value in inner if hasattr(value, "eqns")], default=0)

    present = jnp.ones(regions.shape[:2], bool)
    crop = 16 * 16 * max(TINY["width"], 3)
    traced = jax.make_jaxpr(lambda state: detector.find(state, images, regions, present))(state)
    assert 2 * rcnn.AT_ONCE * crop >= largest(traced.jaxpr) > 10 * crop  # an image half resized is larger than a crop
    whole = jax.jit(detector.pool)(vgg, images, regions)
    assert largest(jax.make_jaxpr(detector.pool)(vgg, images, regions).jaxpr) >= 2 * regions.shape[1] * crop
    parts = jax.jit(detector.pool_many)(vgg, images, regions)
    np.testing.assert_allclose(parts, whole, atol=1e-5)  # the order of float32 sums


def test_proposals_have_to_be_in_the_batch():
    batch = {name: values for name, values in squares().items() if "proposals" not in name}
    with pytest.raises(UserError, match=r"set config\.data\.derive\.proposals"):
        jax.eval_shape(tiny().init, KEY, batch)


@pytest.mark.parametrize("side", [16, 20])
def test_the_greatest_context_that_it_names_is_taken(side):
    context = (side - 1) // 2
    tiny(side=side, context=context)
    image = jnp.zeros((9, 9, 3)).at[3:6, 3:6].set(1.0)
    crop = rcnn.warp(image, jnp.array([3.0, 3.0, 6.0, 6.0]), side, context)
    inside = slice(context, side - context)  # at least a pixel, which shows the box alone
    np.testing.assert_allclose(crop[inside, inside].mean(), 1, atol=0.25)
    assert crop[0, 0].mean() < 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 18}, "a multiple of 4"),
        ({"context": 8}, "nothing of a side of 16 is left; at most 7"),
        ({"side": 20, "context": 10}, "at most 9"),
        ({"positive_share": 0.0}, "leaves none for objects"),
        ({"positive_share": 1.0}, "none for background"),
        ({"search": {**SEARCH, "function": "cvjax.ops.proposals:selective"}}, "no function 'selective'"),
        ({"stages": (1, 1, 1, 1, 1, 1), "side": 64}, "up to five numbers"),
    ],
)
def test_refuses_arguments_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(tiny(**changes).init, KEY, squares())
