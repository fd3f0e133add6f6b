"""SPP-net: its pyramid of any region equals cropping the features by hand, value and gradient; only the head learns."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from proposed_squares import COUNT, TINY, rows_of, squares
from spoilt_batches import finite, spoil

from cvjax.detection import spp_net
from cvjax.detection.region_svms import RegionSVMs
from cvjax.errors import UserError

KEY = jax.random.key(0)
LEVELS = (4, 3, 1)
STRIDES = (2.0, 4.0)  # vertical, horizontal


@partial(jax.jit, static_argnums=(2, 3))
def pyramid(features, regions, strides, levels):
    return spp_net.pyramid(features[None], jnp.asarray(regions)[None], strides, levels)[0]


def cropped(features, region, strides=STRIDES):
    """The features of a region: those whose centres it holds, else the one nearest to its centre."""
    kept = []
    for axis, count in ((1, features.shape[0]), (0, features.shape[1])):
        centres = strides[1 - axis] * (np.arange(count) + 0.5)
        inside = np.flatnonzero((centres > region[axis]) & (centres < region[axis + 2]))
        middle = (region[axis] + region[axis + 2]) / 2
        kept.append(inside if len(inside) else [np.clip(int(middle // strides[1 - axis]), 0, count - 1)])
    return features[np.ix_(*kept)]


def pooled_by_hand(features, region, levels=LEVELS):
    crop, found = cropped(features, region), []
    for count in levels:
        for row in range(count):
            for column in range(count):
                rows, columns = (
                    slice(number * length // count, math.ceil((number + 1) * length / count))
                    for number, length in ((row, crop.shape[0]), (column, crop.shape[1]))
                )
                found.append(crop[rows, columns].max(axis=(0, 1)))
    return np.concatenate(found)


def regions(seed=0, count=40):
    """Regions of a picture of 72 x 26 pixels; the last ones are hard."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(-4, (76, 30), (count, 2, 2)), axis=1).reshape(count, 4)
    hard = [[0, 0, 72, 26], [-90, -90, 200, 200], [5, 5, 5, 5], [5, 5, 5.1, 25], [71.9, 25.9, 80, 40], [-9, -9, -2, -1]]
    return np.concatenate([corners, hard]).astype(np.float32)


def test_the_pyramid_of_a_region_is_that_of_its_features_cropped():
    features = np.random.default_rng(1).normal(size=(13, 18, 5)).astype(np.float32)
    found = np.asarray(pyramid(features, regions(), STRIDES, LEVELS))
    assert found.shape == (46, (16 + 9 + 1) * 5)  # of one length, whatever the region
    for region, vector in zip(regions(), found, strict=True):
        np.testing.assert_array_equal(vector, pooled_by_hand(features, region))


def test_its_gradient_goes_to_the_maxima_alone():
    features = jax.random.normal(KEY, (13, 18, 2))
    weights = np.random.default_rng(2).normal(size=(46, 52)).astype(np.float32)
    gradient = jax.grad(lambda x: (pyramid(x, regions(), STRIDES, LEVELS) * weights).sum())(features)
    expected = np.zeros(features.shape)
    places = np.arange(features.size).reshape(features.shape)
    for region, weight in zip(regions(), weights, strict=True):
        crop, at = cropped(np.asarray(features), region), cropped(places, region)
        step = 0
        for count in LEVELS:
            for row in range(count):
                for column in range(count):
                    rows, columns = (
                        slice(number * length // count, math.ceil((number + 1) * length / count))
                        for number, length in ((row, crop.shape[0]), (column, crop.shape[1]))
                    )
                    for channel in range(2):
                        values, where = crop[rows, columns, channel], at[rows, columns, channel]
                        expected.ravel()[where.ravel()[values.argmax()]] += weight[step + channel]
                    step += 2
    np.testing.assert_allclose(gradient, expected, atol=1e-4)  # float32 sums of a few hundred weights


@pytest.mark.parity
def test_the_whole_image_is_pooled_as_torch_pools_it():
    torch = pytest.importorskip("torch")
    features = np.random.default_rng(3).normal(size=(13, 18, 5)).astype(np.float32)
    found = np.asarray(pyramid(features, np.float32([[0, 0, 72, 26]]), STRIDES, LEVELS))[0]
    given = torch.from_numpy(features).permute(2, 0, 1)[None]
    theirs = [torch.nn.functional.adaptive_max_pool2d(given, count)[0].permute(1, 2, 0).ravel() for count in LEVELS]
    np.testing.assert_array_equal(found, np.concatenate(theirs))


# --- the recipe ---------------------------------------------------------------------------------------------------


def tiny(**changes):
    arguments = {**TINY, "side": 32, "levels": (2, 1), "frozen": False, **changes}
    return spp_net.recipe(**{**arguments, "svm": RegionSVMs(**arguments["svm"])})


def first_state(recipe, batch):
    extra = jax.eval_shape(recipe.init, KEY, batch).extra
    extra = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), extra)
    return draw_state(recipe, batch).replace(extra=extra)


def figures(recipe, state, batch):
    return recipe.score(iter([(batch, jax.device_get(recipe.eval_step(state, batch, KEY)))]))


def test_learns_to_detect_squares():
    recipe, batch = tiny(), squares()
    state, step = first_state(recipe, batch), jax.jit(recipe.train_step)
    for _ in range(80):
        state, metrics = step(state, batch, jax.random.fold_in(KEY, state.step))
    assert metrics["share/right"] > 0.8
    concluded = recipe.conclude(state, rows_of([squares(), squares(seed=3)])(state))
    assert figures(recipe, concluded, squares(seed=1))["map_voc07"] > 0.8
    for how in ("no objects", "rubbish in padding beside objects", "a point"):
        assert finite(*step(state, spoil(batch, how), KEY))
    # The same regions at another place of the list have the same detections.
    order = np.random.default_rng(0).permutation(COUNT)
    moved = dict(batch, **{name: batch[name][:, order] for name in ("proposals", "proposals_mask")})
    one, two = (recipe.eval_step(concluded, each, KEY) for each in (batch, moved))
    np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-5)


def test_frozen_convolutions_stay_as_they_were_lent():
    recipe, batch = tiny(frozen=True), squares(4)
    state = first_state(recipe, batch)
    new, _ = jax.jit(recipe.train_step)(state, batch, KEY)
    assert set(new.params) == {"head"} == set(new.average)
    jax.tree.map(np.testing.assert_array_equal, new.frozen, state.frozen)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), new.params, state.params)
    assert changed["head"]["fc6"]["kernel"] and changed["head"]["fc8"]["kernel"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": ()}, r"such as \(6, 3, 2, 1\)"),
        ({"side": 1}, "no feature is left"),
        ({"windows": 1}, "none for objects"),
    ],
)
def test_refuses_arguments_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)
