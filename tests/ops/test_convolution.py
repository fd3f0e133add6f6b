"""The convolutions equal JAX's in value and in derivatives of both modes and two orders, and torch's.

Everything is float32. 1e-5 of an array's largest value is some hundred roundings: sums here have up to a few thousand
terms, in another order than the reference's.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolutions import CASES, assert_same, normal, pair, problem
from jax.sharding import NamedSharding, PartitionSpec

from cvjax.errors import UserError
from cvjax.ops import convolution_cpu
from cvjax.ops.convolution import conv, conv_transpose
from cvjax.sharding import make_mesh


def energy(f):
    return lambda *args: (jnp.sin(f(*args)) ** 2).mean()


def slope(f):
    """Squared norm of the gradients: what a gradient penalty is made of."""
    return lambda *args: sum((g**2).mean() for g in jax.grad(energy(f), (0, 1))(*args))


@pytest.mark.parametrize("name", CASES)
def test_equals_lax(name):
    ours, plain, x, w, v = problem(name)

    def everything(x, w, v, f):
        first = f(x, w), jax.grad(energy(f), (0, 1))(x, w), jax.jvp(f, (x, w), (v, jnp.cos(w)))
        return first, jax.grad(slope(f), (0, 1))(x, w)

    everything = jax.jit(everything, static_argnums=3)
    (first, second), (first_plain, second_plain) = everything(x, w, v, ours), everything(x, w, v, plain)
    assert_same(first, first_plain)
    assert_same(second, second_plain)


@pytest.mark.parametrize("name", ["4x4 stride 2", "asymmetric", "grouped", "depthwise", "depthwise sums"])
def test_maps_and_jacobians_equal_lax(name):
    ours, plain, x, w, v = problem(name)
    xs, ws = jnp.stack([x, v, x - v]), jnp.stack([w, jnp.sin(w), -w], axis=3)  # mapped axes in several places

    def everything(x, w, v, xs, ws, f):
        gradients, y = jax.grad(energy(f), (0, 1)), f(v, w)
        return {
            "images": jax.vmap(f, (0, None))(xs, w),
            "kernels": jax.vmap(f, (None, 3), 4)(x, ws),
            "both": jax.vmap(f, (0, 3))(xs, ws),
            "gradients of images": jax.vmap(gradients, (0, None))(xs, w),
            "gradients of kernels": jax.vmap(gradients, (None, 3))(x, ws),
            "gradients of both": jax.vmap(gradients, (0, 3))(xs, ws),
            "one output": jax.vmap(lambda x: jax.vjp(f, x, w)[1](y)[1])(xs),
            "one output, kernels": jax.vmap(lambda w: jax.vjp(f, x, w)[1](y)[0], 3)(ws),
            "of a map": jax.grad(lambda w: energy(jax.vmap(f, (0, None)))(xs, w))(w),
            "twice": jax.vmap(jax.vmap(f, (None, 3)), (0, None))(xs, ws),
            "jacobian": jax.jacfwd(f, 1)(x[:1, :4, :4], w),
            "hessian": jax.jacfwd(jax.grad(energy(f), 1), 1)(x, w)[:1, :1],
            "remat": jax.grad(jax.checkpoint(energy(f)), (0, 1))(x, w),
        }

    everything = jax.jit(everything, static_argnums=5)
    assert_same(everything(x, w, v, xs, ws, ours), everything(x, w, v, xs, ws, plain))


def test_transposed_is_the_adjoint():
    # <conv(x, w), y> = <x, conv_transpose(y, w)>, by definition.
    for groups, kernel, stride, padding, dilation in [(1, 4, 2, 1, 1), (2, (3, 2), (2, 3), (1, (0, 1)), (1, 2))]:
        w = normal(0, (*pair(kernel), 6 // groups, 4))
        y = normal(1, (2, 5, 4, 6))
        settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        z = jax.jit(partial(conv_transpose, **settings))(y, w)
        x = normal(2, z.shape)
        # The kernel of the convolution reads what the transposed one writes.
        u = jnp.concatenate([part.swapaxes(2, 3) for part in jnp.split(w, groups, axis=3)], axis=3)
        np.testing.assert_allclose(np.vdot(jax.jit(partial(conv, **settings))(x, u), y), np.vdot(x, z), rtol=1e-5)


def test_any_leading_axes():
    w, x = normal(0, (3, 3, 2, 4)), normal(1, (2, 3, 5, 6, 2))
    y = conv(x, w, padding=1)
    assert y.shape == (2, 3, 5, 6, 4)
    np.testing.assert_allclose(conv(x[1, 2], w, padding=1), y[1, 2], atol=1e-6)
    np.testing.assert_allclose(conv_transpose(x[1, 2], w), conv_transpose(x, w)[1, 2], atol=1e-6)
    assert conv(x[:0], w).shape == (0, 3, 3, 4, 4)
    assert conv(x[:0], w[:, :, :1], groups=2).shape == (0, 3, 3, 4, 4)


@pytest.mark.parametrize("name", ["4x4 stride 2", "depthwise", "grouped 1x1"])
def test_bfloat16(name):
    ours, plain, *arrays = problem(name)
    x, w, v = (a.astype(jnp.bfloat16) for a in arrays)
    for f in (lambda f: f(x, w), lambda f: jax.vjp(f, x, w)[1](f(v, w)), lambda f: jax.jvp(f, (x, w), (v, w))):
        actual, expected = f(ours), f(plain)
        assert all(a.dtype == jnp.bfloat16 for a in jax.tree.leaves(actual))
        assert_same(actual, expected, 2**-7)  # one unit in the last of bfloat16's eight binary digits


def test_dtypes_of_sums_and_of_mixtures():
    x, w = jnp.ones((1, 2, 2, 300), jnp.bfloat16), jnp.ones((1, 1, 300, 1), jnp.bfloat16)
    f = lambda x, w: conv(x, w, preferred_element_type=jnp.float32)  # noqa: E731
    assert f(x, w).dtype == jnp.float32
    assert float(f(x, w + 2**-7).max()) == 300 * (1 + 2**-7)  # no bfloat16
    x_bar, w_bar = jax.grad(lambda x, w: f(x, w).sum(), (0, 1))(x, w)
    assert x_bar.dtype == w_bar.dtype == jnp.bfloat16
    assert conv(x, w.astype(jnp.float32)).dtype == jnp.float32


# --- devices and platforms ------------------------------------------------------------------------------------------


def penalised(params, x):
    """A loss through every kind of layer and its second derivatives."""

    def net(x):
        x = jnp.sin(conv(x, params["strided"], stride=2, padding=1))
        x = jnp.sin(conv(x, params["depthwise"], padding=1, groups=8))
        x = jnp.sin(conv(x, params["grouped"], padding=1, groups=2))
        return conv_transpose(x, params["transposed"], stride=2, padding=1)

    gradient = jax.grad(lambda x: net(x).sum())(x)
    return (net(x) ** 2).mean() + ((gradient**2).sum((1, 2, 3)) - 1).mean() ** 2


@pytest.fixture(scope="module")
def training():
    shapes = {"strided": (4, 4, 3, 8), "depthwise": (3, 3, 1, 8), "grouped": (3, 3, 4, 8), "transposed": (4, 4, 8, 4)}
    draw = lambda i, s: normal(i, s) / np.sqrt(np.prod(s[:3]))  # noqa: E731
    return {name: draw(i, s) for i, (name, s) in enumerate(shapes.items())}, draw(9, (8, 8, 8, 3)) * 8


def test_eight_devices_equal_one(training):
    params, x = training
    gradient = jax.jit(jax.value_and_grad(penalised))
    expected = gradient(params, x)
    mesh = make_mesh({"data": 4, "fsdp": 2})
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    for spec in (PartitionSpec(), PartitionSpec(None, None, None, "fsdp")):
        assert_same(gradient(jax.device_put(params, NamedSharding(mesh, spec)), split), expected)


def test_data_parallel_step_only_sums_gradients(training):
    params, x = training
    mesh = make_mesh({"data": 8})
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    compiled = jax.jit(jax.grad(penalised)).lower(params, x).compile().as_text()
    assert re.search(r" all-reduce(-start)?\(", compiled)
    assert not re.search(r" (all-gather|all-to-all|collective-permute)(-start)?\(", compiled)


@pytest.mark.parametrize("stride", [1, 2])  # a convolution; products of patches and outputs, row by row
def test_devices_share_the_weight_gradient(stride, monkeypatch):
    monkeypatch.setattr(convolution_cpu, "LAID_OUT", 0)
    x, w = normal(0, (8, 12, 9, 3)), normal(1, (3, 3, 3, 24))
    gradient = jax.jit(jax.grad(lambda w, x: (conv(x, w, stride=stride) ** 2).mean()))
    expected = gradient(w, x)
    mesh = make_mesh({"data": 8})
    w = jax.device_put(w, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    compiled = gradient.lower(w, x).compile()
    assert_same(compiled(w, x), expected)
    assert ("while" in compiled.as_text()) == (stride == 2)
    assert not re.search(r" (all-gather|all-to-all|collective-permute)(-start)?\(", compiled.as_text())


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_plain_convolutions(training, platform):
    exported = jax.export.export(jax.jit(jax.grad(penalised)), platforms=[platform])(*training).mlir_module()
    assert "stablehlo.convolution" in exported
    assert not re.search(r"stablehlo\.(while|reduce_window|dot_general)", exported)


def test_cpu_convolutions_are_of_the_fast_kind(training):
    # In any other order of dimensions a convolution runs as a naive loop inside `scan`; one with holes in its input
    # multiplies by them, which only few channels of output make worth while.
    lowered = jax.jit(jax.grad(penalised)).lower(*training).as_text()
    convolutions = re.findall(r"stablehlo\.convolution.*", lowered)
    assert convolutions
    for line in convolutions:
        assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line
        assert "feature_group_count = 1 " in line and "batch_group_count = 1 " in line
        assert "lhs_dilate = [1, 1]" in line or re.search(r"x[34]xf32>$", line)


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w: conv(x, w[:, :, :2]), "4 channels in 1 group want a kernel [kh, kw, 4, features]"),
        (lambda x, w: conv(x, w, groups=3), "3 groups do not divide 4 channels"),
        (lambda x, w: conv(x, w, stride=0), "stride is a number of at least 1"),
        (lambda x, w: conv(x, w, stride=(1, 2, 3)), "not (1, 2, 3)"),
        (lambda x, w: conv(x, w, padding=(1, 1, 1, 1)), "padding is a number or (vertical, horizontal)"),
        (lambda x, w: conv(x, w, padding=(1, (1, 2, 3))), "not (1, 2, 3)"),
        (lambda x, w: conv(x, w, padding="SAMEISH"), "SAMEISH"),
        (lambda x, w: conv(x, w, dilation=4), "too small"),
        (lambda x, w: conv_transpose(x, w, padding="SAME"), "in numbers, not 'SAME'"),
        (lambda x, w: conv_transpose(x, w, padding=9), "leave no output"),
        (lambda x, w: conv_transpose(x, w, output_padding=-1), "output_padding is a number of at least 0"),
    ],
)
def test_mistakes(call, words):
    with pytest.raises(UserError, match=re.escape(words)):
        call(jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 4, 5)))


# --- torch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def to_torch(torch, images):
    return torch.from_numpy(np.array(images).transpose(0, 3, 1, 2)).requires_grad_()


def assert_same_as_torch(torch, ours, theirs, x, weight, kernel_axes):
    """Values and gradients; `weight` is torch's, `kernel_axes` take it to ours."""
    w, images = weight.permute(kernel_axes).detach().numpy(), to_torch(torch, x)
    y, back = jax.vjp(ours, x, jnp.asarray(w))
    expected = theirs(images, weight)
    assert_same(y, expected.detach().permute(0, 2, 3, 1))
    (expected**2).sum().backward()
    assert_same(back(2 * y), (images.grad.permute(0, 2, 3, 1), weight.grad.permute(kernel_axes)))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 1), ((2, 1), (0, 2), 2, 2), (2, 1, 1, 6)]
)
def test_conv_equals_torch(torch, stride, padding, dilation, groups):
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = normal(0, (2, 8, 9, 6))
    weight = torch.randn(12, 6 // groups, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = lambda x, w: torch.nn.functional.conv2d(x, w, **settings)  # noqa: E731
    assert_same_as_torch(torch, lambda x, w: conv(x, w, **settings), theirs, x, weight, (2, 3, 1, 0))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "dilation"),
    [
        (4, 2, 1, 0, 1),
        (3, 2, 1, 1, 1),
        (4, 1, 0, 0, 1),
        (2, 2, 0, 0, 1),
        (2, 3, 0, 2, 1),
        ((3, 2), (1, 3), (1, 0), (0, 2), 1),
        (3, 2, 2, 2, 3),  # torch lets output_padding reach the dilation
    ],
)
def test_conv_transpose_equals_torch(torch, kernel, stride, padding, output_padding, dilation):
    settings = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    y = normal(0, (2, 4, 5, 6))
    weight = torch.randn(6, 8, *pair(kernel), generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = lambda y, w: torch.nn.functional.conv_transpose2d(y, w, **settings)  # noqa: E731
    assert_same_as_torch(torch, lambda y, w: conv_transpose(y, w, **settings), theirs, y, weight, (2, 3, 0, 1))


@pytest.mark.parity
@pytest.mark.parametrize(("groups", "features"), [(2, 6), (4, 4), (4, 8)])
def test_grouped_conv_transpose_equals_torch(torch, groups, features):
    y = normal(0, (2, 4, 5, 4))
    weight = torch.randn(4, features // groups, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.conv_transpose2d(to_torch(torch, y), weight, None, 2, 1, 1, groups)
    parts = [part.permute(2, 3, 0, 1) for part in weight.chunk(groups)]  # a group's [in, out, kh, kw]
    actual = conv_transpose(
        y, jnp.asarray(torch.cat(parts, 3).numpy()), stride=2, padding=1, output_padding=1, groups=groups
    )
    assert_same(actual, expected.detach().permute(0, 2, 3, 1))


@pytest.mark.parametrize("groups", [1, 2])
def test_sums_of_bfloat16_lose_nothing(groups):
    """Added one by one in bfloat16, ones stop at 256; all of these sums are multiples of 16 below 2,048."""
    x, w = jnp.ones((2, 24, 24, groups), jnp.bfloat16), jnp.ones((24, 24, 1, groups), jnp.bfloat16)
    assert (conv(x, w, groups=groups) == 576).all()
    assert conv_transpose(x, w, groups=groups).max() == 576
    for kernel in (w[:1, :1], w[:2, :2]):
        padding = ((0, kernel.shape[0] - 1),) * 2
        gradient = jax.grad(lambda v, pads=padding: conv(x, v, padding=pads, groups=groups).astype(jnp.float32).sum())(
            kernel
        )
        assert gradient[0, 0, 0, 0] == 1152
    deep = jnp.ones((1, 1, 1, 1024 * groups), jnp.bfloat16)
    assert (conv(deep, jnp.ones((1, 1, 1024, groups), jnp.bfloat16), groups=groups) == 1024).all()


def test_sums_of_bfloat16_lose_nothing_in_the_forms_for_many_images_and_for_few_outputs():
    one = partial(jnp.ones, dtype=jnp.bfloat16)
    images, kernel = one((16, 16, 16, 1)), one((3, 3, 1, 32))
    gradient = jax.grad(lambda w: conv(images, w, padding=1).astype(jnp.float32).sum())(kernel)
    assert (gradient[1, 1] == 4096).all()
    x, w = one((1, 4, 4, 128)), one((4, 4, 128, 128))
    assert (conv(x, w, stride=2, padding=1) == 9 * 128).all()
    x_bar = jax.grad(lambda x: conv(x, w, stride=2, padding=1).astype(jnp.float32).sum())(x)
    assert (x_bar[0, 1:3, 1:3] == 4 * 128).all()
