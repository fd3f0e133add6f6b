"""Patches lie where they should, as SciPy rotates and scales them, and a trained one leads to its target."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special

from cvjax.attacks import patch as attacks
from cvjax.attacks.patch import Placement, bilinear, draw_placement, paste, scale_for
from cvjax.attacks.regions import mask_of
from cvjax.core import Network, variables
from cvjax.errors import UserError
from cvjax.metrics import plots
from cvjax.precision import computing_in

KEY = jax.random.key(0)


@pytest.mark.parametrize("region", ["disc", "square", "glasses", "shirt"])
def test_regions_have_their_shapes(region):
    mask = mask_of(region, 40)
    assert mask.shape == (16 if region == "glasses" else 40, 40) and mask.min() >= 0 and mask.max() == 1
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=0.13)  # the same from left and right, but for an edge
    share = {"disc": np.pi / 4, "square": 1.0, "glasses": 0.5, "shirt": 0.6}[region]
    assert abs(mask.mean() - share) < (0.005 if region in ("disc", "square") else 0.15)
    middle = mask[mask.shape[0] // 2]
    if region == "glasses":  # rim, lens, rim, nothing below the bridge
        assert middle[2] > 0.9 and middle[10] == 0 and mask[5, 20] == 1 and mask[-1, 20] == 0
    if region == "shirt":  # a neck, sleeves and a body
        assert mask[0, 20] == 0 and mask[10, 3] > 0.5 and mask[30, 3] == 0 and mask[30, 20] == 1


def test_between_pixels_as_scipy_has_it():
    generator = np.random.default_rng(0)
    image = generator.random((5, 7, 2)).astype(np.float32)
    y, x = generator.uniform(-2, 8, (2, 9, 9)).astype(np.float32)
    found = bilinear(*map(jnp.asarray, (image, y, x)))
    for channel in range(2):
        expected = scipy.ndimage.map_coordinates(image[..., channel], [y, x], order=1, mode="grid-constant")
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_a_patch_in_place_is_copied_and_around_it_nothing_changes():
    images, patch = jnp.zeros((1, 9, 9, 3)), jax.random.uniform(KEY, (3, 5, 3))
    place = Placement(*(jnp.array([value]) for value in (3.5, 4.5, 1.0, 0.0)))
    found = paste(images, patch, np.ones((3, 5), np.float32), place)[0]
    np.testing.assert_allclose(found[2:5, 2:7], patch, atol=1e-6)
    assert float(jnp.abs(found.at[2:5, 2:7].set(0)).max()) == 0
    quarter = paste(
        images, patch, np.ones((3, 5), np.float32), Placement(place.y + 1, place.x, place.scale, jnp.array([np.pi / 2]))
    )
    np.testing.assert_allclose(quarter[0, 2:7, 3:6], np.rot90(patch, -1), atol=1e-5)  # clockwise


@pytest.mark.parametrize("region", ["disc", "shirt"])
def test_patches_cover_their_share_and_lie_inside(region):
    mask = mask_of(region, 40)
    area = jnp.array([0.05, 0.1, 0.2, 0.2])
    where = draw_placement(KEY, area, jnp.array([0.0, 0.3, -0.4, 1.0]), mask, 64, 80)
    covered = paste(jnp.zeros((4, 64, 80, 1)), jnp.ones((*mask.shape, 1)), mask, where)
    np.testing.assert_allclose(covered.mean(axis=(1, 2, 3)), area, rtol=0.02)  # so nothing is cut off
    np.testing.assert_allclose(scale_for(jnp.array(0.2), np.ones((10, 10)), 50, 50), 50 * np.sqrt(0.2) / 10, rtol=1e-6)


class Colour(nn.Module):
    """Sees class 1 where the red of an image outweighs the rest."""

    @nn.compact
    def __call__(self, images):
        gain = self.param("gain", nn.initializers.constant(20.0), ())
        red = images[..., 0].mean(axis=(1, 2)) - images[..., 1:].mean(axis=(1, 2, 3))
        return gain * jnp.stack([jnp.zeros(len(images)), red - 0.1], axis=-1)


def test_a_trained_patch_beats_a_random_one_and_is_put_on_images():
    network = Network(Colour(), (16, 16, 3), ("grey", "red"))
    recipe = attacks.recipe(network, target=1, size=8, areas=(0.05, 0.3), angle=0.5)
    batch = {"image": 0.5 * jnp.ones((8, 16, 16, 3)), "label": jnp.array([0, 0, 0, 0, 0, 0, 0, 1])}
    state = recipe.init(KEY, batch)
    assert set(state.params) == {"patch"} and set(state.frozen) == {"classifier"}
    step = jax.jit(recipe.train_step)
    for key in jax.random.split(KEY, 40):
        state, _ = step(state, batch, key)
    rows = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    figures = recipe.score([({"label": np.asarray(batch["label"])}, rows)])
    assert figures["patch_success_0_3"] == 1 and figures["patch_success_0_05"] == 0
    assert figures["random_patch_success_0_3"] == 0 and figures["patch_turned_0_5"] == pytest.approx(0.5)
    assert rows["patch"].shape == (8, 2, 3)
    assert set(recipe.visualise(state, batch, KEY, rows)) == {"patch", "patched", "patch_success"}
    found = recipe.predict(state, {"image": batch["image"]}, KEY)
    assert (found["label"] == 1).all() and (found["clean_label"] == 0).all()
    changed = (jnp.abs(found["image"] - batch["image"]).max(axis=-1) > 1e-3).mean()
    assert 0.2 < changed < 0.5  # with its soft edge
    printed = nn.sigmoid(variables(state, "patch")["params"]["pixels"])
    assert float(printed[4, 4, 0]) > 0.8 > 0.2 > float(printed[4, 4, 1])


def test_pixels_are_float32_in_any_precision():
    net = attacks.Patch(4, 4, 3)
    held = net.init(KEY)
    with computing_in(jnp.bfloat16):
        found = net.apply(held)
    np.testing.assert_allclose(found, scipy.special.expit(held["params"]["pixels"]), rtol=1e-6)  # bfloat16: 2e-3


def test_the_patchs_picture_names_the_target(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "draw_gallery", lambda *arguments: drawn.append(arguments) or np.ones((2, 2, 3)))
    recipe = attacks.recipe(Network(Colour(), (16, 16, 3), ("grey", "100 % red")), target=1, size=8, areas=(0.3,))
    batch = {"image": 0.5 * jnp.ones((2, 16, 16, 3)), "label": jnp.array([0, 0])}
    state = recipe.init(KEY, batch)
    recipe.visualise(state, batch, KEY, recipe.eval_step(state, batch, KEY))
    assert drawn[0][1] == ["disc for 100 % red"]


def test_a_target_of_no_class_is_refused():
    with pytest.raises(UserError, match="target=2: the classifier has 2 classes, 0 to 1"):
        attacks.recipe(Network(Colour(), (16, 16, 3), ("grey", "red")), target=2)
