"""The U-Net of DDPM beside diffusers' with the same weights, its attention beside torch's, the paper's parameters."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.generative.diffusion.unet import Architecture, Attention, ResidualBlock, UNet, count_groups

KEY, STEPS = jax.random.key(0), jnp.array([3, 170])
SMALL = Architecture(width=8, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.5)
IMAGES = jax.random.normal(KEY, (2, 4, 4, 1))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def randomise(variables):
    """Draws all parameters, also those that begin at 0."""
    leaves, structure = jax.tree.flatten(variables)
    draw = np.random.default_rng(0).normal
    return structure.unflatten([0.2 * draw(size=leaf.shape).astype(np.float32) for leaf in leaves])


def test_the_default_is_the_net_of_the_paper():
    shapes = jax.eval_shape(UNet().init, KEY, jnp.zeros((1, 32, 32, 3)), STEPS[:1])["params"]
    assert size(shapes) == 35_746_307
    attending = {name for name in shapes if name.endswith("_attention")}
    assert attending == {"down1_0_attention", "down1_1_attention", "middle0_attention"} | {
        f"up1_{index}_attention" for index in range(3)
    }
    both = jax.eval_shape(UNet(outputs=6).init, KEY, jnp.zeros((1, 32, 32, 3)), STEPS[:1])["params"]
    assert size(both) - size(shapes) == 3 * (9 * 128 + 1)
    assert jax.eval_shape(UNet(outputs=6).apply, {"params": both}, jnp.zeros((1, 32, 32, 3)), STEPS[:1]).shape[-1] == 6


# --- parity ---------------------------------------------------------------------------------------------------------

RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "time_emb_proj": "condition", "norm2": "norm2", "conv2": "conv2"}
RESIDUAL |= {"conv_shortcut": "shortcut"}
ATTENTION = {"group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}
SINGLE = {"conv_in": "first", "conv_norm_out": "norm", "conv_out": "last"}
SINGLE |= {"time_embedding.linear_1": "step1", "time_embedding.linear_2": "step2", "class_embedding": "classes"}


def our_place(name, levels):
    """The path of our layer for the name of one of diffusers'."""
    if name in SINGLE:
        return (SINGLE[name],)
    side, level, kind, index, layer = re.fullmatch(r"(\w+?)_blocks?(?:\.(\d))?\.(\w+)\.(\d)\.(.+)", name).groups()
    level = int(level or 0) if side == "down" else levels - 1 - int(level or 0)
    block = f"middle{index}" if side == "mid" else f"{side}{level}_{index}"
    if kind == "resnets":
        return block, RESIDUAL[layer]
    if kind == "attentions":
        return f"{block}_attention", ATTENTION[layer]
    return (f"{'halve' if side == 'down' else 'double'}{level}",)


def our_params(model, levels):
    """Our parameters, from a torch model of diffusers."""
    params = {}
    for name, values in model.state_dict().items():
        name, _, kind = name.rpartition(".")
        *path, layer = our_place(name, levels)
        held = functools.reduce(lambda tree, key: tree.setdefault(key, {}), (*path, layer), params)
        values = values.numpy()
        if layer == "classes":
            held["embedding"] = values
        elif values.ndim == 1:
            held["scale" if kind == "weight" else "bias"] = values
        else:
            held["kernel"] = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T
    return params


@pytest.mark.parity
def test_the_net_is_that_of_diffusers(monkeypatch):
    # these nets do without torchvision, which diffusers imports if it is there, even if it does not fit torch
    monkeypatch.setattr("diffusers.utils.import_utils._torchvision_available", False)
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    torch.manual_seed(0)
    down, up = ["DownBlock2D"] * 3, ["UpBlock2D"] * 3
    model = diffusers.UNet2DModel(  # the config of google/ddpm-cifar10-32, smaller
        16,
        down_block_types=(down[0], "AttnDownBlock2D", *down[1:]),
        up_block_types=(*up[:2], "AttnUpBlock2D", up[2]),
        block_out_channels=(16, 32, 32, 32),
        norm_num_groups=4,
        norm_eps=1e-6,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        num_class_embeds=5,
    ).eval()
    images, labels = jax.random.normal(KEY, (2, 16, 16, 3)), jnp.array([4, 1])
    tensor = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2)))
    with torch.no_grad():
        for values in model.parameters():
            values += 0.05 * torch.randn_like(values)
        expected = model(tensor, torch.tensor([3, 170]), torch.tensor([4, 1])).sample.permute(0, 2, 3, 1).numpy()
    net = UNet(Architecture(16, attention=(8,), groups=4), classes=4)
    params = our_params(model, 4)
    shapes = jax.eval_shape(net.init, KEY, images, STEPS)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    found = jax.jit(net.apply)({"params": params}, images, STEPS, labels)
    np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max())  # float32, sums in another order
    assert expected.std() > 0.1


@pytest.mark.parity
@pytest.mark.parametrize("reads_context", [False, True])
def test_attention_is_that_of_torch(reads_context):
    torch = pytest.importorskip("torch")
    layer, x = Attention(heads=2, groups=2), jax.random.normal(KEY, (2, 3, 5, 8))
    context, unread = jax.random.normal(jax.random.key(2), (2, 4, 6)), jnp.arange(4) >= jnp.array([[3], [4]])
    given = (context, unread) if reads_context else ()
    variables = randomise(layer.init(KEY, x, *given))
    weights = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), variables["params"])
    tensor = torch.from_numpy(np.array(x))
    places = torch.nn.functional.group_norm(
        tensor.permute(0, 3, 1, 2), 2, weights["norm"]["scale"], weights["norm"]["bias"], 1e-6
    )
    places = places.permute(0, 2, 3, 1).reshape(2, 15, 8)
    source = torch.from_numpy(np.array(context)) if reads_context else places
    heads = {}
    for name, inputs in (("query", places), ("key", source), ("value", source)):
        rows = inputs @ weights[name]["kernel"] + weights[name]["bias"]
        heads[name] = rows.unflatten(2, (2, 4)).transpose(1, 2)
    mask = torch.from_numpy(~np.array(unread))[:, None, None] if reads_context else None
    attended = torch.nn.functional.scaled_dot_product_attention(*heads.values(), attn_mask=mask)
    rows = attended.transpose(1, 2).reshape(2, 15, 8) @ weights["out"]["kernel"] + weights["out"]["bias"]
    expected = tensor + rows.reshape(tensor.shape)
    np.testing.assert_allclose(layer.apply(variables, x, *given), expected, atol=1e-5)


# --- what the net is given ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional():
    """A net with classes that reads a context of three tokens, as (variables, images, ...) -> output; the context."""
    net, context = UNet(SMALL, classes=3, reads_context=True), jax.random.normal(KEY, (2, 3, 5))
    variables = randomise(jax.eval_shape(net.init, KEY, IMAGES, STEPS, None, context))
    return net, variables, functools.partial(jax.jit(net.apply), variables, IMAGES, STEPS), context


def test_no_label_is_the_label_after_the_last_class(conditional):
    *_, apply, context = conditional
    np.testing.assert_array_equal(apply(None, context), apply(jnp.array([3, 3]), context))
    changed = jnp.abs(apply(jnp.array([3, 1]), context) - apply(None, context))
    assert changed[0].max() == 0 and changed[1].max() > 1e-3


def test_the_context_is_read_and_its_padding_is_not(conditional):
    *_, apply, context = conditional
    unread = jnp.array([[False, False, True]] * 2)
    plain, other = apply(None, context), context.at[:, 2].add(7.0)
    assert jnp.abs(apply(None, other) - plain).max() > 1e-3
    first, second = (apply(None, given, unread) for given in (context, other))
    np.testing.assert_array_equal(first, second)
    assert jnp.abs(first - plain).max() > 1e-3


def test_units_are_dropped_in_training_alone():
    layer, condition, x = ResidualBlock(8, dropout=0.5), jnp.ones((2, 4)), jax.random.normal(KEY, (2, 4, 4, 8))
    variables = randomise(jax.eval_shape(layer.init, KEY, x, condition))
    plain, unused = (layer.apply(variables, x, condition, rngs=rngs) for rngs in ({}, {"dropout": KEY}))
    np.testing.assert_array_equal(plain, unused)
    dropped = layer.apply(variables, x, condition, train=True, rngs={"dropout": KEY})
    assert jnp.abs(dropped - plain).max() > 1e-3


def test_a_net_begins_with_the_prediction_0_and_reads_a_context_if_it_was_made_to(conditional):
    net, variables, apply, context = conditional
    begun = jax.jit(net.init)(KEY, IMAGES, STEPS, None, context)
    for name in ("last", "up0_0", "middle0_attention", "middle0_context"):  # each adds 0, and so all have a gradient
        layers = begun["params"][name]
        last = layers if name == "last" else layers["out" if "conv2" not in layers else "conv2"]
        assert not np.any(last["kernel"])
    assert apply.func(begun, *apply.args[1:], None, context).std() == 0
    with pytest.raises(ValueError, match="reads_context=True"):
        net.apply(variables, IMAGES, STEPS)


def test_groups_are_fewer_for_narrow_features():
    assert [count_groups(channels) for channels in (128, 256, 384, 512)] == [32] * 4
    assert [count_groups(channels) for channels in (3, 4, 8, 32, 48, 96)] == [1, 1, 2, 8, 12, 24]
    assert count_groups(64, 8) == 8


@pytest.mark.parametrize(
    "sizes, image, message",
    [
        ({"width": 7}, (8, 8), "at least 4, even"),
        ({"multipliers": ()}, (8, 8), "there is one for each size"),
        ({}, (28, 28), "halve the image 3 times, but 28 x 28 is not a multiple of 8"),
        ({"attention": (15,)}, (32, 32), r"no features have the height 15; expected some of \[32, 16, 8, 4\]"),
        ({"heads": 3}, (32, 32), "does not divide the 128 channels"),
    ],
)
def test_sizes_that_cannot_be(sizes, image, message):
    with pytest.raises(UserError, match=message):
        Architecture(**sizes).check(image)
