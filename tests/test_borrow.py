"""Networks of other runs: found by their source, whole, described so that the source may go, and put into a state."""

import json

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import packaged
import pytest
from safetensors.numpy import save_file

from cvjax import borrow, checkpoint, sharding
from cvjax.checkpoint import Checkpoints
from cvjax.core import Recipe, advance, start, variables
from cvjax.errors import UserError
from cvjax.nets.vgg import VGG
from cvjax.translation import style_transfer
from cvjax.weights import networks as files
from cvjax.weights import torchvision

MESH = sharding.make_mesh({"data": 1}, jax.devices()[:1])


def network(value, width=3):
    """A network with statistics, of one module."""
    return {
        "params": {"conv": {"kernel": jnp.full((2, width), value)}},
        "batch_stats": {"conv": {"mean": jnp.full(width, value)}},
    }


def save(run, state, config=None):
    """Writes the folder of a run that is at this state."""
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(int(state.step), state, {"position": 0})
    checkpoints.close()
    about = {"config": config or {"system": "x", "recipe": {}}, "batch": {"image": [[4, 8, 8, 1], "float32"]}}
    (run / "config.json").write_text(json.dumps(about))


@pytest.fixture
def source(tmp_path):
    """A run whose backbone is 2 after a step from 1, its average .1 x 1 + .9 x 2 = 1.9; its judge is frozen at 7."""
    state = start({"backbone": network(1.0)}, {}, averaged=("backbone",), frozen={"judge": network(7.0)})
    new = network(2.0)
    save(tmp_path / "run", advance(state, {"backbone": new["params"]}, {}, {"backbone": new["batch_stats"]}, keep=0.9))
    return tmp_path / "run"


def lent(borrowing, frozen=None, width=3, averaged=("resnet",)):
    """The first state of a run that borrows."""
    state = start({"resnet": network(0.0, width)}, {}, averaged=averaged, frozen=frozen)
    wanted = checkpoint.abstract(state, sharding.state_sharding(MESH, state))
    recipe = Recipe({"resnet": nn.Dense(1)}, *[print] * 5)
    borrowed = borrow.read({"system": "detection.x", "borrow": borrowing}, recipe, wanted)
    return borrow.insert_networks(state, borrowed)


def values(variables):
    """The one value of which each array of a network consists."""
    return [float(np.unique(leaf).item()) for leaf in jax.tree.leaves(variables)]


def test_the_whole_network_is_borrowed_and_its_average_where_it_has_one(source):
    state = lent({"resnet": f"{source}/backbone"})
    np.testing.assert_allclose(values(variables(state, "resnet", averaged=False)), 1.9, rtol=1e-6)
    np.testing.assert_allclose(values(state.average["resnet"]), 1.9, rtol=1e-6)  # what is averaged starts there too
    latest = lent({"resnet": f"{source}/backbone@latest"}, averaged=())
    assert values(variables(latest, "resnet")) == [2.0, 2.0]


def test_a_frozen_network_is_borrowed_of_a_run_that_froze_or_trained_it(source):
    state = lent({"judge": f"{source}/judge", "resnet": ""}, frozen={"judge": network(0.0)})
    assert values(variables(state, "judge")) == [7.0, 7.0] and values(state.params["resnet"]) == [0.0]
    with pytest.raises(UserError, match=r"config\.borrow\.judge is missing: detection\.x uses this network"):
        lent({}, frozen={"judge": network(0.0)})


def test_a_module_inside_a_network_is_borrowed_by_its_path(tmp_path):
    outer = {kind: {"trunk": held} for kind, held in network(5.0).items()}
    save(tmp_path / "run", start({"classifier": outer}, {}))
    assert values(variables(lent({"resnet": f"{tmp_path}/run/classifier/trunk"}), "resnet")) == [5.0, 5.0]
    with pytest.raises(UserError, match=r"there is no module 'trnk'. Did you mean 'trunk'"):
        lent({"resnet": f"{tmp_path}/run/classifier/trnk"})


def test_a_file_of_weights_is_borrowed(tmp_path):
    files.save(tmp_path / "a.safetensors", jax.tree.map(lambda leaf: np.asarray(leaf).T.copy().T, network(4.0)))
    assert values(variables(lent({"resnet": str(tmp_path / "a.safetensors")}), "resnet")) == [4.0, 4.0]
    files.save(tmp_path / "b.safetensors", network(4.0)["params"])
    with pytest.raises(UserError, match=r"2 missing: batch_stats/conv/mean, .*; 1 left over: conv/kernel"):
        lent({"resnet": str(tmp_path / "b.safetensors")})


def test_a_network_of_a_package_is_borrowed_by_the_first_state_only(tmp_path, monkeypatch):
    module = nn.Dense(3)
    borrowed = {name: np.asarray(leaf) for name, leaf in network(6.0)["params"]["conv"].items()}
    with monkeypatch.context() as installed:
        packaged.install(tmp_path, installed, module, {"params": {"kernel": borrowed["kernel"]}})
        source = f"package:{packaged.NAME}"
        state = start({"dense": {"params": {"kernel": jnp.zeros((2, 3))}}}, {}, averaged=("dense",))
        wanted = checkpoint.abstract(state, sharding.state_sharding(MESH, state))
        recipe = Recipe({"dense": module}, *[print] * 5)
        first = borrow.insert_networks(state, borrow.read({"system": "x", "borrow": {"dense": source}}, recipe, wanted))
        assert values(variables(first, "dense")) == values(variables(first, "dense", averaged=False)) == [6.0]
        described = json.loads(json.dumps({"dense": borrow.describe_network("dense", source)}))
        (tmp_path / "toy_weights" / "files" / "dense.ckpt").unlink()
        taken = borrow.make_networks(described)["dense"]  # of the table alone
        assert taken.module == module and taken.shape == (224, 224, 3)
        with pytest.raises(UserError, match=r"Did you mean 'toy-weights/dense'"):
            borrow.describe_network("dense", f"{source}r")


def torchvisions(net):
    """Random weights of a VGG by torchvision's names, and its variables."""
    held = jax.tree.map(np.asarray, net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    paths = flax.traverse_util.flatten_dict(held)
    tensors = {}
    for path, name in torchvision.VGG.name(paths).items():
        axes = (3, 2, 0, 1) if paths[path].ndim == 4 else (0,)
        tensors[name] = np.ascontiguousarray(paths[path].transpose(axes))
    return tensors, held


def test_a_network_is_made_as_its_file_tells(tmp_path):
    module, file = VGG(19, width=2), tmp_path / "vgg19.safetensors"
    tensors, held = torchvisions(module)
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, file)
    described = json.loads(json.dumps({"network": borrow.describe_network("network", str(file))}))
    taken = borrow.make_networks(described)["network"]
    assert taken.module == module and taken.shape == (224, 224, 3) and taken.classes == ()
    recipe = style_transfer.recipe(taken, evaluations=(1,))
    batch = {"image": jnp.zeros((1, 32, 32, 3)), "also_image": jnp.zeros((1, 32, 32, 3)), "valid": jnp.ones(1, bool)}
    state = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    wanted = checkpoint.abstract(state, sharding.state_sharding(MESH, state))
    about = {"system": "translation.style_transfer", "borrow": {"network": str(file)}}
    jax.tree.map(np.testing.assert_array_equal, borrow.read(about, recipe, wanted)["network"], held)
    file.unlink()
    assert borrow.make_networks(described)["network"] == taken  # of the description alone


def test_a_file_that_does_not_tell_its_network_is_refused(tmp_path):
    save_file({"layer1.0.conv1.weight": np.zeros((2, 2, 3, 3), np.float32)}, tmp_path / "resnet.safetensors")
    for file, words in (
        (
            "resnet.safetensors",
            r"does not tell its network, torchvision's ResNet: .*VGG and AlexNet",
        ),
        ("absent.pth", r"config\.borrow\.network='.*absent\.pth': .*No such file"),
    ):
        with pytest.raises(UserError, match=words):
            borrow.describe_network("config.borrow.network", str(tmp_path / file))


def test_a_transposed_kernel_is_written_in_its_own_order(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3).T
    files.save(tmp_path / "a.safetensors", {"params": {"kernel": kernel}})
    read = files.load(tmp_path / "a.safetensors", nn.Dense(1), {"params": {"kernel": kernel}})
    np.testing.assert_array_equal(read["params"]["kernel"], kernel)


@pytest.mark.parametrize(
    ("name", "ending", "words"),
    [
        ("resnt", "run/backbone", r"config\.borrow\.resnt: detection\.x has no network 'resnt'. Did you mean 'resnet'"),
        ("resnet", "run/backbon", r"has no network 'backbon'. Did you mean 'backbone'"),
        ("resnet", "nowhere/backbone", r"nowhere is not the folder of a run; expected RUN/NETWORK"),
    ],
)
def test_mistakes_in_a_source_are_named(source, name, ending, words):
    with pytest.raises(UserError, match=words):
        lent({name: f"{source.parent}/{ending}"})


def test_arrays_that_differ_are_listed(source):
    with pytest.raises(UserError, match=r"does not match(.|\n)*kernel.*\(2, 3\) there, \(2, 4\) here"):
        lent({"resnet": f"{source}/backbone"}, width=4)
    counted = network(2.0)
    counted["params"]["conv"]["kernel"] = jnp.full((2, 3), 2)
    save(source, start({"backbone": counted}, {}).replace(step=jnp.int32(5)))
    with pytest.raises(UserError, match=r"does not match(.|\n)*kernel.*\(2, 3\) of int32 there, \(2, 3\) here"):
        lent({"resnet": f"{source}/backbone"})


CLASSIFIER = {"system": "recognition.classifier", "recipe": {"shape": [8, 8, 1], "classes": 10, "width": 4}}


def test_a_network_that_a_recipe_takes_is_built_from_its_description_alone(tmp_path):
    save(tmp_path / "run", start({"classifier": network(1.0)}, {}), CLASSIFIER)
    described = borrow.describe_network("classifier", f"{tmp_path}/run/classifier")
    (tmp_path / "run" / "config.json").unlink()
    taken = borrow.make_networks(json.loads(json.dumps({"classifier": described})))["classifier"]
    assert taken.shape == (8, 8, 1) and taken.classes == tuple("0123456789") and taken.module.width == 4
    logits, _ = jax.eval_shape(taken.module.init_with_output, jax.random.key(0), jnp.zeros((2, 8, 8, 1)))[0]
    assert logits.shape == (2, 10)


def test_a_network_that_a_run_trained_from_anothers_keeps_its_classes(tmp_path):
    save(tmp_path / "run", start({"classifier": network(1.0)}, {}), CLASSIFIER)
    lent = borrow.describe_network("classifier", f"{tmp_path}/run/classifier")
    trained = {"system": "attacks.adversarial_training", "recipe": {}}
    save(tmp_path / "robust", start({"classifier": network(1.0)}, {}), trained)
    file = tmp_path / "robust" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"networks": {"classifier": lent}}))
    taken = borrow.make_networks({"classifier": borrow.describe_network("classifier", f"{tmp_path}/robust/classifier")})
    assert taken["classifier"].classes == tuple("0123456789") and taken["classifier"].module.width == 4


def test_each_network_of_a_run_has_classes_of_its_own(tmp_path):
    """A lent network keeps those that it came with; the run's own networks do not get them."""
    save(tmp_path / "run", start({"classifier": network(1.0)}, {}), CLASSIFIER)
    lent = borrow.describe_network("network", f"{tmp_path}/run/classifier")
    recipe = {"styles": ["stripes", "spots"], "channels": 1, "objective": {"style": ["conv_1_1"], "content": []}}
    save(tmp_path / "fast", start({}, {}), {"system": "translation.fast_style", "recipe": recipe})
    save(tmp_path / "patch", start({}, {}), {"system": "attacks.patch", "recipe": {}})
    for run, argument in (("fast", "network"), ("patch", "classifier")):
        file = tmp_path / run / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"networks": {argument: lent}}))
    expected = {
        "fast/transform": ["stripes", "spots"],
        "fast/network": list("0123456789"),
        "patch/classifier": list("0123456789"),
        "patch/patch": [],
    }
    found = {name: borrow.describe_network("network", f"{tmp_path}/{name}")["classes"] for name in expected}
    assert found == expected


def test_an_unknown_network_of_a_known_run_is_named_with_the_nearest(tmp_path):
    save(tmp_path / "run", start({"classifier": network(1.0)}, {}), CLASSIFIER)
    with pytest.raises(UserError, match=r"has no network 'classifer'. Did you mean 'classifier'"):
        borrow.describe_network("classifier", f"{tmp_path}/run/classifer")
    with pytest.raises(UserError, match=r"which network of the run\? Add one of: classifier"):
        borrow.describe_network("classifier", f"{tmp_path}/run")


def test_a_run_of_a_variant_that_is_not_there_is_trained_by_its_config(monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "first.py").touch()
    monkeypatch.chdir(tmp_path)
    for run, config in (("first-vq", "first.py:vq"), ("first", "first.py")):
        with pytest.raises(UserError, match=rf"Train it first: python train.py --config=configs/{config}\.$"):
            borrow.parse("config.borrow.encoder", f"runs/{run}/encoder")
    with pytest.raises(UserError, match=r"or package:NAME\.$"):
        borrow.parse("config.borrow.encoder", "runs/second-vq/encoder")
