"""Inception v3 beside a torch module written from the published architecture, through a file of its weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.nets.inception import CLASSES, InceptionV3, resize_as_tensorflow_1
from cvjax.weights import inception


def torch_inception(torch, variant):
    """Inception v3 with torchvision's names; for "fid" its pools and its head are those of the graph of 2015."""
    nn, functional = torch.nn, torch.nn.functional
    fid = variant == "fid"

    class Conv(nn.Module):
        def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
            self.bn = nn.BatchNorm2d(outputs, eps=0.001)

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)))

    class Block(nn.Module):
        def __init__(self, pool="mean", **layers):
            super().__init__()
            self.pool = pool
            for name, arguments in layers.items():
                setattr(self, name, Conv(*arguments))

        def pooled(self, x):
            if self.pool == "maximum":
                return functional.max_pool2d(x, 3, 1, 1)
            return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=not fid)

        def run(self, x, *names):
            for name in names:
                x = getattr(self, name)(x)
            return x

    class A(Block):
        def __init__(self, inputs, pooled):
            super().__init__(
                branch1x1=(inputs, 64, 1),
                branch5x5_1=(inputs, 48, 1),
                branch5x5_2=(48, 64, 5, 1, 2),
                branch3x3dbl_1=(inputs, 64, 1),
                branch3x3dbl_2=(64, 96, 3, 1, 1),
                branch3x3dbl_3=(96, 96, 3, 1, 1),
                branch_pool=(inputs, pooled, 1),
            )

        def forward(self, x):
            double = self.run(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
            five = self.run(x, "branch5x5_1", "branch5x5_2")
            return torch.cat([self.branch1x1(x), five, double, self.branch_pool(self.pooled(x))], 1)

    class B(Block):
        def __init__(self):
            super().__init__(
                branch3x3=(288, 384, 3, 2),
                branch3x3dbl_1=(288, 64, 1),
                branch3x3dbl_2=(64, 96, 3, 1, 1),
                branch3x3dbl_3=(96, 96, 3, 2),
            )

        def forward(self, x):
            double = self.run(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
            return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)

    class C(Block):
        def __init__(self, c):
            wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
            super().__init__(
                branch1x1=(768, 192, 1),
                branch7x7_1=(768, c, 1),
                branch7x7_2=(c, c, *wide),
                branch7x7_3=(c, 192, *tall),
                branch7x7dbl_1=(768, c, 1),
                branch7x7dbl_2=(c, c, *tall),
                branch7x7dbl_3=(c, c, *wide),
                branch7x7dbl_4=(c, c, *tall),
                branch7x7dbl_5=(c, 192, *wide),
                branch_pool=(768, 192, 1),
            )

        def forward(self, x):
            seven = self.run(x, *(f"branch7x7_{index}" for index in (1, 2, 3)))
            double = self.run(x, *(f"branch7x7dbl_{index}" for index in (1, 2, 3, 4, 5)))
            return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(self.pooled(x))], 1)

    class D(Block):
        def __init__(self):
            super().__init__(
                branch3x3_1=(768, 192, 1),
                branch3x3_2=(192, 320, 3, 2),
                branch7x7x3_1=(768, 192, 1),
                branch7x7x3_2=(192, 192, (1, 7), 1, (0, 3)),
                branch7x7x3_3=(192, 192, (7, 1), 1, (3, 0)),
                branch7x7x3_4=(192, 192, 3, 2),
            )

        def forward(self, x):
            three = self.run(x, "branch3x3_1", "branch3x3_2")
            seven = self.run(x, *(f"branch7x7x3_{index}" for index in (1, 2, 3, 4)))
            return torch.cat([three, seven, functional.max_pool2d(x, 3, 2)], 1)

    class E(Block):
        def __init__(self, inputs, pool):
            wide, tall = (384, 384, (1, 3), 1, (0, 1)), (384, 384, (3, 1), 1, (1, 0))
            super().__init__(
                pool,
                branch1x1=(inputs, 320, 1),
                branch3x3_1=(inputs, 384, 1),
                branch3x3_2a=wide,
                branch3x3_2b=tall,
                branch3x3dbl_1=(inputs, 448, 1),
                branch3x3dbl_2=(448, 384, 3, 1, 1),
                branch3x3dbl_3a=wide,
                branch3x3dbl_3b=tall,
                branch_pool=(inputs, 192, 1),
            )

        def forward(self, x):
            three, double = self.branch3x3_1(x), self.run(x, "branch3x3dbl_1", "branch3x3dbl_2")
            forks = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
            forks += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
            return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pooled(x))], 1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            layers = {
                "Conv2d_1a_3x3": Conv(3, 32, 3, 2),
                "Conv2d_2a_3x3": Conv(32, 32, 3),
                "Conv2d_2b_3x3": Conv(32, 64, 3, 1, 1),
                "maxpool1": nn.MaxPool2d(3, 2),
                "Conv2d_3b_1x1": Conv(64, 80, 1),
                "Conv2d_4a_3x3": Conv(80, 192, 3),
                "maxpool2": nn.MaxPool2d(3, 2),
                **{"Mixed_5b": A(192, 32), "Mixed_5c": A(256, 64), "Mixed_5d": A(288, 64), "Mixed_6a": B()},
                **{"Mixed_6b": C(128), "Mixed_6c": C(160), "Mixed_6d": C(160), "Mixed_6e": C(192)},
                **{"Mixed_7a": D(), "Mixed_7b": E(1280, "mean"), "Mixed_7c": E(2048, "maximum" if fid else "mean")},
            }
            self.order = list(layers)
            for name, layer in layers.items():
                setattr(self, name, layer)
            self.fc = nn.Linear(2048, CLASSES[variant])

        def forward(self, x):
            activations = {}
            for name in self.order:
                activations[name] = x = getattr(self, name)(x)
            activations["features"] = features = x.mean((2, 3))
            return self.fc(features), activations

    return Net()


def randomise(torch, net):
    """Kernels that keep an image's contrast through 94 layers, and statistics away from 0 and 1."""
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.7, 1.3)
    return net.eval()


def resized(images, size=299):
    """Bilinear interpolation at i * input / output, pixel by pixel."""
    places = np.arange(size, dtype=np.float32) * np.float32(images.shape[1] / size)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, images.shape[1] - 1), places - low
    rows = images[:, low] * (1 - share)[:, None, None] + images[:, high] * share[:, None, None]
    return rows[:, :, low] * (1 - share)[:, None] + rows[:, :, high] * share[:, None]


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["fid", "torchvision"])
def test_network_is_torchs_through_a_file_of_its_weights(tmp_path, variant):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = randomise(torch, torch_inception(torch, variant))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth", _use_new_zipfile_serialization=variant == "torchvision")
    variables = inception.load(tmp_path / "weights.pth", variant)
    images = np.random.default_rng(0).uniform(size=(2, 20, 20, 3)).astype(np.float32)
    images[1] = images[1].mean(axis=-1, keepdims=True) / 2
    logits, activations = jax.jit(InceptionV3(variant).apply)(variables, images)
    if variant == "fid":
        inputs = torch.tensor((255 * resized(images) - 128) / 128)
    else:
        inputs = torch.tensor(images).permute(0, 3, 1, 2)
        inputs = 2 * torch.nn.functional.interpolate(inputs, (299, 299), mode="bilinear").permute(0, 2, 3, 1) - 1
    with torch.no_grad():
        expected, expected_activations = theirs(inputs.float().permute(0, 3, 1, 2))
    expected_activations = {
        name: value.permute(0, 2, 3, 1) if value.ndim == 4 else value
        for name, value in expected_activations.items()
        if name in activations
    }
    assert list(expected_activations) == list(activations) and logits.shape == (2, CLASSES[variant])
    for name, value in {"logits": expected, **expected_activations}.items():
        ours = logits if name == "logits" else activations[name]
        # float32 through 94 layers, relative to the size of the layer's features
        np.testing.assert_allclose(ours, value, atol=1e-4 * np.abs(value.numpy()).max(), rtol=0, err_msg=name)
    features = np.asarray(activations["features"])
    assert np.abs(features[0] - features[1]).max() > 0.1 * features.max()  # the images have not been lost on the way


# torchvision's page: 27,161,264 parameters, of which the auxiliary logits have 3,326,696. One channel stands for three.
@pytest.mark.parametrize(("variant", "channels", "more"), [("torchvision", 3, 0), ("fid", 1, 8 * 2049)])
def test_as_many_parameters_as_published(variant, channels, more):
    image = jax.ShapeDtypeStruct((1, 20, 30, channels), jnp.float32)
    params = jax.eval_shape(InceptionV3(variant).init, jax.random.key(0), image)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 27_161_264 - 3_326_696 + more


@pytest.mark.parametrize("size", [5, 20, 299, 400])
def test_images_are_resized_as_tensorflow_1_did(size):
    images = np.random.default_rng(1).uniform(size=(2, size, size, 3)).astype(np.float32)
    ours = resize_as_tensorflow_1(jnp.asarray(images), 299)
    np.testing.assert_allclose(ours, resized(images), atol=1e-6)  # float32
    if size == 299:
        np.testing.assert_array_equal(ours, images)


def test_resizing_leaves_corners_and_centres_unaligned():
    row = jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1)
    # Output pixels at 0, 1/2, 1, 3/2 of the input, the last of which has nothing to its right.
    np.testing.assert_allclose(resize_as_tensorflow_1(row, 4)[0, 0, :, 0], [0, 0.5, 1, 1], atol=1e-7)
