"""The forms of convolutions for CPUs and for GPUs equal the plain ones, and cuDNN gets what it is fast at."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from convolutions import CASES, assert_same, normal, pair
from jax import lax

from cvjax.ops import convolution_cpu, convolution_gpu, convolution_plain
from cvjax.ops.convolution import conv, conv_transpose
from cvjax.ops.convolution_plain import Geometry


@pytest.mark.parametrize("laid_out", [0, 400, 2**18])  # a row at a time, some rows, all of them
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[-1][-1] == 1])
def test_patches_by_outputs_are_the_weight_gradient(name, laid_out, monkeypatch):
    image, kernel, stride, padding, dilation, (channels, features, _) = CASES[name]
    monkeypatch.setattr(convolution_cpu, "WIDE", 1)
    monkeypatch.setattr(convolution_cpu, "LAID_OUT", laid_out)
    if isinstance(padding, str):
        reach = [d * (k - 1) + 1 for d, k in zip(pair(dilation), kernel, strict=True)]
        padding = lax.padtype_to_pads(image, reach, pair(stride), padding)
    geometry = Geometry(image, kernel, pair(stride), tuple(map(pair, pair(padding))), pair(dilation), 1)
    x, y = normal(0, (3, *image, channels)), normal(1, (3, *geometry.output, features))
    same = dict(geometry=geometry, dtype=jnp.float32, precision=None)
    assert_same(convolution_cpu.weight_gradient(x, y, **same), convolution_plain.weight_gradient(x, y, **same))
    narrow = convolution_cpu.weight_gradient(x.astype(jnp.bfloat16), y, **same | {"dtype": jnp.bfloat16})
    assert narrow.dtype == jnp.bfloat16


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [((3, 2), (2, 1), (1, 2)), ((2, 3), (3, 2), (2, 1))])
@pytest.mark.parametrize("height", [9, 10, 11])  # so that the last window ends before the image's end, or at it
def test_a_row_of_zeros_changes_no_convolution_without_padding(height, kernel, stride, dilation, groups, monkeypatch):
    monkeypatch.setattr(convolution_cpu, "LARGE", 1)
    geometry = Geometry((height, 8), kernel, stride, ((0, 0), (0, 0)), dilation, groups)
    x, w = normal(0, (2, height, 8, 4 * groups)), normal(1, (*kernel, 4, 6 * groups))
    same = dict(geometry=geometry, dtype=jnp.float32, precision=None)
    assert_same(convolution_cpu.conv(x, w, **same), convolution_plain.conv(x, w, **same))


@pytest.mark.parametrize("form", ["conv", "conv_transpose"])
def test_one_pixel_is_a_matrix_product(form):
    geometry = Geometry((5, 4), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), 1)
    x, w = normal(0, (2, 5, 4, 6)), normal(1, (1, 1, 6, 6))
    same = dict(geometry=geometry, dtype=jnp.float32, precision=None)
    ours, plain = (partial(getattr(module, form), **same) for module in (convolution_cpu, convolution_plain))
    assert_same(ours(x, w), plain(x, w))
    assert "convolution" not in jax.jit(ours).lower(x, w).as_text()


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_few_outputs_are_products_with_the_kernel_as_it_is(function):
    x, w = normal(0, (1, 4, 4, 64)), normal(1, (4, 4, 64, 64))
    lowered = jax.jit(jax.value_and_grad(lambda x: function(x, w, stride=2, padding=1).sum())).lower(x).as_text()
    assert "stablehlo.dot_general" in lowered
    kernel = r"stablehlo\.(convolution|reverse|slice|transpose)\b.*tensor<(4x4x64x64|1024x64|64x1024)xf32>"
    assert not re.search(kernel, lowered)


@pytest.mark.parametrize(("batch", "stride", "loops"), [(8, 1, False), (4, 1, True), (8, 2, True)])
def test_weight_gradients_of_many_images_are_convolutions(batch, stride, loops):
    x, w = normal(0, (batch, 16, 16, 8)), normal(1, (3, 3, 8, 32))
    gradient = jax.grad(lambda w: conv(x, w, stride=stride, padding=1).sum())
    assert ("stablehlo.while" in jax.jit(gradient).lower(w).as_text()) == loops


def test_taps_that_see_only_padding_are_not_computed():
    x, w = normal(0, (2, 9, 9, 4)), normal(1, (3, 3, 4, 6))
    assert "convolution" not in jax.jit(partial(conv, padding=12, dilation=12)).lower(x, w).as_text()
    gradient = jax.grad(lambda w: (conv(x, w, padding=12, dilation=12) ** 2).sum())(w)
    assert (gradient != 0).sum() == 4 * 6 and (gradient[1, 1] != 0).all()


ATROUS = {"atrous": ((10, 11), (3, 2), 1, ((-1, 5), (4, -2)), (3, 1), (3, 4, 1))}


@pytest.mark.parametrize(
    "name", ["3x3", "4x4 stride 2", "cropping", "dilated", "dilated stride 2", "grouped", "atrous"]
)
def test_the_forms_for_gpus_equal_the_plain_ones(name):
    image, kernel, stride, padding, dilation, (channels, features, groups) = (CASES | ATROUS)[name]
    geometry = Geometry(image, kernel, pair(stride), tuple(map(pair, pair(padding))), pair(dilation), groups)
    x, w = normal(0, (2, *image, channels)), normal(1, (*kernel, channels // groups, features))
    y, how = normal(2, (2, *geometry.output, features)), dict(geometry=geometry, dtype="float32", precision=None)
    for map_of, left, right in [("conv_transpose", y, w), ("weight_gradient", x, y)]:
        gpu, plain = (getattr(module, map_of) for module in (convolution_gpu, convolution_plain))
        assert_same(gpu(left, right, **how), plain(left, right, **how))


def lowered_for_cuda(function, *args):
    return jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()


def test_cudnn_gets_the_flipped_kernel_as_it_is():
    y, w = jnp.ones((2, 4, 4, 8)), jnp.ones((4, 4, 8, 6))
    text = lowered_for_cuda(partial(conv_transpose, stride=2, padding=1), y, w)
    (flipped,) = re.findall(r"(%\S+) = stablehlo.reverse", text)
    assert re.search(rf"stablehlo.convolution\(%\S+, {flipped}\) dim_numbers = \[.*?\]x\[0, 1, o, i\]", text)


def test_cudnn_gets_dense_gradients_of_atrous_convolutions():
    x, w = jnp.ones((2, 12, 12, 4)), jnp.ones((3, 3, 4, 4))
    text = lowered_for_cuda(jax.grad(lambda x, w: (conv(x, w, padding=3, dilation=3) ** 2).sum(), (0, 1)), x, w)
    assert len(re.findall(r"stablehlo.convolution", text)) == 3
    assert len(re.findall(r"rhs_dilate = \[3, 3\]", text)) == 1  # forward
