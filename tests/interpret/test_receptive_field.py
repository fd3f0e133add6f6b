"""Receptive fields beside brute force: a row of pixels is spoilt, and the units that change are those that see it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.interpret.receptive_field import receptive_fields
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.capture import activations_of
from cvjax.nets.resnet import ResNet
from cvjax.nets.vgg import VGG
from cvjax.ops.convolution import conv_transpose

KEY = jax.random.key(0)


class Plain(nn.Module):
    """Flax's own layers: an even kernel, padding that is not symmetric, dilation, average pooling, two paths."""

    @nn.compact
    def __call__(self, images):
        x = nn.relu(nn.Conv(2, (4, 3), strides=(2, 2), padding="SAME")(images))
        y = nn.Conv(2, (3, 3), kernel_dilation=(2, 1), padding="VALID")(x)
        pooled = nn.avg_pool(x, (3, 3), (2, 1), "SAME")
        joined = jnp.concatenate(
            [y[:, 1:-1], jax.lax.pad(y, 0.0, [(0, 0, 0), (1, -3, 0), (0, 0, 0), (0, 0, 0)])], axis=1
        )
        moved = joined.transpose(0, 2, 1, 3).transpose(0, 2, 1, 3).reshape(*joined.shape[:3], 1, 2).squeeze(3)
        up = conv_transpose(x, jnp.ones((3, 3, 2, 2)), stride=2, padding=1)
        dense = nn.Dense(3)(x.reshape(len(x), -1))
        return dense, {"y": y, "pooled": pooled, "moved": moved, "up": up, "mean": x.mean(axis=(1, 2))}


def by_brute_force(fn, shape):
    """{layer: (rows, columns)} of the units that are not numbers once a row, or a column, of pixels is not."""
    found = {}
    for axis in (0, 1):

        def spoil(place, axis=axis):
            image = jnp.moveaxis(jnp.ones((1, *shape)), 1 + axis, 0).at[place].set(jnp.nan)
            return jax.tree.map(jnp.isnan, fn(jnp.moveaxis(image, 0, 1 + axis)))

        spoilt = jax.jit(lambda: jax.lax.map(spoil, jnp.arange(shape[axis])))()  # noqa: B023
        for layer, units in spoilt.items():
            units = np.asarray(units)[:, 0]  # [pixels, rows, columns, channels]
            units = units if units.ndim == 4 else units[:, None, None]
            seen = units.any(axis=(2 - axis, 3))
            places = [np.flatnonzero(unit) for unit in seen.T]
            spans = [[place[0], place[-1] + 1] if len(place) else [0, 0] for place in places]
            found.setdefault(layer, []).append(spans)
    return found


CLASSIFIER = VGG(11, batch_norm=True, width=2, head="mean", classes=3)
RESNET = ResNet(18, 2, strides=(1, 2), capture=("stem", "pool", "c3"))
NETS = {
    "vgg": (CLASSIFIER, ("conv1_1", "pool2", "relu3_2", "conv4_2", "pool5", "output"), (37, 50, 3)),
    "alexnet": (AlexNet(), ("conv1", "pool1", "relu2", "pool5"), (73, 68, 3)),
    "resnet": (RESNET, ("stem", "pool", "c3"), (33, 30, 3)),
    "plain": (Plain(), ("y", "pooled", "moved", "up", "mean", "output"), (19, 22, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_units_see_what_changes_them(name):
    net, layers, shape = NETS[name]
    held = net.init(KEY, jnp.ones((1, *shape)))
    read = activations_of(net, layers)
    found = receptive_fields(lambda images: read(held, images), shape)
    expected = by_brute_force(lambda images: read(held, images), shape)
    assert set(found) == set(layers)
    for layer in layers:
        for ours, brute in zip(found[layer], expected[layer], strict=True):
            np.testing.assert_array_equal(ours, brute, err_msg=layer)


def attention(images):
    """Rows that look at all rows, and products with a constant on either side."""
    rows = images.mean(axis=2)
    scores = jnp.einsum("bqc,bkc->bqk", rows, rows)
    return {
        "scores": scores[..., None],
        "columns of one product": jnp.einsum("bqwc,bqvc->bqwv", images, images),
        "mixed": jnp.einsum("bqk,bkwc->bqwc", jax.nn.softmax(scores), images),
        "left": jnp.einsum("ij,bjwc->biwc", jnp.eye(5), images),
        "right": jnp.einsum("bjwc,wv->bjvc", images, jnp.ones((6, 6))),
        "kernel": jax.lax.conv_general_dilated(  # an image that filters itself
            images, images.transpose(1, 2, 3, 0), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        "turned": images.transpose(0, 2, 1, 3),
        "summed up": jnp.cumsum(images, axis=1),
        "independent": jnp.ones((len(images), 4, 3, 2)),
        "independent logits": jnp.zeros((len(images), 10)),
    }


def test_units_see_what_changes_them_through_any_operand():
    found, expected = receptive_fields(attention, (5, 6, 3)), by_brute_force(attention, (5, 6, 3))
    assert set(found) == set(expected)
    for layer in found:
        for ours, brute in zip(found[layer], expected[layer], strict=True):
            if layer == "summed up":  # is not followed: sees all
                assert (ours[:, 0] <= np.array(brute)[:, 0]).all() and (ours[:, 1] >= np.array(brute)[:, 1]).all()
            else:
                np.testing.assert_array_equal(ours, brute, err_msg=layer)
    np.testing.assert_array_equal(found["scores"][0], [[0, 5]] * 5)
    np.testing.assert_array_equal(found["left"][0], [[0, 5]] * 5)
    np.testing.assert_array_equal(found["independent"][1], np.zeros((3, 2)))


def test_a_choice_sees_what_its_branches_see_and_all_where_the_image_chooses():
    blur = lambda x: nn.avg_pool(x, (3, 1), padding="SAME")  # noqa: E731

    def fn(images):
        return {
            "either": jax.lax.cond(jnp.sin(1.0) > 0, lambda x: x, blur, images),
            "chosen": jax.lax.cond(images[0, 0, 0, 0] > 0, lambda x: x, blur, images),
        }

    found = receptive_fields(fn, (5, 4, 1))
    np.testing.assert_array_equal(found["either"][0], [[0, 2], [0, 3], [1, 4], [2, 5], [3, 5]])
    np.testing.assert_array_equal(found["either"][1], [[0, 1], [1, 2], [2, 3], [3, 4]])
    np.testing.assert_array_equal(found["chosen"][0], [[0, 5]] * 5)


def test_vgg_sees_what_its_paper_says():
    """Three 3x3 convolutions see 7 pixels (section 2.3); the last pooling of VGG-16 sees 212."""
    read = activations_of(VGG(16, width=1), ("conv1_1", "conv1_2", "pool5"))
    held = jax.eval_shape(VGG(16, width=1).init, KEY, jnp.ones((1, 512, 512, 3)))
    fn = lambda images: read(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), held), images)  # noqa: E731
    fields = receptive_fields(fn, (512, 512, 3))
    assert [int(np.ptp(fields[layer][0], axis=1).max()) for layer in ("conv1_1", "conv1_2", "pool5")] == [3, 5, 212]
    np.testing.assert_array_equal(fields["conv1_1"][1][[0, 1, -1]], [[0, 2], [0, 3], [510, 512]])
