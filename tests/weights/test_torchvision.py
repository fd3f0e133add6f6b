"""Checkpoints of torchvision's names: the names and shapes of whole published networks, and what is said of misfits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.resnet import ResNet
from cvjax.nets.resnet_segmenter import ResNetSegmenter
from cvjax.nets.vgg import VGG
from cvjax.recognition.image_classifier import ResNetClassifier
from cvjax.weights import networks, torchvision
from cvjax.weights.layouts import torch_shapes


def arrays(net):
    """Shapes of a network's arrays by their paths, and its variables' shapes."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    like = jax.eval_shape(net.init, jax.random.key(0), image)
    paths = jax.tree_util.tree_leaves_with_path(like)
    return {tuple(key.key for key in path): leaf.shape for path, leaf in paths}, like


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "net", "layout"),
    [
        ("vgg11_bn", VGG(11, batch_norm=True, head="classifier"), torchvision.VGG),
        ("vgg13", VGG(13, head="convolutional", head_padding=3), torchvision.VGG),
        ("vgg16_bn", VGG(16, batch_norm=True, head="classifier"), torchvision.VGG),
        ("vgg19", VGG(19, head="classifier"), torchvision.VGG),
        ("alexnet", AlexNet("classifier"), torchvision.VGG),
        ("resnet18", ResNetClassifier(1000, 18), torchvision.RESNET),
        ("resnet152", ResNetClassifier(1000, 152), torchvision.RESNET),
        ("segmentation.fcn_resnet50", ResNetSegmenter("fcn"), torchvision.SEGMENTER),
        ("segmentation.deeplabv3_resnet50", ResNetSegmenter("deeplabv3"), torchvision.SEGMENTER),
    ],
)
def test_names_and_shapes_are_torchvisions(request, name, net, layout):
    import torch

    models = request.getfixturevalue("torchvision").models
    options = {"init_weights": False} if name.startswith("vgg") else {}
    if name.startswith("segmentation."):
        models, name = models.segmentation, name.removeprefix("segmentation.")
        options = {"weights_backbone": None, "aux_loss": True}
    with torch.device("meta"):
        state = getattr(models, name)(weights=None, **options).state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items() if "num_batches" not in name}
    wanted, _ = arrays(net)
    names = layout.name(wanted)
    assert {*names.values()} == {*expected} and len(names) == len(expected)
    assert all(expected[names[path]] in torch_shapes(path, shape) for path, shape in wanted.items())
    if layout is torchvision.VGG and getattr(net, "head_padding", 0) == 0:
        tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in expected.items()}
        assert torchvision.recognise(tensors) == net


@pytest.fixture(scope="module")
def like():
    return arrays(ResNet(18, width=2))[1]


@pytest.fixture
def tensors(like):
    """A checkpoint of torchvision's names for it, with a classifier and a counter, one number a tensor."""
    state = {"fc.weight": (10, 16), "bn1.num_batches_tracked": (), "conv1.weight": (2, 3, 7, 7)}
    state |= {f"bn1.{kind}": (2,) for kind in ("weight", "bias", "running_mean", "running_var")}
    inputs = 2
    for stage in (1, 2, 3, 4):
        features = 2**stage
        for block in (0, 1):
            place = f"layer{stage}.{block}"
            layers = {"conv1": (features, inputs, 3, 3), "conv2": (features, features, 3, 3)}
            layers |= {"bn1": (features,), "bn2": (features,)}
            if inputs != features:
                layers |= {"downsample.0": (features, inputs, 1, 1), "downsample.1": (features,)}
            for layer, shape in layers.items():
                kinds = ["weight"] if len(shape) == 4 else ["weight", "bias", "running_mean", "running_var"]
                state |= {f"{place}.{layer}.{kind}": shape for kind in kinds}
            inputs = features
    return {name: np.full(shape, number, np.float64) for number, (name, shape) in enumerate(state.items())}


def test_every_tensor_goes_to_its_place_and_parts_that_the_network_lacks_are_left(like, tensors):
    found = networks.convert(tensors, like)
    number = {name: value.flat[0] for name, value in tensors.items()}
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, like)
    block, statistics = found["params"]["stage_3_block_1"], found["batch_stats"]["stage_3_block_1"]
    assert (block["shortcut"]["kernel"] == number["layer2.0.downsample.0.weight"]).all()
    assert (block["norm_2"]["scale"] == number["layer2.0.bn2.weight"]).all()
    assert (statistics["shortcut_norm"]["var"] == number["layer2.0.downsample.1.running_var"]).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    wrapped = networks.convert({f"module.{name}": value for name, value in tensors.items()}, like)
    backbone = networks.convert(
        {f"backbone.{name}": value for name, value in tensors.items() if name[:3] != "fc."}, like
    )
    for other in (wrapped, backbone):
        jax.tree.map(np.testing.assert_array_equal, other, found)


def test_all_that_does_not_fit_is_named_at_once(like, tensors):
    del tensors["bn1.bias"], tensors["layer4.1.conv2.weight"]
    tensors |= {"layer5.0.conv1.weight": np.zeros(1), "conv1.weight": np.zeros((2, 3, 3, 7))}
    tensors["layer1.0.bn1.weight"] = np.zeros(2, np.int64)
    with pytest.raises(UserError) as caught:
        networks.convert(tensors, like)
    message = str(caught.value)
    for words in (
        "2 missing: bn1.bias, layer4.1.conv2.weight",
        "1 left over: layer5.0.conv1.weight",
        "2 of another shape or type: conv1.weight is [2, 3, 3, 7] of float64, not [2, 3, 7, 7]",
        "layer1.0.bn1.weight is [2] of int64",
        "torchvision's ResNet: ResNet-18",
    ):
        assert words in message


def test_the_network_that_a_file_holds_is_named():
    for net, layout, name in (
        (ResNetClassifier(10, 50, width=2), torchvision.RESNET, "ResNet-50"),
        (VGG(13, True, width=2), torchvision.VGG, "VGG-13 with batch norm"),
        (VGG(19, width=2), torchvision.VGG, "VGG-19"),
        (VGG(11, head="classifier", classes=None, width=1, hidden=3), torchvision.VGG, "VGG-11"),
        (AlexNet(), torchvision.VGG, "AlexNet"),
        (AlexNet("classifier", 7, hidden=2), torchvision.VGG, "AlexNet"),
        (ResNetSegmenter("fcn", width=2, depth=18), torchvision.SEGMENTER, "FCN over ResNet-18"),
    ):
        wanted, like = arrays(net)
        names = layout.name(wanted)
        tensors = {names[path]: np.zeros(torch_shapes(path, shape)[0]) for path, shape in wanted.items()}
        assert torchvision.describe(tensors) == name
        assert torchvision.recognise(tensors) == (net if layout is torchvision.VGG else None)
        with pytest.raises(UserError, match=f"network not in such files: params/kernel. The file .*: {name}"):
            networks.convert(tensors, {"params": {"kernel": np.zeros(2)}})
        assert jax.tree.map(jnp.shape, networks.convert(tensors, like)) == jax.tree.map(jnp.shape, like)
