"""Targets of masks beside torchvision's, masks pasted beside torchvision's and torch's own sampling, and both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops import instance_masks

HEIGHT, WIDTH = 44, 56
HARD = [  # in pixels of the image
    [0, 0, 56, 44],
    [-2, -2, 2, 2],
    [-30, -30, 100, 90],
    [50, 40, 70, 60],  # across the far corner
    [200, 200, 240, 220],  # outside
    [-50, -40, -20, -10],
    [10.1, 10.2, 10.3, 10.4],  # less than a pixel
    [0, 10, 4000, 30],  # far wider than the image
    [12, 7, 40, 35],  # as many pixels as bins
]


def draw_boxes(seed, count):
    random = np.random.default_rng(seed)
    near = random.uniform(-10, 45, (count, 2))
    drawn = np.concatenate([near, near + random.exponential(16, near.shape) + 0.1], -1)
    return np.concatenate([HARD, drawn]).astype(np.float32)


def draw_masks(seed, batch=2, objects=3):
    """Discs that overlap."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centre = random.uniform(5, 40, (batch, objects, 2, 1, 1))
    return (x - centre[:, :, 0]) ** 2 + (y - centre[:, :, 1]) ** 2 < random.uniform(4, 15, (batch, objects, 1, 1)) ** 2


@pytest.fixture(scope="module")
def uncompiled(torchvision):
    """torchvision's functions in Python."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **options: function)
        yield torchvision.models.detection.roi_heads


crop = jax.jit(instance_masks.mask_targets, static_argnames=("size", "aligned"))


@pytest.mark.parity
def test_targets_are_torchvisions(uncompiled):
    import torch

    masks, boxes = draw_masks(0), np.stack([draw_boxes(seed, 11)[4:16] for seed in (1, 2)])
    # Its form in Python takes samples far beyond the image for such at its border: here are none.
    boxes = np.concatenate([np.clip(boxes[..., :2], 0, 40), np.clip(boxes[..., 2:], 42, [WIDTH, HEIGHT])], -1)
    matched = np.random.default_rng(3).integers(0, 3, boxes.shape[:2])
    present = np.arange(boxes.shape[1]) < np.array([[12], [9]])
    ours = crop(*map(jnp.asarray, (masks, matched, boxes, present)), size=14, aligned=False)
    for image in range(2):
        given = (torch.tensor(x[image]) for x in (masks, boxes, matched))
        theirs = uncompiled.project_masks_on_boxes(*given, 14).numpy()
        np.testing.assert_allclose(ours[image][present[image]], theirs[present[image]], atol=1e-5)
        assert not np.asarray(ours[image])[~present[image]].any()
    assert 0.1 < np.asarray(ours).mean() < 0.9


def sample(mask, place):
    """Bilinear samples of a mask between the middles of its pixels, whose border reaches a pixel further."""
    high, wide = mask.shape
    far = (place < -1) | (place > np.array([wide, high]))
    place = np.clip(place, 0, [wide - 1, high - 1])
    low = np.minimum(np.floor(place).astype(int), [wide - 2, high - 2])
    share = place - low
    value = sum(
        mask[low[..., 1] + i, low[..., 0] + j] * np.abs(1 - i - share[..., 1]) * np.abs(1 - j - share[..., 0])
        for i in (0, 1)
        for j in (0, 1)
    )
    return np.where(far.any(-1), 0, value)


@pytest.mark.parametrize("aligned", [True, False])
def test_targets_are_means_of_samples_at_and_beyond_the_border(aligned):
    masks, boxes = draw_masks(0, batch=1), np.float32(HARD)
    matched, present = np.arange(len(HARD))[None] % 3, np.ones((1, len(HARD)), bool)
    ours = crop(*map(jnp.asarray, (masks, matched, boxes[None], present)), size=28, aligned=aligned)[0]
    for region, box in enumerate(np.float64(boxes)):
        near, length = box[:2] - 0.5 * aligned, box[2:] - box[:2]
        length = length if aligned else np.maximum(length, 1)
        count = np.ceil(np.float32(length) / np.float32(28)).astype(int)
        x, y = (near[k] + (np.arange(28 * count[k]) + 0.5) * length[k] / (28 * count[k]) for k in (0, 1))
        values = sample(masks[0, matched[0, region]], np.stack(np.meshgrid(x, y), -1))
        values = values.reshape(28, count[1], 28, count[0]).mean((1, 3))
        np.testing.assert_allclose(ours[region], values, atol=1e-4)  # float32 places, up to 4,000 px away


def test_many_regions_are_cropped_in_parts(monkeypatch):
    masks, boxes = jnp.asarray(draw_masks(0)), jnp.asarray(np.stack([draw_boxes(seed, 4) for seed in (1, 2)]))
    given = (masks, jnp.ones(boxes.shape[:2], jnp.int32), boxes, jnp.ones(boxes.shape[:2], bool), 14)
    expected = instance_masks.mask_targets(*given)
    monkeypatch.setattr(instance_masks, "VALUES", 5 * HEIGHT * WIDTH)
    np.testing.assert_array_equal(instance_masks.mask_targets(*given), expected)


def test_instances_are_rows_of_masks():
    masks = instance_masks.split_instances(jnp.array([[[0, 1, 3], [3, 3, 0]]]), 4)
    assert masks.shape == (1, 4, 2, 3) and masks[0].sum((1, 2)).tolist() == [1, 0, 3, 0]
    assert masks[0, 2].tolist() == [[False, False, True], [True, True, False]]


# --- pasting ------------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_masks_of_boxes_rounded_to_pixels_are_torchvisions(uncompiled):
    import torch

    boxes = draw_boxes(4, 30)
    boxes = boxes[(boxes[:, 2:] > 0).all(1)]  # torchvision raises an error for one before the image
    masks = np.random.default_rng(5).uniform(size=(len(boxes), 28, 28)).astype(np.float32)
    theirs = uncompiled.paste_masks_in_image(torch.tensor(masks)[:, None], torch.tensor(boxes), (HEIGHT, WIDTH))
    ours = instance_masks.paste_masks(masks, boxes, HEIGHT, WIDTH, whole_pixels=True)
    # float32; torch computes the places of 4,300 pixels in it too.
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), atol=2e-4)
    assert (ours.reshape(len(boxes), -1).max(1) > 0).sum() > 20


@pytest.mark.parity
def test_masks_are_torchs_samples_at_the_middle_of_pixels():
    """As Detectron2 pastes: every pixel of the image is sampled, in units of the box."""
    torch = pytest.importorskip("torch")
    boxes = draw_boxes(6, 30)
    masks = np.random.default_rng(7).uniform(size=(len(boxes), 28, 28)).astype(np.float32)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    near, size = boxes[:, None, None, :2], boxes[:, None, None, 2:] - boxes[:, None, None, :2]
    places = torch.tensor(((np.stack([x, y], -1) - near) / size * 2 - 1).astype(np.float32))
    theirs = torch.nn.functional.grid_sample(torch.tensor(masks)[:, None], places, align_corners=False)
    ours = instance_masks.paste_masks(masks, boxes, HEIGHT, WIDTH)
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), atol=1e-3)  # float32 over a box of .2 px


def test_nothing_to_paste():
    none = instance_masks.threshold_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), 5, 7)
    assert none.shape == (0, 5, 7)
    boxes = np.array([[3, 3, 3, 9], [8, 2, 4, 6], [np.nan, 0, 4, 4], [0, 0, np.inf, 4], [0, 0, 0, 0]], np.float32)
    assert not instance_masks.paste_masks(np.ones((5, 28, 28), np.float32), boxes, 9, 9).any()
    far = np.array([[-1e30, -1e30, 1e30, 1e30]], np.float32)
    assert instance_masks.threshold_masks(np.ones((1, 28, 28), np.float32), far, 9, 9).all()


def test_a_mask_comes_back_from_its_box():
    """Of small objects: with either half pixel of torchvision's, the overlap would be .8 at most."""
    masks = draw_masks(8, batch=1, objects=9)[0]
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    boxes = np.float32(boxes)
    given = (jnp.asarray(masks[None]), jnp.arange(9)[None], jnp.asarray(boxes[None]), jnp.ones((1, 9), bool))
    targets = np.asarray(instance_masks.mask_targets(*given)[0])
    for scale in (1, 3):  # at three times the resolution, too
        true = masks.repeat(scale, 1).repeat(scale, 2)
        found = instance_masks.threshold_masks(targets, scale * boxes, scale * HEIGHT, scale * WIDTH)
        overlaps = (true & found).sum((1, 2)) / (true | found).sum((1, 2))
        assert overlaps.min() > (0.99 if scale == 1 else 0.93)
