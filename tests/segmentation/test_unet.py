"""U-Net's sizes and parameters are the paper's, and its outputs those of torch with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops.tiling import predict_tiles
from cvjax.segmentation import unet
from cvjax.segmentation.unet import UNet

KEY = jax.random.key(0)


def test_the_papers_network_turns_572_pixels_into_388():
    net, images = UNet(2), jax.ShapeDtypeStruct((1, 572, 572, 1), jnp.float32)
    variables = jax.eval_shape(net.init, KEY, images)
    assert jax.eval_shape(net.apply, variables, images).shape == (1, 388, 388, 2)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 31_030_658  # of all ports without normalisation
    assert sum(kernel.ndim == 4 for kernel in jax.tree.leaves(variables)) == 23  # convolutional layers, section 2
    assert unet.margin(4) == (572 - 388) // 2 and unet.tile_size(388, 4) == 388 and unet.tile_size(389, 4) == 404


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [(5, 30), (16, 17)])
def test_any_size_is_covered(padding, size):
    recipe = unet.recipe((*size, 3), 4, depth=2, width=2, padding=padding)
    batch = {"image": jnp.zeros((1, *size, 3)), "class_map": jnp.zeros((1, *size), jnp.int32)}
    state = jax.eval_shape(recipe.init, KEY, batch)
    assert jax.eval_shape(recipe.eval_step, state, batch, KEY)["segmentation"].shape == (1, *size)


@pytest.mark.parity
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_equals_torch(padding):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    f = torch.nn.functional
    net, images = UNet(3, width=2, depth=2, padding=padding), jax.random.uniform(KEY, (2, 44, 52, 1))
    params = jax.device_get(jax.jit(net.init)(KEY, images)["params"])
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32), params)

    def tensors(name, order=(3, 2, 0, 1)):
        kernel, bias = (torch.tensor(np.array(params[name][part])) for part in ("kernel", "bias"))
        return kernel.permute(*order).contiguous(), bias

    def twice(x, name):
        for index in (1, 2):
            x = f.relu(f.conv2d(x, *tensors(f"{name}_conv_{index}"), padding=int(padding == "same")))
        return x

    x, levels = torch.tensor(np.array(images)).permute(0, 3, 1, 2).contiguous() * 2 - 1, []
    for level in range(3):
        x = twice(f.max_pool2d(x, 2) if level else x, f"down_{level}")
        levels.append(x)
    for level in (1, 0):
        x = f.conv_transpose2d(x, *tensors(f"up_{level}", (2, 3, 0, 1)), stride=2)
        cut = [(old - new) // 2 for old, new in zip(levels[level].shape[2:], x.shape[2:], strict=True)]
        skip = levels[level][:, :, cut[0] : cut[0] + x.shape[2], cut[1] : cut[1] + x.shape[3]]
        x = twice(torch.cat([skip, x], dim=1), f"expand_{level}")
    x = f.conv2d(x, *tensors("logits")).permute(0, 2, 3, 1).numpy()
    ours = jax.jit(net.apply)({"params": params}, images)
    assert ours.shape[1:3] == ((44, 52) if padding == "same" else (4, 12))
    np.testing.assert_allclose(ours, x, atol=1e-4)


def test_tiles_of_a_large_image_equal_the_whole():
    """Unpadded convolutions see the same in a tile as in the whole image, at steps of 2 ** depth pixels."""
    net = UNet(3, width=2, depth=2)
    size, edge, tile = (50, 37), unet.margin(2), unet.tile_size(17, 2)
    image = np.random.default_rng(0).uniform(size=(*size, 1)).astype(np.float32)
    whole = [unet.padding_of(net, side) for side in size]
    mirrored = jnp.asarray(np.pad(image, (*whole, (0, 0)), mode="reflect")[None])
    apply, variables = jax.jit(net.apply), jax.jit(net.init)(KEY, mirrored)
    expected = apply(variables, mirrored)[0, : size[0], : size[1]].argmax(-1)
    found = predict_tiles(lambda x: apply(variables, jnp.asarray(x)), image, tile, edge, tile - 4)
    np.testing.assert_array_equal(found, expected)
    assert tile == 20 and len(np.unique(expected)) > 1
