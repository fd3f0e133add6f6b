"""Residual networks beside torch modules written from torchvision's description of v1.5, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.imagenet import DEVIATION, MEAN
from cvjax.nets.resnet import DEPTHS, ResNet, stage_strides


def shapes(net, size=(64, 64)):
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    return variables, jax.eval_shape(net.apply, variables, images)


# torchvision's published numbers of parameters, less those of the classifier (1000 classes of 512 or 2048 features).
@pytest.mark.parametrize(
    ("depth", "count"),
    [
        (18, 11_689_512 - 513_000),
        (34, 21_797_672 - 513_000),
        (50, 25_557_032 - 2_049_000),
        (101, 44_549_160 - 2_049_000),
        (152, 60_192_808 - 2_049_000),
    ],
)
def test_as_many_parameters_as_torchvision(depth, count):
    variables, stages = shapes(ResNet(depth))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
    factor = DEPTHS[depth][0].expansion
    assert {name: stage.shape for name, stage in stages.items()} == {
        f"c{level}": (1, 2 ** (6 - level), 2 ** (6 - level), factor * 2 ** (4 + level)) for level in (2, 3, 4, 5)
    }


def test_small_stem_and_strides():
    net = ResNet(18, width=8, stem="small", strides=(1, 2, 2))
    _, stages = shapes(net, size=(33, 20))
    assert {name: stage.shape for name, stage in stages.items()} == {
        "c2": (1, 33, 20, 8),
        "c3": (1, 17, 10, 16),
        "c4": (1, 9, 5, 32),
    }
    assert stage_strides("small", (1, 2, 2)) == {"c2": 1, "c3": 2, "c4": 4}
    assert stage_strides("imagenet", (1, 2, 2, 2)) == {"c2": 4, "c3": 8, "c4": 16, "c5": 32}


def test_layers_are_captured_by_name():
    names = ("stem", "pool", "stage_4_block_23", "c4", "c2")
    _, captured = shapes(ResNet(101, width=2, capture=names))
    assert {name: value.shape for name, value in captured.items()} == {
        "stem": (1, 32, 32, 2),
        "pool": (1, 16, 16, 2),
        "c2": (1, 16, 16, 8),
        "stage_4_block_23": (1, 4, 4, 32),
        "c4": (1, 4, 4, 32),
    }
    with pytest.raises(UserError, match="no layer 'stage_4_block_24' to capture"):
        shapes(ResNet(101, capture=("stage_4_block_24",)))
    with pytest.raises(UserError, match="no layer 'pool'"):
        shapes(ResNet(18, stem="small", capture=("pool",)))


def test_atrous_stages_compute_the_same_features_at_more_places():
    plain, atrous = (ResNet(18, 4, "small", (2, 2, 2), output_stride) for output_stride in (None, 2))
    images, random = np.random.default_rng(0).uniform(size=(1, 65, 47, 3)).astype(np.float32), np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 0.5, leaf.shape), shapes(plain)[0])
    expected, found = (jax.jit(net.apply)(variables, images) for net in (plain, atrous))
    for name, step in {"c2": 1, "c3": 2, "c4": 4}.items():
        assert found[name].shape[1:3] == (33, 24)
        # the same sums of float32, relative to the size of the stage's features
        tolerance = 1e-5 * np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name][:, ::step, ::step], expected[name], atol=tolerance, rtol=0)


def test_output_strides():
    assert stage_strides("imagenet", (1, 2, 2, 2), 16) == {"c2": 4, "c3": 8, "c4": 16, "c5": 16}
    assert stage_strides("small", (1, 2, 2), 1) == {"c2": 1, "c3": 1, "c4": 1}
    with pytest.raises(UserError, match="output_stride=12: the strides of its layers are 4, 8, 16, 32 pixels"):
        shapes(ResNet(output_stride=12))
    plain, atrous = (shapes(ResNet(18, 4, "small", (2, 2), stride))[0] for stride in (None, 1))
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, atrous)


def test_normalisations_have_the_momentum_and_epsilon_given():
    net = ResNet(18, 2, "small", (1,), momentum=0.75, epsilon=3.0, capture=("stem",))
    images = jnp.asarray(MEAN) * jnp.ones((1, 4, 4, 3))  # nothing, once standardised
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes(net)[0])
    variables["params"]["stem_norm"]["bias"] = jnp.zeros(2)
    variables["batch_stats"]["stem_norm"]["mean"] = jnp.full(2, -4.0)
    stages = net.apply(variables, images)
    np.testing.assert_allclose(stages["stem"], 4 / (1 + 3) ** 0.5)
    _, new = net.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(new["batch_stats"]["stem_norm"]["mean"], 0.75 * -4)


def test_refuses_what_no_resnet_has():
    with pytest.raises(UserError, match="no depth=19"):
        shapes(ResNet(19))
    with pytest.raises(UserError, match="Did you mean 'small'"):
        stage_strides("smal", (1, 2))
    with pytest.raises(UserError, match="one to four stages"):
        shapes(ResNet(strides=(2,) * 5))


def torch_resnet(torch, depth, width, stem, strides, dilate=(False,) * 4):
    """The convolutional part of a ResNet, names and `replace_stride_with_dilation` as in torchvision."""
    nn = torch.nn

    def conv(inputs, outputs, kernel, stride=1, dilation=1):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 * dilation, dilation, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, features, stride, dilation):
            super().__init__()
            if depth < 50:
                outputs, convs = features, [(inputs, features, 3, stride), (features, features, 3)]
            else:
                outputs = 4 * features
                convs = [(inputs, features, 1), (features, features, 3, stride, dilation), (features, outputs, 1)]
            self.count = len(convs)
            for index, arguments in enumerate(convs, start=1):
                setattr(self, f"conv{index}", conv(*arguments))
                setattr(self, f"bn{index}", nn.BatchNorm2d(arguments[1]))
            if stride != 1 or inputs != outputs:
                self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = x
            for index in range(1, self.count + 1):
                y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
                y = torch.relu(y) if index < self.count else y
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = conv(3, width, 7, 2) if stem == "imagenet" else conv(3, width, 3)
            self.bn1 = nn.BatchNorm2d(width)
            inputs, dilation = width, 1
            for stage, stride in enumerate(strides):
                blocks, previous = [], dilation
                if dilate[stage]:
                    dilation, stride = dilation * stride, 1
                for index in range(DEPTHS[depth][1][stage]):
                    arguments = (stride, previous) if index == 0 else (1, dilation)
                    blocks.append(Block(inputs, width * 2**stage, *arguments))
                    inputs = width * 2**stage * (1 if depth < 50 else 4)
                setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            x = nn.functional.max_pool2d(x, 3, 2, 1) if stem == "imagenet" else x
            outputs = []
            for stage in range(len(strides)):
                x = getattr(self, f"layer{stage + 1}")(x)
                outputs.append(x)
            return outputs

    return Net()


def convert(weights):
    """A state dict of torchvision's names as our variables."""
    variables = {"params": {}, "batch_stats": {}}
    kinds = {"running_mean": ("batch_stats", "mean"), "running_var": ("batch_stats", "var")}
    for name, value in weights.items():
        *path, kind = name.split(".")
        if kind == "num_batches_tracked":
            continue
        value = value.detach().numpy()
        if value.ndim == 4:
            collection, leaf, value = "params", "kernel", value.transpose(2, 3, 1, 0)
        else:
            collection, leaf = kinds.get(kind, ("params", "scale" if kind == "weight" else "bias"))
        if len(path) == 1:
            place = [{"conv1": "stem", "bn1": "stem_norm"}[path[0]]]
        else:
            layer = {"downsample.0": "shortcut", "downsample.1": "shortcut_norm"}.get(".".join(path[2:]))
            layer = layer or path[2].replace("conv", "conv_").replace("bn", "norm_")
            place = [f"stage_{int(path[0][-1]) + 1}_block_{int(path[1]) + 1}", layer]
        node = variables[collection]
        for step in place:
            node = node.setdefault(step, {})
        node[leaf] = jnp.asarray(value)
    return variables


def randomise(torch, net):
    """Moves every norm's scale, bias and statistics away from 0 and 1, where mistakes in them would not show."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


@pytest.mark.parity
@pytest.mark.parametrize(
    ("depth", "stem", "strides", "output_stride"),
    [(18, "small", (2, 1, 2), None), (34, "imagenet", (1, 2, 2, 2), None), (50, "imagenet", (1, 2, 2, 2), 8)],
)
def test_stages_are_torchs(depth, stem, strides, output_stride):
    torch = pytest.importorskip("torch")
    torch.manual_seed(depth)
    dilate = (False, False, output_stride == 8, output_stride == 8)
    theirs = randomise(torch, torch_resnet(torch, depth, 4, stem, strides, dilate)).eval()
    net = ResNet(depth, 4, stem, strides, output_stride)
    images = np.random.default_rng(0).uniform(size=(2, 65, 47, 3)).astype(np.float32)
    variables = convert(theirs.state_dict())
    ours = jax.jit(net.apply)(variables, images)
    inputs = torch.tensor((np.asarray(images) - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2)
    for name, expected in zip(ours, theirs(inputs), strict=True):
        expected = expected.detach().permute(0, 2, 3, 1).numpy()
        # float32 through up to 50 layers, relative to the size of the stage's features
        np.testing.assert_allclose(ours[name], expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parity
def test_gradients_and_statistics_of_a_training_step_are_torchs():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    theirs = randomise(torch, torch_resnet(torch, 18, 4, "small", (2, 2))).train()
    net = ResNet(18, 4, "small", (2, 2))
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    variables = convert(theirs.state_dict())

    def loss(params):
        collections = {"params": params, "batch_stats": variables["batch_stats"]}
        stages, new = net.apply(collections, images, train=True, mutable=["batch_stats"])
        return (stages["c3"] ** 2).mean(), new["batch_stats"]

    gradients, stats = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    inputs = torch.tensor((np.asarray(images) - MEAN) / DEVIATION, dtype=torch.float32).permute(0, 3, 1, 2)
    inputs = inputs.contiguous()  # channels last, torch 2.13's gradients on a CPU are wrong, or it aborts
    (theirs(inputs)[-1] ** 2).mean().backward()
    expected = convert({name: parameter.grad for name, parameter in theirs.named_parameters()})["params"]
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=2e-5), gradients, expected)
    expected = convert(theirs.state_dict())["batch_stats"]["stem_norm"]
    np.testing.assert_allclose(stats["stem_norm"]["mean"], expected["mean"], atol=1e-6)
    # torch's running variance is unbiased, of 4 * 16 * 16 numbers; a tenth of it is new
    np.testing.assert_allclose(stats["stem_norm"]["var"], expected["var"], rtol=2e-4)
