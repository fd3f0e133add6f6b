"""RoIPool beside loops over the cells of a bin, RoIAlign beside torchvision, on boxes of every kind; gradients too."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops import roi

ROWS, COLUMNS, CHANNELS, SCALE = 11, 14, 3, 0.25
IMAGES = 2
HARD = [  # pixels, on a map of 56 x 44 of them
    [0, 0, 56, 44],
    [-2, -2, 2, 2],
    [-30, -30, 100, 90],
    [50, 40, 70, 60],  # across the far corner
    [200, 200, 240, 220],  # outside
    [-50, -40, -20, -10],
    [10.1, 10.2, 10.3, 10.4],  # less than a pixel
    [8, 8, 8, 8],  # empty
    [30, 20, 18, 12],  # inverted
    [-4, 6, -4, 20],  # samples exactly a cell outside
    [2, 2, 6, 6],  # corners at halves of a cell
    [0, 0, 4000, 9],  # far wider than the map
    [-2.0001, 3, 55.9999, 3.5],
]


def make(seed=0, count=24):
    random = np.random.default_rng(seed)
    features = random.normal(size=(IMAGES, ROWS, COLUMNS, CHANNELS)).astype(np.float32)
    features[1] = np.round(features[1])  # with many that are equal
    near = random.uniform(-10, 50, (IMAGES, count, 2))
    drawn = np.concatenate([near, near + random.exponential(16, near.shape)], -1)
    hard = np.broadcast_to(HARD, (IMAGES, len(HARD), 4))
    return jnp.asarray(features), jnp.asarray(np.concatenate([hard, drawn], 1), jnp.float32)


def value_and_pullback(pool, features, boxes, *more):
    """Regions, and the gradient of their sum weighted by what is nowhere the same."""
    value, pull = jax.vjp(lambda x: pool(x, boxes, *more), features)
    weights = np.random.default_rng(9).normal(size=value.shape).astype(np.float32)
    return value, pull(jnp.asarray(weights))[0], weights


# --- RoIPool ------------------------------------------------------------------------------------------------------


def pool_by_loops(features, boxes, weights, size):
    """The author's code read as loops, in its float32: values and the map's gradient."""
    features, boxes = np.asarray(features), np.asarray(boxes)
    values, gradient = np.zeros_like(weights), np.zeros_like(features)
    for image, region in np.ndindex(boxes.shape[:2]):
        x1, y1, x2, y2 = (math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1) for v in boxes[image, region] * SCALE)
        high, wide = (np.float32(max(last - first + 1, 1)) / np.float32(size) for first, last in ((y1, y2), (x1, x2)))
        for i, j in np.ndindex(size, size):
            rows = range(max(y1 + math.floor(i * high), 0), min(y1 + math.ceil(np.float32(i + 1) * high), ROWS))
            columns = range(max(x1 + math.floor(j * wide), 0), min(x1 + math.ceil(np.float32(j + 1) * wide), COLUMNS))
            for channel in range(CHANNELS):
                cells = [(features[image, y, x, channel], -y, -x) for y in rows for x in columns]
                if cells:
                    value, y, x = max(cells)  # of equal ones the first
                    values[image, region, i, j, channel] = value
                    gradient[image, -y, -x, channel] += weights[image, region, i, j, channel]
    return values, gradient


@pytest.fixture(scope="module")
def pool():
    return jax.jit(lambda x, boxes, mask=None: roi.roi_pool(x, boxes, mask, size=3, scale=SCALE))


def test_roi_pool_and_its_gradient_are_the_authors(pool):
    features, boxes = make()
    ours, gradient, weights = value_and_pullback(pool, features, boxes)
    values, expected = pool_by_loops(features, boxes, weights, 3)
    np.testing.assert_array_equal(ours, values)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)  # the order of float32 sums
    assert (values == 0).all((-1, -2, -3)).any() and (values[0, 0] != 0).all()  # outside; the whole map


def test_corners_are_rounded_away_from_zero_and_both_belong_to_the_region():
    line = jnp.arange(8.0).reshape(1, 1, 8, 1)  # a cell a pixel
    boxes = jnp.array([[[2.5, 0, 4.5, 0], [0.5, 0, 0.5, 0], [0.49999997, 0, 1.49, 0], [-2.5, 0, 1.5, 0]]])
    found = roi.roi_pool(line, boxes, size=1)[0, :, 0, 0, 0]
    assert found.tolist() == [5, 1, 1, 2]  # to the even neighbour: 4, 0, 1, 2


def test_bins_end_where_float32_says():
    """(i + 1) * (n / 7) rounds above n for some n, and then a bin has a cell more; all lengths up to 300."""
    lengths = np.arange(1, 301)
    inside = jax.jit(lambda last: roi._cells(jnp.zeros_like(last), last, 7, 310))(jnp.float32(lengths - 1))
    bins = np.float32(lengths) / np.float32(7)
    number = np.arange(7, dtype=np.float32)
    expected = np.ceil((number + 1) * bins[:, None]) - np.floor(number * bins[:, None])
    np.testing.assert_array_equal(np.diff(inside)[..., 0], expected)
    assert (inside[:, -1, 1] > lengths).any()


# --- RoIAlign -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def align():
    return jax.jit(
        lambda x, boxes, mask=None, **options: roi.roi_align(x, boxes, mask, size=3, scale=SCALE, **options),
        static_argnames=("sampling", "aligned"),
    )


def align_by_loops(features, boxes, weights, size, sampling, aligned):
    """Torchvision's C++ read as loops, its places in float32: values and the map's gradient."""
    features, boxes = np.asarray(features), np.asarray(boxes)
    values, gradient = np.zeros(weights.shape), np.zeros(features.shape)
    cells = np.array([COLUMNS, ROWS])
    for image, region in np.ndindex(boxes.shape[:2]):
        near, far = (boxes[image, region] * np.float32(SCALE) - np.float32(0.5 * aligned)).reshape(2, 2)
        bins = (far - near if aligned else np.maximum(far - near, 1)) / np.float32(size)
        counts = [sampling] * 2 if sampling else np.ceil(bins).astype(int).tolist()
        for i, j, *sample in np.ndindex(size, size, *(max(count, 0) for count in counts)):
            steps = (np.float32(sample) + np.float32(0.5)) * bins / np.float32(counts)
            place = near + np.float32([j, i]) * bins + steps
            if (place < -1).any() or (place > cells).any():
                continue
            place = np.clip(place, 0, cells - 1)
            low = place.astype(int)
            high, share = np.minimum(low + 1, cells - 1), place - low
            for (x, right), (y, under) in (
                ((low[0], 1 - share[0]), (low[1], 1 - share[1])),
                ((high[0], share[0]), (low[1], 1 - share[1])),
                ((low[0], 1 - share[0]), (high[1], share[1])),
                ((high[0], share[0]), (high[1], share[1])),
            ):
                part = right * under / np.prod(counts)
                values[image, region, i, j] += part * features[image, y, x]
                gradient[image, y, x] += part * weights[image, region, i, j]
    return values, gradient


def test_adaptive_samples_are_a_cell_apart_at_any_size():
    """21 cells in 7 bins are 3 samples each, though 21 times the float32 nearest to 1 / 7 is more than 21 / 7."""
    lengths = np.arange(1, 513, dtype=np.float32)
    np.testing.assert_array_equal(jax.jit(lambda x: roi._divide(x, 7))(lengths), lengths / np.float32(7))
    squares = jnp.broadcast_to(jnp.arange(64.0)[:, None] ** 2, (1, 64, 64, 1))
    found = roi.roi_align(squares, jnp.array([[[0.0, 0.0, 21.0, 21.0]]]), size=7, sampling=None)[0, 0, 0, :, 0]
    places = np.arange(21) + 0.5
    read = np.interp(places, np.arange(64), np.arange(64.0) ** 2).reshape(7, 3).mean(1)
    np.testing.assert_allclose(found, read, rtol=1e-5)


KINDS = [(2, False), (2, True), (1, True), (None, False), (None, True)]


@pytest.mark.parametrize(("sampling", "aligned"), KINDS)
def test_roi_align_and_its_gradient_are_loops_over_samples(align, sampling, aligned):
    features, boxes = make()
    mine, gradient, weights = value_and_pullback(
        lambda *of: align(*of, sampling=sampling, aligned=aligned), features, boxes
    )
    values, expected = align_by_loops(features, boxes, weights, 3, sampling, aligned)
    np.testing.assert_allclose(mine, values, atol=1e-5)  # float32 places, and sums of some hundred samples
    np.testing.assert_allclose(gradient, expected, atol=1e-4)
    assert (np.asarray(mine)[:, HARD.index([200, 200, 240, 220])] == 0).all()


@pytest.mark.parity
@pytest.mark.parametrize(("sampling", "aligned"), KINDS)
def test_roi_align_and_its_gradient_are_torchvisions(torchvision, monkeypatch, align, sampling, aligned):
    import torch
    from torchvision.ops import roi_align

    # Where its own operators are missing, it has a form in Python, which takes samples far beyond the map for such at
    # its border, and divides by 0 in empty boxes: here are neither.
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    features, boxes = make()
    border = jnp.array([56, 44])
    near = jnp.clip(boxes[..., :2], 0, border - 5)
    boxes = jnp.concatenate([near, jnp.clip(boxes[..., 2:], near + 4, border)], -1)
    mine, gradient, weights = value_and_pullback(
        lambda *of: align(*of, sampling=sampling, aligned=aligned), features, boxes
    )
    images = torch.tensor(np.asarray(features)).permute(0, 3, 1, 2).requires_grad_()
    rois = [*torch.tensor(np.asarray(boxes))]
    theirs = roi_align(images, rois, 3, SCALE, -1 if sampling is None else sampling, aligned)
    theirs.backward(torch.tensor(weights).reshape(-1, 3, 3, CHANNELS).permute(0, 3, 1, 2))
    expected = theirs.detach().permute(0, 2, 3, 1).reshape(weights.shape)
    np.testing.assert_allclose(mine, expected, atol=1e-5)  # as above
    np.testing.assert_allclose(gradient, images.grad.permute(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("sampling", [2, None])
def test_forms_for_every_platform_agree(sampling):
    features, boxes = make(1)
    down = roi._weights(jnp.asarray(boxes[..., 1]), jnp.asarray(boxes[..., 3] - boxes[..., 1]), 3, ROWS, sampling)
    across = roi._weights(jnp.asarray(boxes[..., 0]), jnp.asarray(boxes[..., 2] - boxes[..., 0]), 3, COLUMNS, sampling)
    forms = [value_and_pullback(form, features, down, across) for form in (roi._read_windows, roi._read_maps)]
    for one, other in zip(*forms, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)  # the order of float32 sums


def test_ones_stay_ones_across_the_border_and_fall_to_zero_beyond_a_cell(align):
    ones = jnp.ones((1, ROWS, COLUMNS, 1))
    boxes = jnp.array([[[-2.0, -2, 2, 2], [-4, -4, 4, 4], [-40, -40, -8, -8]]])
    found = align(ones, boxes)
    np.testing.assert_allclose(found[0, :2], 1, rtol=1e-6)  # zeros around the map would give less
    assert (found[0, 2] == 0).all()


def test_a_ramp_is_read_at_the_middle_of_a_cell_if_aligned(align):
    """Pixel p has the value p: a region from 12 to 24 px has the mean 17.5 + .5 there, in cells of 4 px 4.5 - .5."""
    ramp = jnp.broadcast_to(jnp.arange(float(COLUMNS))[:, None], (1, ROWS, COLUMNS, 1))
    box = jnp.array([[[12.0, 12, 24, 24]]])
    assert align(ramp, box, aligned=True).mean() == pytest.approx(4.5 - 0.5, abs=1e-5)
    assert align(ramp, box).mean() == pytest.approx(4.5, abs=1e-5)


def test_samples_of_a_box_a_million_times_the_map_take_no_longer(align):
    features, _ = make()
    boxes = jnp.tile(jnp.array([[[-4e8, 2, 4e8, 30], [0, 0, 9, 9]]]), (IMAGES, 1, 1))
    found = np.asarray(align(features, boxes, sampling=None))
    # Nearly all samples of the middle bin are outside.
    assert np.abs(found[:, 0]).max() < 1e-3 and np.abs(found[:, 1]).max() > 0.1


def test_nan_boxes_are_empty_and_harm_no_other(align, pool):
    features, boxes = make()
    spoilt = boxes.at[:, 20].set(jnp.nan)
    for sampling in (2, None):
        one, other = (np.array(align(features, each, sampling=sampling)) for each in (boxes, spoilt))
        one[:, 20] = 0
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.isfinite(pool(features, spoilt)).all()


def test_what_is_masked_is_zero_and_has_no_gradient(align, pool):
    features, boxes = make()
    mask = np.random.default_rng(3).random(boxes.shape[:2]) < 0.5
    for form in (align, pool):
        every, _, weights = value_and_pullback(form, features, boxes)
        some, gradient, _ = value_and_pullback(form, features, boxes, mask)
        np.testing.assert_allclose(some, np.where(mask[..., None, None, None], every, 0), atol=1e-6)
        pull = jax.vjp(lambda x, form=form: form(x, boxes), features)[1]
        expected = pull(jnp.where(mask[..., None, None, None], weights, 0))[0]
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_vmap_second_derivatives_and_bfloat16(align, pool):
    features, boxes = make()
    for form in (align, pool):
        mapped = jax.jit(jax.vmap(form))(features[:, None], boxes[:, None])[:, 0]
        np.testing.assert_allclose(mapped, form(features, boxes), atol=1e-6)

        def slope(x, direction, form=form):
            return (jax.grad(lambda x: (form(x, boxes) ** 2).sum())(x) * direction).sum()

        # Twice the form's transpose of the form: of a sum of squares the second derivative is constant.
        second = jax.grad(slope)(features, features)
        np.testing.assert_allclose(second, jax.grad(lambda x, f=form: (f(x, boxes) ** 2).sum())(features), atol=1e-3)
        assert form(jnp.asarray(features, jnp.bfloat16), boxes).dtype == jnp.bfloat16


def test_boxes_get_no_gradient(align):
    features, boxes = make()
    assert (jax.grad(lambda boxes: align(features, boxes).sum())(boxes) == 0).all()


@pytest.mark.parametrize("sizes", [dict(size=0), dict(sampling=0)])
def test_refuses_sizes_of_nothing(sizes):
    features, boxes = make()
    with pytest.raises(UserError, match="at least 1"):
        roi.roi_align(features, boxes, **sizes)
    if "size" in sizes:
        with pytest.raises(UserError, match="at least 1"):
            roi.roi_pool(features, boxes, **sizes)


# --- pyramids -----------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_levels_are_torchvisions(torchvision):
    import torch
    from torchvision.ops.poolers import LevelMapper

    random = np.random.default_rng(0)
    near = random.uniform(-10, 900, (300, 2))
    boxes = np.concatenate([near, near + 2 ** random.uniform(0, 10, (300, 2))], 1).astype(np.float32)
    exact = [[0, 0, 112, 112], [0, 0, 224, 224], [0, 0, 448, 448], [3, 3, 3, 9], [5, 5, 117, 117], [0, 0, 56, 448]]
    boxes = np.concatenate([boxes, np.float32(exact)])
    expected = LevelMapper(2, 5)([torch.tensor(boxes)])
    found = roi.assign_levels(jnp.asarray(boxes), 4)
    np.testing.assert_array_equal(found, expected)
    assert found[-6:].tolist() == [1, 2, 3, 0, 1, 1] and {*found.tolist()} == {0, 1, 2, 3}


def test_each_region_is_read_from_its_level(align):
    features, boxes = make()
    finer = jax.random.normal(jax.random.key(0), (IMAGES, 2 * ROWS, 2 * COLUMNS, CHANNELS))
    levels = jnp.asarray(np.random.default_rng(6).integers(0, 2, boxes.shape[:2]))
    mask = levels >= 0
    mask = mask.at[:, 3].set(False)
    found = roi.pool_pyramid(
        partial(roi.roi_align, size=3), [finer, features], boxes, mask, scales=(2 * SCALE, SCALE), levels=levels
    )
    fine = roi.roi_align(finer, boxes, size=3, scale=2 * SCALE)
    expected = jnp.where(levels[..., None, None, None] == 0, fine, align(features, boxes)).at[:, 3].set(0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
