"""CycleGAN: generators beside torch, the objective by hand, one step by hand, both directions of `predict`."""

import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvjax import config, data, optim
from cvjax.errors import UserError
from cvjax.translation import cyclegan
from cvjax.translation.cyclegan import CycleGAN, Generator
from cvjax.translation.image_pool import query_pool

KEY = jax.random.key(0)


def torch_generator(width, blocks, resize=False):
    """The paper's generator in torch, by layers whose names are ours."""
    from torch import nn as tnn

    class Block(tnn.Module):
        def __init__(self, width):
            super().__init__()
            self.pad = tnn.ReflectionPad2d(1)
            self.first, self.second = tnn.Conv2d(width, width, 3), tnn.Conv2d(width, width, 3)
            self.norm, self.relu = tnn.InstanceNorm2d(width), tnn.ReLU()

        def forward(self, x):
            inner = self.relu(self.norm(self.first(self.pad(x))))
            return x + self.norm(self.second(self.pad(inner)))

    def conv(name, inputs, outputs, kernel, stride=1, padding=0):
        layers[name] = tnn.Conv2d(inputs, outputs, kernel, stride, padding)
        layers[f"norm_{name}"], layers[f"relu_{name}"] = tnn.InstanceNorm2d(outputs), tnn.ReLU()

    layers = {"pad": tnn.ReflectionPad2d(3)}
    conv("conv_0", 3, width, 7)
    for level in (1, 2):
        conv(f"down_{level}", width * 2 ** (level - 1), width * 2**level, 3, 2, 1)
    for block in range(blocks):
        layers[f"block_{block}"] = Block(4 * width)
    for level in (1, 0):
        inputs, outputs = width * 2 ** (level + 1), width * 2**level
        if resize:
            layers[f"larger_{level}"], layers[f"pad_{level}"] = tnn.Upsample(scale_factor=2), tnn.ReflectionPad2d(1)
            conv(f"up_{level}", inputs, outputs, 3)
        else:
            layers[f"up_{level}"] = tnn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1)
            layers[f"norm_up_{level}"], layers[f"relu_up_{level}"] = tnn.InstanceNorm2d(outputs), tnn.ReLU()
    layers |= {"last_pad": tnn.ReflectionPad2d(3), "image": tnn.Conv2d(width, 3, 7), "tanh": tnn.Tanh()}
    net = tnn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def copied(net):
    """Our variables of a torch generator."""
    params = {}
    for name, layer in net.named_modules():
        if not hasattr(layer, "weight") or layer.weight is None:
            continue
        ours = name.replace(".first", "_0").replace(".second", "_1")
        axes = (2, 3, 0, 1) if type(layer).__name__ == "ConvTranspose2d" else (2, 3, 1, 0)
        kernel, bias = (x.detach().numpy() for x in (layer.weight, layer.bias))
        params[ours] = {"kernel": jnp.asarray(kernel.transpose(axes)), "bias": jnp.asarray(bias)}
    return {"params": params}


@pytest.mark.parity
@pytest.mark.parametrize(("resize", "size"), [(False, (13, 18)), (True, (20, 16))])
def test_generator_is_torchs(resize, size):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch_generator(4, 2, resize)
    for parameter in net.parameters():  # of a size at which every layer counts
        torch.nn.init.normal_(parameter, 0, 0.3)
    images = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(2 * images - 1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    found = jax.jit(Generator(4, 2, resize).apply)(copied(net), jnp.asarray(images))
    assert found.shape == (2, *(-(-side // 4) * 4 for side in size), 3)
    np.testing.assert_allclose(2 * found - 1, expected, atol=1e-4)  # float32 through a dozen layers
    assert np.ptp(expected) > 1


@pytest.mark.parity
def test_generators_have_the_published_numbers_of_parameters():
    pytest.importorskip("torch")
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    for blocks, expected in ((9, 11_378_179), (6, 7_837_699)):
        held = jax.eval_shape(Generator(blocks=blocks).init, KEY, image)
        assert held.keys() == {"params"}  # no running statistics
        assert {name for layer in held["params"].values() for name in layer} == {"kernel", "bias"}
        assert not [name for name in held["params"] if "norm" in name]  # no scales and shifts either
        assert sum(leaf.size for leaf in jax.tree.leaves(held)) == expected
        assert sum(p.numel() for p in torch_generator(64, blocks).to("meta").parameters()) == expected


def test_kernels_begin_as_the_paper_draws_them():
    held = jax.jit(Generator(8, 1).init)(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    for layer in held.values():
        assert 0.015 < layer["kernel"].std() < 0.025 and abs(layer["kernel"].mean()) < 0.005
        assert not layer["bias"].any()


def test_defaults_are_the_papers():
    defaults = {name: made.default for name, made in inspect.signature(cyclegan.recipe).parameters.items()}
    adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
    expected = dict(width=64, blocks=9, resize=False, discriminator_width=64, field=70, cycle=10, identity=0.5, pool=50)
    expected |= dict(paired=False, generator_optimiser=adam, discriminator_optimiser=adam)
    assert {name: defaults[name] for name in expected} == expected
    batch = {name: jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32) for name in ("image", "also_image")}
    made = jax.eval_shape(cyclegan.recipe().init, KEY, batch)
    assert made.extra["pool_a"].images.shape == made.extra["pool_b"].images.shape == (50, 24, 24, 3)
    assert made.params["a_to_b"]["conv_0"]["kernel"].shape == (7, 7, 3, 64) and "block_8_1" in made.params["b_to_a"]


# --- the objective, on networks of a few numbers ------------------------------------------------------------------


class Scaled(nn.Module):
    """A generator that scales each channel."""

    @nn.compact
    def __call__(self, images):
        return images * self.param("scale", nn.initializers.ones, (3,))


class Weighted(nn.Module):
    """A discriminator of single pixels; `train` is what a PatchGAN takes."""

    field = 1

    @nn.compact
    def __call__(self, images, train=False):
        return images @ self.param("weight", nn.initializers.ones, (3,))


RATE = 0.5
PARAMS = {
    "a_to_b": {"scale": jnp.array([0.5, 0.2, 0.9])},
    "b_to_a": {"scale": jnp.array([0.7, 0.8, 0.4])},
    "discriminator_a": {"weight": jnp.array([0.3, -0.5, 0.2])},
    "discriminator_b": {"weight": jnp.array([-0.4, 0.1, 0.6])},
}


def tiny(**changes):
    sgd = optim.build({"name": "sgd", "learning_rate": RATE})
    made = CycleGAN(Scaled(), Weighted(), sgd, sgd, cycle=10.0, identity=0.5, pool=4, paired=False, longest=64)
    return dataclasses.replace(made, **changes)


def batch_of(seed=0, count=2, size=8):
    drawn = np.random.default_rng(seed).uniform(size=(2, count, size, size, 3)).astype(np.float32)
    return {"image": jnp.asarray(drawn[0]), "also_image": jnp.asarray(drawn[1])}


def objective_by_hand(generators, discriminators, a, b, cycle, identity):
    """The loss of both generators in float64, from the paper: images in [-1, 1], averages over pixels and batch."""
    to_b, to_a = (np.asarray(generators[name]["scale"], np.float64) for name in ("a_to_b", "b_to_a"))
    judge_a, judge_b = (np.asarray(discriminators[f"discriminator_{kind}"]["weight"], np.float64) for kind in "ab")
    centred = lambda images: 2 * np.asarray(images, np.float64) - 1  # noqa: E731
    distance = lambda one, other: np.abs(centred(one) - centred(other)).mean()  # noqa: E731
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    fooling = ((centred(a * to_b) @ judge_b - 1) ** 2).mean() + ((centred(b * to_a) @ judge_a - 1) ** 2).mean()
    there_and_back = distance(a * to_b * to_a, a) + distance(b * to_a * to_b, b)
    unchanged = distance(b * to_b, b) + distance(a * to_a, a)  # G(B) is B, F(A) is A
    return fooling + cycle * there_and_back + cycle * identity * unchanged


@pytest.mark.parametrize(("cycle", "identity"), [(10.0, 0.5), (10.0, 0.0), (3.0, 2.0), (0.0, 0.5)])
def test_the_generators_loss_is_the_papers(cycle, identity):
    system, batch = tiny(cycle=cycle, identity=identity), batch_of()
    total, (made, parts) = system.generators_loss(PARAMS, PARAMS, batch["image"], batch["also_image"])
    assert total == pytest.approx(objective_by_hand(PARAMS, PARAMS, *batch.values(), cycle, identity), rel=1e-5)
    np.testing.assert_allclose(made["fake_b"], batch["image"] * PARAMS["a_to_b"]["scale"], rtol=1e-6)
    assert ("loss/identity_a" in parts) == bool(cycle and identity)


def test_a_step_moves_the_generators_and_then_the_discriminators_on_the_translations_before_it():
    system, batch = tiny(), batch_of()
    state = system.init(KEY, batch).replace(params=PARAMS)
    after, metrics = jax.jit(system.train_step)(state, batch, KEY)
    a, b = batch["image"], batch["also_image"]
    fakes = {"a": b * PARAMS["b_to_a"]["scale"], "b": a * PARAMS["a_to_b"]["scale"]}
    for kind, real in (("a", a), ("b", b)):
        name = f"discriminator_{kind}"
        weight = np.asarray(PARAMS[name]["weight"], np.float64)
        real, fake = (2 * np.asarray(x, np.float64).reshape(-1, 3) - 1 for x in (real, fakes[kind]))
        halved = (((real @ weight - 1) ** 2).mean() + ((fake @ weight) ** 2).mean()) / 2
        assert metrics[f"loss/{name}"] == pytest.approx(halved, rel=1e-5)
        slope = ((real @ weight - 1) @ real + (fake @ weight) @ fake) / len(real)  # the square's 2 and the half cancel
        np.testing.assert_allclose(after.params[name]["weight"], weight - RATE * slope, rtol=1e-4)
        pool = after.extra[f"pool_{kind}"]
        assert pool.held == 2
        np.testing.assert_allclose(pool.images[:2], fakes[kind], rtol=1e-6)
    # The generators, by central differences of the objective.
    for name in ("a_to_b", "b_to_a"):
        for channel in range(3):
            sides = []
            for step in (1e-6, -1e-6):
                moved = np.asarray(PARAMS[name]["scale"], np.float64).copy()
                moved[channel] += step
                sides.append(objective_by_hand({**PARAMS, name: {"scale": moved}}, PARAMS, a, b, 10.0, 0.5))
            expected = float(PARAMS[name]["scale"][channel]) - RATE * (sides[0] - sides[1]) / 2e-6
            assert after.params[name]["scale"][channel] == pytest.approx(expected, abs=1e-3)


def test_a_full_pool_gives_the_discriminators_earlier_translations():
    system, first, second = tiny(pool=2), batch_of(1), batch_of(2)
    state = system.init(KEY, first).replace(params=PARAMS)
    step = jax.jit(system.train_step)
    state, _ = step(state, first, jax.random.key(1))
    a, b = second["image"], second["also_image"]
    fakes, earlier = (b * PARAMS["b_to_a"]["scale"], a * PARAMS["a_to_b"]["scale"]), 0
    state = state.replace(params=PARAMS)
    for seed in range(4):
        key = jax.random.key(seed)
        after, metrics = step(state, second, key)
        for kind, real, fake, pool_key in zip("ab", (a, b), fakes, jax.random.split(key), strict=True):
            chosen, pool = query_pool(pool_key, state.extra[f"pool_{kind}"], fake)
            weight = PARAMS[f"discriminator_{kind}"]["weight"]
            scores = [(2 * images - 1) @ weight for images in (real, chosen)]
            expected = (((scores[0] - 1) ** 2).mean() + (scores[1] ** 2).mean()) / 2
            assert metrics[f"loss/discriminator_{kind}"] == pytest.approx(float(expected), rel=1e-5)
            np.testing.assert_allclose(after.extra[f"pool_{kind}"].images, pool.images, rtol=1e-6)
            earlier += int((chosen != fake).any(axis=(1, 2, 3)).sum())
    assert 0 < earlier < 16


# --- figures, pictures and errors ---------------------------------------------------------------------------------


def test_figures_are_of_both_directions_and_of_what_needs_no_training():
    system = tiny(paired=True)
    rows = np.arange(16)[:, None, None] // 2 % 2 * np.ones((16, 16, 3))
    a, b = 0.25 + 0.5 * np.random.default_rng(0).uniform(size=(2, 16, 16, 3)), np.stack([rows, 1 - rows])
    batch = {"image": np.float32(a), "also_image": np.float32(b)}
    outputs = {"translation": batch["also_image"], "also_translation": batch["image"] + np.float32(0.1)}
    outputs |= {"cycled": batch["image"] + np.float32(0.1), "also_cycled": batch["also_image"]}
    figures = system.score([(batch, outputs)])
    assert figures["psnr_a_to_b"] == 100 and figures["detail_a_to_b"] == pytest.approx(1)
    assert figures["psnr_b_to_a"] == pytest.approx(20, abs=0.1)  # an error of a tenth
    assert figures["cycle_psnr"] == pytest.approx(60, abs=0.1)  # the mean of 20 and 100
    assert figures["flat_psnr"] == pytest.approx(6, abs=0.1) and abs(figures["recoloured_detail"]) < 0.3
    assert tiny().score([(batch, outputs)]).keys() == {"cycle_psnr"}
    fewer = {name: value[:1] if name.startswith("also") else value for name, value in outputs.items()}
    with pytest.raises(UserError, match=r"paired=True.*numbers or sizes differ"):
        system.score([({**batch, "also_image": batch["also_image"][:1]}, fewer)])


@pytest.fixture(scope="module")
def small():
    recipe = cyclegan.recipe(width=2, blocks=1, discriminator_width=2, field=16, pool=3, paired=True)
    return recipe, jax.jit(recipe.init)(KEY, batch_of(size=16))


def test_images_of_any_size_are_translated_either_way(small):
    recipe, state = small
    images = batch_of(size=16)["image"]
    outputs = {
        name: recipe.networks[name].apply({"params": state.params[name]}, images) for name in ("a_to_b", "b_to_a")
    }
    there, back = (recipe.predict(state, {"image": images, "label": np.full(2, label)}, KEY) for label in (0, 1))
    np.testing.assert_allclose(there["image"], outputs["a_to_b"], atol=1e-6)
    np.testing.assert_allclose(back["image"], outputs["b_to_a"], atol=1e-6)
    np.testing.assert_array_equal(recipe.predict(state, {"image": images}, KEY)["image"], there["image"])
    mixed = recipe.predict(state, {"image": images, "label": np.array([1, 0])}, KEY)["image"]
    np.testing.assert_allclose(mixed, np.stack([back["image"][0], there["image"][1]]), atol=1e-6)
    odd = recipe.predict(state, {"image": images[:, :13, :7]}, KEY)["image"]
    padded = np.pad(images[:, :13, :7], ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect")
    whole = recipe.predict(state, {"image": padded}, KEY)["image"]
    assert odd.shape == (2, 13, 7, 3)
    np.testing.assert_allclose(odd, whole[:, 1:14, :7], atol=1e-6)
    assert recipe.predict(state, {"image": images[:, :1, :5]}, KEY)["image"].shape == (2, 1, 5, 3)
    sizes = {"image": images[:, :13, :7], "also_image": images[:, :, :9]}  # of evaluation, after transforms of its own
    outputs = jax.eval_shape(recipe.eval_step, state, sizes, KEY)
    for name, size in (("translation", (13, 7)), ("cycled", (13, 7)), ("also_translation", (16, 9))):
        assert outputs[name].shape == (2, *size, 3)
    assert recipe.shown_classes == ("a_to_b", "b_to_a") and recipe.any_size


def test_larger_images_are_made_smaller():
    system, images = tiny(longest=8), batch_of(size=16)["image"]
    state = system.init(KEY, batch_of()).replace(params=PARAMS)
    halved = images.reshape(2, 8, 2, 8, 2, 3).mean(axis=(2, 4))
    found = system.predict(state, {"image": images, "label": np.array([0, 1])}, KEY)["image"]
    scales = jnp.stack([PARAMS[name]["scale"] for name in ("a_to_b", "b_to_a")])
    assert found.shape == (2, 8, 8, 3) and found.min() >= 0 and found.max() <= 1
    middle = slice(2, 6)  # a triangle of twice the width is near the mean of four pixels
    expected = (halved * scales[:, None, None])[:, middle, middle]
    assert np.corrcoef(found[:, middle, middle].ravel(), expected.ravel())[0, 1] > 0.9
    for size, expected in (((8, 5), (8, 5)), ((16, 5), (8, 2)), ((5, 16), (2, 8))):
        shown = system.predict(state, {"image": images[:, : size[0], : size[1]]}, KEY)["image"]
        assert shown.shape == (2, *expected, 3)


@pytest.mark.parametrize("paired", [True, False])
def test_held_out_images_are_drawn_with_their_translations(monkeypatch, paired):
    system, batch = tiny(paired=paired), batch_of()
    state = system.init(KEY, batch).replace(params=PARAMS)
    drawn = []

    def draw_gallery(images, titles, columns):
        drawn.append((images, titles, columns))
        return images

    monkeypatch.setattr(cyclegan.plots, "draw_gallery", draw_gallery)
    assert list(system.visualise(state, batch, KEY)) == ["a_to_b", "b_to_a"]
    scales, kinds = [PARAMS[name]["scale"] for name in ("a_to_b", "b_to_a")], list(batch.values())
    for index, (images, titles, columns) in enumerate(drawn):
        real, truth, there, back = kinds[index], kinds[1 - index], scales[index], scales[1 - index]
        expected = [real, real * there, real * there * back] + [truth] * paired
        names = [("A", "to B", "and back"), ("B", "to A", "and back")][index] + ("truth",) * paired
        assert titles == [*names] * 2 and columns == len(expected)
        rows = np.concatenate([[image[row] for image in expected] for row in range(2)])
        np.testing.assert_allclose(images, rows, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "also", "message"),
    [
        ((16, 16, 3), None, r"needs two kinds of images: set data\.also"),
        ((16, 16, 3), (16, 20, 3), r"\(16, 16, 3\), those of data\.also \(16, 20, 3\)"),
        (
            (16, 16, 1),
            (16, 16, 3),
            r"of data are grey.*op=\"grayscale\", channels=3.*into data\.transforms and ",
        ),
        (
            (16, 16, 3),
            (20, 16, 1),
            r"of data\.also are grey.*into data\.also\.transforms and data\.also\.eval_",
        ),
        ((16, 18, 3), (16, 18, 3), r"16x18.*multiples of 4.*16x20"),
        ((20, 16, 3), (20, 16, 3), r"field=70 needs images of at least 24x24, not 20x16"),
        ((4, 4, 3), (4, 4, 3), r"4x4 are too small for the generators.*8x8"),
    ],
)
def test_what_does_not_suit_is_said_before_anything_compiles(image, also, message):
    recipe = cyclegan.recipe(width=2, blocks=1, field=70 if "70" in message else 1)
    batch = {"image": jax.ShapeDtypeStruct((1, *image), jnp.float32)}
    batch |= {"also_image": jax.ShapeDtypeStruct((1, *also), jnp.float32)} if also else {}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(recipe.init, KEY, batch)


def test_the_papers_rate_is_constant_and_then_falls_to_nothing():
    experiment = config.as_dict(config.load("configs/cyclegan_horse2zebra.py"))
    steps, optimisers = experiment["steps"], ("generator_optimiser", "discriminator_optimiser")
    for options in (experiment["recipe"][name] for name in optimisers):
        assert options["b1"] == 0.5
        rates = [float(optim.learning_rate(options, step)) for step in (0, steps // 2, 3 * steps // 4, steps)]
        np.testing.assert_allclose(rates, [2e-4, 2e-4, 1e-4, 0], atol=1e-9)


def test_the_config_for_two_folders_reads_both(tmp_path):
    generator = np.random.default_rng(0)
    for name, size in (("photographs", (150, 170, 3)), ("drawings", (140, 200, 3))):
        (tmp_path / name).mkdir()
        for index in range(5):
            picture = generator.integers(0, 255, size, dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / name / f"{index}.png")
    experiment = config.load("configs/own_styles.py")
    with pytest.raises(UserError, match=r"set data\.name=.* or data\.folder="):
        config.check(experiment)
    experiment.data.folder = str(tmp_path / "photographs")
    with pytest.raises(UserError, match=r"data\.also: set data\.name=.* or data\.folder="):
        config.check(experiment)
    experiment.data.also.folder = str(tmp_path / "drawings")
    config.check(experiment)
    batch = next(data.load(config.as_dict(experiment.data), seed=0).train())
    assert batch["image"].shape == batch["also_image"].shape == (1, 128, 128, 3)
    for index in range(5):
        Image.fromarray(picture[..., 0]).save(tmp_path / "drawings" / f"{index}.png")
    shown = next(data.load(config.as_dict(experiment.data), seed=0).train())
    assert shown["also_image"].shape == (1, 128, 128, 1)
    with pytest.raises(UserError, match=r"images of data\.also are grey"):
        jax.eval_shape(cyclegan.recipe().init, KEY, shown)
    for name in ("transforms", "eval_transforms"):  # as the message says
        experiment.data.also[name] = (dict(op="grayscale", channels=3), *experiment.data.also[name])
    shown = next(data.load(config.as_dict(experiment.data), seed=0).train())
    assert shown["also_image"].shape == (1, 128, 128, 3)
