"""FCN's upsampling, crops and parameters are the authors', and its outputs those of torch with the same weights."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.imagenet import DEVIATION, MEAN
from cvjax.nets.vgg import DEPTHS
from cvjax.segmentation import fcn

KEY = jax.random.key(0)
SMALL = dict(depth=11, width=2, hidden=6, dropout=0.0, skip_scales=(0.5, 0.25))


def make(size, **options):
    return fcn.recipe((*size, 3), 5, **{**SMALL, **options})


def batch_of(size, channels=3):
    return {"image": jnp.zeros((1, *size, channels)), "class_map": jnp.zeros((1, *size), jnp.int32)}


@pytest.mark.parametrize(("stride", "parameters"), [(32, 134_346_581), (16, 134_364_410), (8, 134_376_863)])
def test_as_many_parameters_as_the_authors_networks(stride, parameters):
    """Without the last upsampling, which is fixed: it has 21 * 21 * (2 * stride)^2 weights in Caffe's file."""
    recipe = fcn.recipe((500, 375, 3), 21, stride=stride)
    state = jax.eval_shape(recipe.init, KEY, batch_of((500, 375)))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == parameters
    assert state.params.keys() == {"vgg", *["score32", "score16", "score8"][: 1 + (stride < 32) + (stride < 16)]}


@pytest.mark.parametrize("padding", [100, 1])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_any_size_is_covered(stride, padding):
    for size in ((1, 50), (33, 97)):
        recipe = make(size, stride=stride, padding=padding)
        state = jax.eval_shape(recipe.init, KEY, batch_of(size))
        found = jax.eval_shape(recipe.eval_step, state, batch_of(size), KEY)
        assert found["segmentation"].shape == (1, *size)


def test_networks_of_a_larger_stride_fit_into_those_of_a_smaller_one():
    states = [jax.eval_shape(make((32, 32), stride=n).init, KEY, batch_of((32, 32))) for n in (32, 16, 8)]
    for coarse, fine in itertools.pairwise(states):
        assert all(
            jax.tree.map(jnp.shape, fine.params[name]) == jax.tree.map(jnp.shape, held)
            for name, held in coarse.params.items()
        )


def test_scores_are_zero_at_first_and_upsampling_is_bilinear():
    recipe = make((32, 64), stride=16, padding=1)
    held = jax.jit(recipe.init)(KEY, batch_of((32, 64))).params
    assert not held["score32"]["score"]["kernel"].any() and not held["score16"]["score"]["kernel"].any()
    kernel = held["score16"]["upscore"]["kernel"]
    np.testing.assert_allclose(kernel[:, :, 0, 0], np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25]))
    np.testing.assert_array_equal(kernel[..., 0, 1], 0)


def upsampled(torch, x, factor):
    """Caffe's Deconvolution of each channel by itself, with its filler "bilinear"."""
    side = np.arange(2 * factor)
    line = 1 - np.abs(side / factor - (2 * factor - 1 - factor % 2) / (2 * factor))
    kernel = torch.tensor(np.outer(line, line)[None, None].repeat(x.shape[1], 0), dtype=torch.float32)
    return torch.nn.functional.conv_transpose2d(x, kernel, stride=factor, groups=x.shape[1])


@pytest.mark.parity
@pytest.mark.parametrize("padding", [100, 1])
def test_fcn_8s_equals_torch_at_odd_sizes(padding):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    f, size = torch.nn.functional, (37, 51)
    recipe, generator = make(size, padding=padding), np.random.default_rng(0)
    state = jax.jit(recipe.init)(KEY, batch_of(size))
    draw = lambda leaf: np.float32(leaf + 0.1 * generator.normal(size=leaf.shape))  # noqa: E731
    state = state.replace(params=jax.tree.map(draw, jax.device_get(state.params)))
    images = generator.uniform(size=(2, *size, 3)).astype(np.float32)

    def tensors(held, order=(3, 2, 0, 1)):
        bias = torch.tensor(held["bias"]) if "bias" in held else None
        return torch.tensor(held["kernel"]).permute(*order).contiguous(), bias

    vgg, (coarse, middle, fine) = state.params["vgg"], (state.params[n] for n in ("score32", "score16", "score8"))
    x = torch.tensor(np.float32((images - MEAN) / DEVIATION)).permute(0, 3, 1, 2).contiguous()
    beyond = [-(side + 2 * padding - 2) % 32 for side in size]
    x = f.pad(x, (0, beyond[1], 0, beyond[0]))
    pools = []
    for stage, count in enumerate(DEPTHS[11], start=1):
        for place in range(1, count + 1):
            around = padding if (stage, place) == (1, 1) else 1
            x = f.relu(f.conv2d(x, *tensors(vgg[f"conv{stage}_{place}"]), padding=around))
        x = f.max_pool2d(x, 2)
        pools.append(x)
    x = f.relu(f.conv2d(x, *tensors(vgg["fc6"]), padding=0 if padding == 100 else 3))
    x = f.conv2d(f.relu(f.conv2d(x, *tensors(vgg["fc7"]))), *tensors(coarse["score"]))
    for held, pool, scale, crop in ((middle, pools[3], 0.5, 5), (fine, pools[2], 0.25, 9)):
        inside = 0 if padding == 100 else 1
        x = f.conv_transpose2d(x, *tensors(held["upscore"], (2, 3, 0, 1)), stride=2, padding=inside)
        crop = crop if padding == 100 else 0
        x = x + f.conv2d(scale * pool, *tensors(held["score"]))[..., crop : crop + x.shape[2], crop : crop + x.shape[3]]
    x, crop = upsampled(torch, x, 8), 31 if padding == 100 else 4
    expected = x[..., crop : crop + size[0], crop : crop + size[1]].permute(0, 2, 3, 1).numpy()
    system = recipe.init.__self__
    held = {name: {"params": params} for name, params in state.params.items()}
    ours, _ = jax.jit(partial(system.forward, None))(held, jnp.asarray(images))
    assert expected.shape == (2, *size, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
