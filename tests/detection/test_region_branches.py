"""The losses of masks and of joints beside torchvision's, with their gradients, and where there is nothing to learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import region_branches
from cvjax.ops.keypoint_heatmaps import encode_keypoints

IMAGES, REGIONS, CLASSES, JOINTS = 2, 6, 3, 4


def draw(seed=0, size=8):
    random = np.random.default_rng(seed)
    near = random.uniform(0, 20, (IMAGES, REGIONS, 2))
    return {
        "masks": random.normal(size=(IMAGES, REGIONS, size, size, CLASSES)).astype(np.float32),
        "joints": random.normal(size=(IMAGES, REGIONS, size, size, JOINTS)).astype(np.float32),
        "targets": random.uniform(size=(IMAGES, REGIONS, size, size)).astype(np.float32),
        "labels": random.integers(0, CLASSES, (IMAGES, REGIONS)).astype(np.int32),
        "positive": random.random((IMAGES, REGIONS)) < 0.6,
        "boxes": np.concatenate([near, near + random.uniform(5, 20, near.shape)], -1).astype(np.float32),
        "places": random.uniform(0, 40, (IMAGES, REGIONS, JOINTS, 2)).astype(np.float32),
        "visibility": random.integers(0, 3, (IMAGES, REGIONS, JOINTS)).astype(np.int32),
    }


@pytest.mark.parity
def test_the_loss_of_masks_and_its_gradient_are_torchs():
    """Of positive regions, the mean over all pixels; the masks of other classes have no gradient."""
    torch = pytest.importorskip("torch")
    drawn = draw()
    positive, labels = drawn["positive"], drawn["labels"]
    loss, gradient = jax.value_and_grad(region_branches.mask_loss)(
        *(jnp.asarray(drawn[name]) for name in ("masks", "targets", "labels", "positive"))
    )
    logits = torch.tensor(drawn["masks"][positive].transpose(0, 3, 1, 2), requires_grad=True)
    own = logits[torch.arange(len(logits)), torch.tensor(labels[positive]).long()]
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(own, torch.tensor(drawn["targets"][positive]))
    theirs.backward()
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-5)  # the order of float32 sums
    expected = logits.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(np.asarray(gradient)[positive], expected, atol=1e-7)
    assert not np.asarray(gradient)[~positive].any()


@pytest.mark.parity
def test_the_loss_of_joints_and_its_gradient_are_torchvisions(torchvision):
    import torch

    keypointrcnn_loss = torchvision.models.detection.roi_heads.keypointrcnn_loss
    drawn = draw(1)
    places, boxes, positive = (jnp.asarray(drawn[name]) for name in ("places", "boxes", "positive"))
    labelled = jnp.asarray(drawn["visibility"] > 0) & positive[..., None]
    bins = encode_keypoints(places, labelled, boxes, size=8)
    loss, gradient = jax.value_and_grad(region_branches.keypoint_loss)(jnp.asarray(drawn["joints"]), *bins)
    maps = np.ascontiguousarray(drawn["joints"][drawn["positive"]].transpose(0, 3, 1, 2))
    logits = torch.tensor(maps, requires_grad=True)
    truth = np.concatenate([drawn["places"], drawn["visibility"][..., None]], -1)
    each = [
        (torch.tensor(truth[i][drawn["positive"][i]]), torch.tensor(drawn["boxes"][i][drawn["positive"][i]]))
        for i in range(IMAGES)
    ]
    theirs = keypointrcnn_loss(
        logits, [boxes for _, boxes in each], [joints for joints, _ in each], [torch.arange(len(b)) for _, b in each]
    )
    theirs.backward()
    assert 5 < bins[1].sum() < labelled.sum()  # some joints lie outside
    assert float(loss) == pytest.approx(theirs.item(), rel=1e-5)
    expected = logits.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(np.asarray(gradient)[drawn["positive"]], expected, atol=1e-7)


def test_without_anything_to_learn_losses_and_gradients_are_zero():
    drawn = {name: jnp.asarray(value) for name, value in draw().items()}
    nothing = jnp.zeros_like(drawn["positive"])
    found = [
        jax.value_and_grad(region_branches.mask_loss)(drawn["masks"], drawn["targets"], drawn["labels"], nothing),
        jax.value_and_grad(region_branches.keypoint_loss)(
            drawn["joints"], jnp.zeros((IMAGES, REGIONS, JOINTS), jnp.int32), jnp.zeros((IMAGES, REGIONS, JOINTS), bool)
        ),
    ]
    for loss, gradient in found:
        assert loss == 0 and not np.asarray(gradient).any()


def test_masks_are_twice_and_heat_maps_four_times_as_fine():
    pooled = jnp.zeros((2, 3, 14, 14, 6))
    for head, side, channels in (
        (region_branches.MaskHead(5), 28, (6, 256)),
        (region_branches.KeypointHead(17), 56, (6, 512)),
    ):
        outputs, held = jax.eval_shape(lambda head=head: head.init_with_output(jax.random.key(0), pooled))
        assert outputs.shape == (2, 3, side, side, 5 if side == 28 else 17)
        assert held["params"]["conv_0"]["kernel"].shape == (3, 3, *channels)
        assert sum(name.startswith("conv") for name in held["params"]) == (4 if side == 28 else 8)
