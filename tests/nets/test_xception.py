"""Xception-65: parameters counted by hand, and levels beside those of a torch network with the same weights."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.xception import Xception

SMALL = dict(width=0.125, units=2)


def shapes(net, size=(65, 47)):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    return variables, jax.eval_shape(net.apply, variables, images)


def separable(inputs, outputs):
    """A 3x3 kernel and a scale and shift for each input, a 1x1 kernel, and a scale and shift for each output."""
    return 9 * inputs + 2 * inputs + inputs * outputs + 2 * outputs


def shortcut(inputs, outputs):
    return inputs * outputs + 2 * outputs


def test_as_many_parameters_as_figure_4_has():
    stem = 9 * 3 * 32 + 2 * 32 + 9 * 32 * 64 + 2 * 64
    entry = separable(64, 128) + 2 * separable(128, 128) + shortcut(64, 128)
    entry += separable(128, 256) + 2 * separable(256, 256) + shortcut(128, 256)
    entry += separable(256, 728) + 2 * separable(728, 728) + shortcut(256, 728)
    middle = 16 * 3 * separable(728, 728)
    leave = separable(728, 728) + separable(728, 1024) + separable(1024, 1024) + shortcut(728, 1024)
    leave += separable(1024, 1536) + separable(1536, 1536) + separable(1536, 2048)
    params = shapes(Xception())[0]["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == stem + entry + middle + leave
    assert stem + entry + middle + leave + 2049 * 1000 == pytest.approx(39.92e6, abs=5e3)  # timm's, with its classifier


def test_levels_output_strides_and_captured_layers():
    names = ("entry_flow_conv1_2", "middle_flow_unit_2", "exit_flow_block1", "c2", "c4")
    _, captured = shapes(Xception(**SMALL, output_stride=16, capture=names), size=(129, 96))
    assert {name: value.shape[1:] for name, value in captured.items()} == {
        "entry_flow_conv1_2": (65, 48, 8),
        "c2": (33, 24, 32),
        "middle_flow_unit_2": (9, 6, 91),
        "c4": (9, 6, 91),
        "exit_flow_block1": (9, 6, 128),
    }
    with pytest.raises(UserError, match="no layer 'middle_flow_unit_3' to capture"):
        shapes(Xception(**SMALL, capture=("middle_flow_unit_3",)))
    with pytest.raises(UserError, match="output_stride=12 has to be 4, 8, 16, 32 or None"):
        shapes(Xception(output_stride=12))


def random_variables(net):
    """Kernels that keep an image's contrast, and norms away from 0 and 1, where mistakes in them would not show."""
    random, variables = np.random.default_rng(0), {}
    for path, leaf in flax.traverse_util.flatten_dict(shapes(net)[0]).items():
        low, high = {"scale": (0.7, 1.3), "var": (0.7, 1.3)}.get(path[-1], (-0.2, 0.2))
        value = random.uniform(low, high, leaf.shape)
        if path[-1] == "kernel":
            value = random.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        variables[path] = value.astype(np.float32)
    return flax.traverse_util.unflatten_dict(variables)


class Torch:
    """DeepLab's Xception written with torch's functions, over our variables."""

    def __init__(self, torch, variables, inner_relu, rates):
        """Takes the strides and dilations of the blocks, {name: (stride, dilation)}."""
        self.torch, self.inner_relu, self.rates = torch, inner_relu, rates
        flat = flax.traverse_util.flatten_dict(variables, sep="/")
        self.values = {name: torch.tensor(value) for name, value in flat.items()}

    def conv(self, x, name, stride=1, dilation=1):
        kernel = self.values[f"params/{name}/kernel"].permute(3, 2, 0, 1).contiguous()
        padding = dilation * (kernel.shape[-1] // 2)
        groups = x.shape[1] // kernel.shape[1]
        return self.torch.nn.functional.conv2d(x, kernel, None, stride, padding, dilation, groups)

    def norm(self, x, name):
        statistics = [self.values[f"batch_stats/{name}/{kind}"] for kind in ("mean", "var")]
        affine = [self.values[f"params/{name}/{kind}"] for kind in ("scale", "bias")]
        return self.torch.nn.functional.batch_norm(x, *statistics, *affine, eps=1e-3)

    def block(self, x, name, last):
        y, (stride, dilation) = x, self.rates.get(name, (1, 1))
        for index in (1, 2, 3):
            part = f"{name}/separable_conv{index}"
            inner = self.inner_relu or last
            y = y if inner else y.relu()
            y = self.conv(y, f"{part}/depthwise", stride if index == 3 else 1, dilation)
            y = self.norm(y, f"{part}/depthwise_norm")
            y = self.conv(y.relu() if inner else y, f"{part}/pointwise")
            y = self.norm(y, f"{part}/pointwise_norm")
            y = y.relu() if inner else y
            if index == 2:
                second = y
        if last:
            return y, second
        if not name.startswith("middle"):
            x = self.norm(self.conv(x, f"{name}/shortcut", stride), f"{name}/shortcut_norm")
        return x + y, second

    def __call__(self, images):
        x = self.torch.tensor(2 * images - 1).permute(0, 3, 1, 2).contiguous()
        for name, stride in (("entry_flow_conv1_1", 2), ("entry_flow_conv1_2", 1)):
            x = self.norm(self.conv(x, name, stride), f"{name}_norm").relu()
        levels = {}
        entry = [f"entry_flow_block{index}" for index in (1, 2, 3)]
        for name in [*entry, "middle_flow_unit_1", "middle_flow_unit_2", "exit_flow_block1", "exit_flow_block2"]:
            x, second = self.block(x, name, name == "exit_flow_block2")
            if name == "entry_flow_block2":
                levels["c2"] = second
            level = {"entry_flow_block2": "c3", "middle_flow_unit_2": "c4", "exit_flow_block2": "c5"}.get(name)
            levels |= {level: x} if level else {}
        return {name: value.permute(0, 2, 3, 1).numpy() for name, value in levels.items()}


# Strides and dilations as in the released model at output stride 8.
ATROUS = {
    "entry_flow_block1": (2, 1),
    "entry_flow_block2": (2, 1),
    "middle_flow_unit_1": (1, 2),
    "middle_flow_unit_2": (1, 2),
    "exit_flow_block1": (1, 2),
    "exit_flow_block2": (1, 4),
}
STRIDED = {f"entry_flow_block{index}": (2, 1) for index in (1, 2, 3)} | {"exit_flow_block1": (2, 1)}


@pytest.mark.parity
@pytest.mark.parametrize(("output_stride", "inner_relu", "rates"), [(8, False, ATROUS), (None, True, STRIDED)])
def test_levels_are_torchs(output_stride, inner_relu, rates):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    net = Xception(**SMALL, output_stride=output_stride, inner_relu=inner_relu)
    variables = random_variables(net)
    images = np.random.default_rng(1).uniform(size=(2, 65, 47, 3)).astype(np.float32)
    found = jax.jit(net.apply)(variables, images)
    for name, expected in Torch(torch, variables, inner_relu, rates)(images).items():
        # float32 through up to 50 layers, relative to the size of the level's features
        np.testing.assert_allclose(found[name], expected, atol=1e-5 * np.abs(expected).max(), rtol=0, err_msg=name)
