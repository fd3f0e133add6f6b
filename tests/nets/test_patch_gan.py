"""A PatchGAN's logits see patches of the promised size, and its layers are those of the paper's appendix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.patch_gan import PatchGAN, check_field

KEY = jax.random.key(0)


@pytest.mark.parametrize("field", [1, 16, 70, 286])
def test_the_receptive_field_is_that_of_the_jacobian(field):
    net = PatchGAN(field, features=2, norm="none")
    side = 3 * field + 64  # so that a patch in the middle is not cut by the border
    held = net.init(KEY, jnp.zeros((1, 96, 96, 1)))
    middle = jax.eval_shape(net.apply, held, jnp.zeros((1, side, side, 1))).shape[1] // 2
    image = jax.random.normal(KEY, (1, side, side, 1))
    seen = np.abs(jax.grad(lambda x: net.apply(held, x)[0, middle, middle])(image))[0, :, :, 0] > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert [np.ptp(rows) + 1, np.ptp(columns) + 1] == [field, field]


def test_parameters_and_logits_are_those_of_the_70_pixel_discriminator():
    shapes = jax.eval_shape(PatchGAN().init, KEY, jnp.zeros((1, 256, 256, 6)))["params"]
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 2_768_705  # of the published discriminator, 3 + 3 channels
    assert jax.eval_shape(PatchGAN(norm="none").apply, _held(), jnp.zeros((2, 256, 256, 6))).shape == (2, 30, 30)
    assert "bias" not in shapes["conv_1"] and "bias" in shapes["conv_0"] and "bias" in shapes["logits"]
    instance = jax.eval_shape(PatchGAN(norm="instance").init, KEY, jnp.zeros((1, 64, 64, 3)))["params"]
    assert "bias" in instance["conv_1"] and not any(name.startswith("norm") for name in instance)


def _held():
    return jax.eval_shape(PatchGAN(norm="none").init, KEY, jnp.zeros((1, 256, 256, 6)))


def test_initial_kernels_and_scales_are_drawn_as_in_the_paper():
    held = PatchGAN(70, 32).init(KEY, jnp.zeros((1, 64, 64, 3)))["params"]
    kernels = np.concatenate([np.ravel(layer["kernel"]) for name, layer in held.items() if "norm" not in name])
    np.testing.assert_allclose([kernels.mean(), kernels.std()], [0, 0.02], atol=2e-4)
    scales = np.concatenate([layer["scale"] for name, layer in held.items() if "norm" in name])
    np.testing.assert_allclose([scales.mean(), scales.std()], [1, 0.02], atol=4e-3)


def test_instance_normalisation_does_not_see_other_images():
    net = PatchGAN(16, 4, norm="instance")
    images = jax.random.normal(KEY, (3, 16, 16, 3))
    held = net.init(KEY, images)
    assert "batch_stats" not in held
    np.testing.assert_allclose(net.apply(held, images)[:1], net.apply(held, images[:1]), atol=1e-6)


@pytest.mark.parametrize(("field", "least"), [(1, 1), (16, 6), (70, 24), (286, 96)])
def test_images_too_small_for_a_field_are_refused(field, least):
    check_field(field, (least, least + 1))
    logits, _ = jax.eval_shape(PatchGAN(field, 1, "none").init_with_output, KEY, jnp.zeros((1, least, least, 1)))
    assert logits.shape == (1, 1, 1)
    if least > 1:
        with pytest.raises(
            UserError, match=f"field={field} needs images of at least {least}x{least}, not 500x{least - 1}"
        ):
            check_field(field, (500, least - 1))
