"""DeepLabv3+: its head beside torch's, its rates and strides, and what the decoder adds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.segmentation import deeplab
from cvjax.segmentation.deeplab import Backbone, DeepLabHead
from cvjax.segmentation.segmenter import Inference

KEY = jax.random.key(0)
SMALL = dict(backbone=Backbone(depth=18, width=2), features=8, low_features=4, inference=Inference())


def traced(size=(65, 81), **options):
    """The system, its first state and the shape of its maps, without computing them."""
    recipe = deeplab.recipe((*size, 3), 4, **{**SMALL, **options})
    batch = {"image": jnp.zeros((2, *size, 3)), "class_map": jnp.zeros((2, *size), jnp.int32)}
    state = jax.eval_shape(recipe.init, KEY, batch)
    return recipe.init.__self__, state, jax.eval_shape(recipe.eval_step, state, batch, KEY)["segmentation"].shape


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_rates_follow_the_output_stride(stride, rates):
    system, _, shape = traced(output_stride=stride)
    assert system.head.rates == rates and shape == (2, 65, 81)
    variables = jax.eval_shape(system.backbone.init, KEY, jnp.zeros((1, 64, 96, 3)))
    stages = jax.eval_shape(system.backbone.apply, variables, jnp.zeros((1, 64, 96, 3)))
    assert {name: x.shape[1:3] for name, x in stages.items()} == {"c2": (16, 24), "c5": (64 // stride, 96 // stride)}


def test_the_papers_head():
    head = traced(features=256, low_features=48)[1].params["deeplab"]
    assert head["low"]["conv"]["kernel"].shape == (1, 1, 2, 48)
    assert head["decoder_1"]["conv"]["kernel"].shape == (3, 3, 256 + 48, 256)
    assert head["decoder_2"]["conv"]["kernel"].shape == (3, 3, 256, 256) and "decoder_3" not in head
    assert head["aspp"]["project"]["conv"]["kernel"].shape == (1, 1, 5 * 256, 256)
    without = traced(decoder=False)[1].params["deeplab"]
    assert without.keys() == {"aspp", "logits"}


def test_xception_with_separable_convolutions():
    system, state, shape = traced(backbone=Backbone("xception", width=2, units=1), separable=True)
    assert shape == (2, 65, 81) and state.params.keys() == {"xception", "deeplab"}
    assert state.params["deeplab"]["decoder_1"]["depthwise"]["kernel"].shape == (3, 3, 1, 8 + 4)
    assert state.params["deeplab"]["aspp"]["branch_2"]["depthwise"]["kernel"].shape[2] == 1
    assert system.backbone.momentum == system.head.momentum == 0.9997
    assert system.backbone.epsilon == system.head.epsilon == 1e-3


def test_an_output_stride_without_rates_is_explained():
    with pytest.raises(UserError, match="output_stride 8 and 16, not 32"):
        traced(output_stride=32)
    with pytest.raises(UserError, match="output_stride=6"):
        traced(output_stride=6, rates=(1,))


@pytest.mark.parity
def test_the_head_equals_torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    f, generator = torch.nn.functional, np.random.default_rng(0)
    stages = {
        "c2": generator.normal(size=(2, 9, 13, 3)).astype(np.float32),
        "c5": generator.normal(size=(2, 5, 7, 4)).astype(np.float32),
    }
    net, size = DeepLabHead(3, (1, 2, 3), features=6, low_features=5), (33, 49)
    held = jax.device_get(jax.jit(partial(net.init, size=size))(KEY, jax.tree.map(jnp.asarray, stages)))
    held = jax.tree.map(lambda leaf: np.float32(np.abs(leaf) + 0.2 * generator.uniform(size=leaf.shape)), held)
    held["params"] = jax.tree.map(lambda leaf: leaf - 0.15, held["params"])
    params, stats = held["params"], held["batch_stats"]

    def block(x, params, stats, dilation=1):
        kernel = torch.tensor(params["conv"]["kernel"]).permute(3, 2, 0, 1).contiguous()
        x = f.conv2d(x, kernel, padding=dilation * (kernel.shape[2] // 2), dilation=dilation)
        mean, variance, scale, bias = (
            torch.tensor(tree["norm"][name])
            for tree, name in ((stats, "mean"), (stats, "var"), (params, "scale"), (params, "bias"))
        )
        return f.relu(f.batch_norm(x, mean, variance, scale, bias, eps=1e-3))

    low, x = (torch.tensor(stages[name]).permute(0, 3, 1, 2).contiguous() for name in ("c2", "c5"))
    pyramid, kept = params["aspp"], stats["aspp"]
    branches = [
        block(x, pyramid[name], kept[name], dilation)
        for name, dilation in (("branch_1", 1), ("branch_2", 1), ("branch_3", 2), ("branch_4", 3))
    ]
    pooled = block(x.mean((2, 3), keepdim=True), pyramid["pooled"], kept["pooled"])
    x = block(torch.cat([*branches, pooled.expand_as(branches[0])], dim=1), pyramid["project"], kept["project"])
    x = f.interpolate(x, low.shape[2:], mode="bilinear", align_corners=False)
    x = torch.cat([x, block(low, params["low"], stats["low"])], dim=1)
    for name in ("decoder_1", "decoder_2"):
        x = block(x, params[name], stats[name])
    kernel = torch.tensor(params["logits"]["kernel"]).permute(3, 2, 0, 1).contiguous()
    x = f.conv2d(x, kernel, torch.tensor(params["logits"]["bias"]))
    expected = f.interpolate(x, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1).numpy()
    ours = jax.jit(partial(net.apply, size=size))(held, jax.tree.map(jnp.asarray, stages))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)
