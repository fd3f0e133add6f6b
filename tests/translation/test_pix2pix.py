"""pix2pix: the generator beside torch, the losses by hand, both ways to test, images of any size, and mistakes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import config
from cvjax.errors import UserError
from cvjax.translation import pix2pix
from cvjax.translation.pix2pix import UNetGenerator

KEY = jax.random.key(0)
DEPTH, WIDTH = 4, 4


def images(seed, size=(16, 16), channels=3, batch=3):
    return jnp.float32(np.random.default_rng(seed).uniform(size=(batch, *size, channels)))


@functools.partial(jax.jit, static_argnums=0)
def training(net, held, x):
    return net.apply(held, x, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


def torch_unet(torch, resize):
    """The U-Net as nested blocks, from the innermost outwards, as the paper's appendix lists its layers."""
    nn = torch.nn

    class Block(nn.Module):
        """Halves, goes through the blocks within, doubles, and lays what comes out behind what came in."""

        def __init__(self, before, after, out, inner=None, outermost=False):
            super().__init__()
            down = [nn.Conv2d(before, after, 4, 2, 1, bias=False)]
            down = down if outermost else [nn.LeakyReLU(0.2), *down]
            down += [] if outermost or inner is None else [nn.BatchNorm2d(after)]
            wide = after if inner is None else 2 * after
            double = [nn.ConvTranspose2d(wide, out, 4, 2, 1, bias=outermost)]
            if resize:
                double = [nn.Upsample(scale_factor=2), nn.Conv2d(wide, out, 3, padding=1, bias=outermost)]
            up = [nn.ReLU(), *double, nn.Tanh() if outermost else nn.BatchNorm2d(out)]
            self.inside = nn.Sequential(*down, *([] if inner is None else [inner]), *up)
            self.outermost = outermost

        def forward(self, x):
            made = self.inside(x)
            return made if self.outermost else torch.cat([x, made], 1)

    widths = [WIDTH * min(2**level, 8) for level in range(DEPTH)]
    block = None
    for level in reversed(range(1, DEPTH)):
        block = Block(widths[level - 1], widths[level], widths[level - 1], block)
    return Block(2, widths[0], 3, block, outermost=True)


def converted(torch, net):
    """Parameters and statistics of the torch net under our names."""
    params, stats, block, level = {}, {}, net, 0
    while block is not None:
        inner, norms, convolutions = None, [], []
        for layer in block.inside:
            if isinstance(layer, torch.nn.BatchNorm2d):
                norms.append(layer)
            elif isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
                convolutions.append(layer)
            elif isinstance(layer, type(net)):
                inner = layer
        for name, layer in zip(("down", "up"), convolutions, strict=True):
            order = (2, 3, 0, 1) if isinstance(layer, torch.nn.ConvTranspose2d) else (2, 3, 1, 0)
            params[f"{name}_{level}"] = {"kernel": layer.weight.detach().permute(order).numpy()}
            if layer.bias is not None:
                params[f"{name}_{level}"]["bias"] = layer.bias.detach().numpy()
        for name, layer in zip(("up_norm", "down_norm")[: len(norms)], norms[::-1], strict=True):
            scale, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            params[f"{name}_{level}"] = {"scale": scale, "bias": bias}
            stats[f"{name}_{level}"] = {
                "mean": layer.running_mean.numpy().copy(),
                "var": layer.running_var.numpy().copy(),
            }
        block, level = inner, level + 1
    return {"params": params, "batch_stats": stats}


@pytest.mark.parity
@pytest.mark.parametrize("resize", [False, True])
def test_the_generator_is_torchs(torch, resize):
    torch.manual_seed(0)
    theirs, ours = torch_unet(torch, resize), UNetGenerator(DEPTH, WIDTH, 3, dropout=0.0, resize=resize)
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values, low in ((layer.weight, 0.5), (layer.bias, -0.5), (layer.running_mean, -0.5)):
                torch.nn.init.uniform_(values, low, low + 1)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
    held, x = converted(torch, theirs), 2 * images(1, (16, 32), 2) - 1
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(ours.init, KEY, x))
    assert jax.tree.map(jnp.shape, held) == shapes  # every parameter and statistic has a counterpart
    given = torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)
    wanted = theirs.eval()(given).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(jax.jit(ours.apply)(held, x), wanted, atol=1e-4)  # float32, 13 layers
    made, after = training(ours, held, x)
    wanted = theirs.train()(given).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    means = jax.tree.map(lambda x: np.asarray(x)[..., :1], converted(torch, theirs)["batch_stats"])
    for name, found in after["batch_stats"].items():  # the variances differ: torch's running ones are unbiased
        np.testing.assert_allclose(found["mean"][:1], means[name]["mean"], atol=1e-4)


@pytest.mark.parametrize(("depth", "count"), [(8, 54_413_955), (7, 41_828_995)])
def test_parameters_are_those_of_the_published_generators(depth, count):
    side = 2**depth
    held = jax.eval_shape(UNetGenerator(depth).init, KEY, jnp.zeros((1, side, side, 3)))["params"]
    assert sum(x.size for x in jax.tree.leaves(held)) == count
    norms = {name for name in held if "norm" in name}
    assert norms == {f"down_norm_{i}" for i in range(1, depth - 1)} | {f"up_norm_{i}" for i in range(1, depth)}
    assert [name for name in held if "bias" in held[name] and name not in norms] == ["up_0"]


def test_the_innermost_features_of_a_single_image_are_not_normalised_away():
    net, x = UNetGenerator(DEPTH, WIDTH, dropout=0.0), images(0, batch=1)
    held = jax.jit(net.init)(KEY, x)

    def total(params):
        return training(net, {**held, "params": params}, x)[0].sum()

    assert jnp.abs(jax.jit(jax.grad(total))(held["params"])["down_3"]["kernel"]).max() > 1e-6


def test_initial_values_are_the_papers():
    held = jax.jit(UNetGenerator(5, 24).init)(KEY, jnp.zeros((1, 32, 32, 3)))["params"]
    kernels = np.concatenate([np.ravel(layer["kernel"]) for layer in held.values() if "kernel" in layer])
    scales = np.concatenate([layer["scale"] for layer in held.values() if "scale" in layer])
    np.testing.assert_allclose([kernels.mean(), kernels.std()], [0, 0.02], atol=1e-4)
    np.testing.assert_allclose([scales.mean(), scales.std()], [1, 0.02], atol=4e-3)


def test_dropout_is_in_the_first_three_blocks_of_the_decoder():
    net, x = UNetGenerator(5, 2, dropout=1.0), images(0, (32, 32), batch=2)
    held = jax.jit(net.init)(KEY, x)

    def total(params):
        return training(net, {**held, "params": params}, x)[0].sum()

    slopes = jax.jit(jax.grad(total))(held["params"])
    seen = [bool(jnp.abs(slopes[f"up_{level}"]["kernel"]).max() > 0) for level in (4, 3, 2, 1, 0)]
    assert seen == [False, False, False, True, True]


# --- steps --------------------------------------------------------------------------------------------------------


def small(**changed):
    chosen = dict(depth=DEPTH, width=WIDTH, field=16, discriminator_width=4, dropout=0.5)
    return pix2pix.recipe(**{**chosen, **changed})


BATCH = {"image": images(1), "target": images(2)}


def by_hand(name, logits):
    logits = np.asarray(logits, np.float64)
    return np.logaddexp(0, -logits if name == "real" else logits).mean()


def judge(net, params, source, image, conditional=True):
    seen = np.concatenate([source, image], axis=-1) if conditional else image
    return training(net, {"params": params, "batch_stats": {}}, 2 * jnp.asarray(seen) - 1)[0]


@pytest.mark.parametrize("conditional", [True, False])
def test_losses_of_a_step_are_the_papers(conditional):
    optimiser = {"name": "sgd", "learning_rate": 0.1}
    system = small(
        dropout=0.0,
        adversarial=0.3,
        l1=7.0,
        conditional=conditional,
        generator_optimiser=optimiser,
        discriminator_optimiser=optimiser,
    )
    state = jax.jit(system.init)(KEY, BATCH)
    after, metrics = jax.jit(system.train_step)(state, BATCH, KEY)
    generator, discriminator = system.networks["generator"], system.networks["discriminator"]
    held = {"params": state.params["generator"], "batch_stats": state.stats["generator"]}
    made = (training(generator, held, 2 * BATCH["image"] - 1)[0] + 1) / 2

    def logits(params, image):
        return judge(discriminator, params, BATCH["image"], image, conditional)

    old, new = state.params["discriminator"], after.params["discriminator"]
    assert old["conv_0"]["kernel"].shape[2] == (6 if conditional else 3)
    halved = (by_hand("real", logits(old, BATCH["target"])) + by_hand("fake", logits(old, made))) / 2
    np.testing.assert_allclose(metrics["loss/discriminator"], halved, rtol=1e-4)
    adversarial = by_hand("real", logits(new, made))  # the generator plays against the discriminator after its step
    np.testing.assert_allclose(metrics["loss/adversarial"], adversarial, rtol=1e-4)
    assert abs(adversarial - by_hand("real", logits(old, made))) > 1e-3 * adversarial
    l1 = 2 * np.abs(np.asarray(made, np.float64) - BATCH["target"]).mean()  # of images in [-1, 1]
    np.testing.assert_allclose(metrics["loss/generator"], 0.3 * adversarial + 7 * l1, rtol=1e-4)


def test_defaults_are_the_papers():
    made = pix2pix.recipe().train_step.__self__
    assert made.generator == UNetGenerator(depth=8, width=64, channels=3, dropout=0.5, resize=False)
    assert (made.discriminator.field, made.discriminator.features, made.conditional) == (70, 64, True)
    assert (made.adversarial, made.l1, made.test_mode) == (1, 100, "published")
    defaults = inspect.signature(pix2pix.recipe).parameters
    for player in ("generator", "discriminator"):
        adam = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5}
        assert defaults[f"{player}_optimiser"].default == adam


def test_without_an_adversarial_loss_there_is_no_discriminator_and_l1_is_learnt():
    system = small(adversarial=0.0, dropout=0.0, generator_optimiser={"name": "adam", "learning_rate": 1e-2})
    state, step, losses = jax.jit(system.init)(KEY, BATCH), jax.jit(system.train_step), []
    batch = BATCH | {"target": 1 - BATCH["image"]}
    for index in range(120):
        state, metrics = step(state, batch, jax.random.fold_in(KEY, index))
        losses.append(float(metrics["loss/l1"]))
    assert set(system.networks) == set(state.params) == set(state.opt) == {"generator"}
    assert set(metrics) == {"loss/generator", "loss/l1"}
    np.testing.assert_allclose(metrics["loss/generator"], 100 * losses[-1], rtol=1e-6)
    assert losses[-1] < 0.5 * losses[0]


@pytest.fixture(scope="module")
def states():
    """Both test modes with the state of a few steps, whose running statistics are not those of single images."""
    systems = {mode: small(test_mode=mode) for mode in ("published", "running")}
    state, step = jax.jit(systems["published"].init)(KEY, BATCH), jax.jit(systems["published"].train_step)
    for index in range(3):
        state, _ = step(state, BATCH, jax.random.fold_in(KEY, index))
    return {mode: (system, state) for mode, system in systems.items()}


@pytest.mark.parametrize("mode", ["published", "running"])
def test_no_image_changes_what_another_one_becomes(states, mode):
    system, state = states[mode]
    together = system.predict(state, {"image": BATCH["image"]}, KEY)["image"]
    others = jnp.concatenate([BATCH["image"][:1], 0.1 * BATCH["image"][1:]])
    changed = system.predict(state, {"image": others}, KEY)["image"]
    np.testing.assert_allclose(changed[0], together[0], atol=1e-5)
    assert np.abs(changed[1] - together[1]).max() > 1e-3
    alone = system.predict(state, {"image": BATCH["image"][:1]}, KEY)["image"]
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)
    assert together.min() >= 0 and together.max() <= 1


def test_dropout_is_on_in_the_published_test_and_off_in_the_other(states):
    other, pictures = jax.random.key(1), {"image": jnp.stack([BATCH["image"][0]] * 2)}
    for mode, (system, state) in states.items():
        first, second = (np.asarray(system.predict(state, pictures, key)["image"]) for key in (KEY, other))
        assert (np.abs(first - second).max() > 1e-3) == (mode == "published")
        assert (np.abs(first[0] - first[1]).max() > 1e-3) == (mode == "published")  # noise of their own


@pytest.mark.parametrize(("name", "flickers"), [("", False), (":published", True)])
def test_a_film_by_ones_own_pairs_flickers_only_if_tested_as_published(states, name, flickers):
    chosen = config.load(f"configs/own_pairs.py{name}").recipe
    system, state = small(dropout=chosen.dropout, test_mode=chosen.test_mode), states["published"][1]
    first, second = (
        np.asarray(system.predict(state, {"image": BATCH["image"][:1]}, jax.random.key(frame))["image"])
        for frame in range(2)
    )
    assert (np.abs(first - second).max() > 1e-3) == flickers


def test_the_published_test_normalises_by_the_images_own_statistics(states):
    system, state = small(dropout=0.0), states["published"][1]
    made = system.predict(state, {"image": BATCH["image"]}, KEY)["image"]
    held = {"params": state.params["generator"], "batch_stats": state.stats["generator"]}
    for index in range(len(made)):
        one = 2 * BATCH["image"][index : index + 1] - 1
        wanted, _ = training(system.networks["generator"], held, one)
        np.testing.assert_allclose(made[index], (wanted[0] + 1) / 2, atol=1e-5)


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (5, 1)])
def test_images_of_any_size_keep_it(states, size):
    system, state = states["running"]
    given = images(3, size, batch=1)
    for image in (given, np.asarray(given)):  # `export` traces, `apply` has NumPy's
        assert system.predict(state, {"image": image}, KEY)["image"].shape == (1, *size, 3)


def test_a_picture_that_fits_is_what_evaluation_makes_of_it(states):
    for system, state in states.values():
        made = jax.jit(system.eval_step)(state, BATCH, KEY)["image"]
        np.testing.assert_allclose(system.predict(state, BATCH, KEY)["image"], made, atol=1e-6)


def test_evaluation_takes_sizes_that_do_not_suit_the_generator(states):
    system, state = states["running"]
    odd = {"image": np.asarray(images(3, (17, 21))), "target": np.asarray(images(4, (17, 21)))}
    made = np.asarray(jax.jit(system.eval_step)(state, odd, KEY)["image"])
    np.testing.assert_allclose(made, system.predict(state, odd, KEY)["image"], atol=1e-6)
    assert made.shape == (3, 17, 21, 3) and np.isfinite(system.score([(odd, {"image": made})])["psnr"])


def test_figures_are_of_held_out_pairs():
    system = small()
    truth = np.asarray(BATCH["target"])
    grey = np.repeat(truth.mean(axis=-1, keepdims=True), 3, axis=-1)
    figures = system.score([({"target": truth}, {"image": grey}), ({"target": truth}, {"image": grey})])
    assert set(figures) == {"psnr", "ssim", "l1", "saturation_distance"}
    np.testing.assert_allclose(figures["l1"], np.abs(truth - grey).mean(), rtol=1e-5)
    levels = np.round(255 * truth), np.round(255 * grey)
    error = ((levels[0] - levels[1]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(figures["psnr"], (10 * np.log10(255**2 / error)).mean(), rtol=1e-5)
    assert figures["saturation_distance"] > 20
    assert system.score([({"target": truth}, {"image": truth + 1e-4})])["saturation_distance"] < 0.1


def test_a_picture_that_equals_the_truth_has_100_db():
    truth, given = np.asarray(BATCH["target"]), np.asarray(BATCH["image"])
    given = np.concatenate([truth[:1], given[1:]])  # and one that needed no translation
    figures = small().score([({"target": truth, "image": given}, {"image": truth})])
    assert figures["psnr"] == 100 and figures["ssim"] > 0.999
    error = np.square(np.round(255 * truth[1:]) - np.round(255 * given[1:])).mean(axis=(1, 2, 3))
    above = np.concatenate([[0], 100 - 10 * np.log10(255**2 / error)])
    np.testing.assert_allclose(figures["psnr_over_input"], above.mean(), rtol=1e-6)


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "kept"), [(12, [0, 2]), (6, [0])])
def test_translations_are_drawn_between_input_and_truth_without_padding(states, monkeypatch, columns, kept):
    system, state = states["running"]
    drawn = {}

    def draw_gallery(pictures, captions, columns):
        drawn.update(pictures=pictures, captions=captions, columns=columns)
        return np.zeros((1, 1, 3), np.float32)

    monkeypatch.setattr(pix2pix.plots, "draw_gallery", draw_gallery)
    monkeypatch.setattr(pix2pix, "SHOWN", 1 if columns == 6 else 6)  # of rows
    monkeypatch.setattr(pix2pix, "COLUMNS", columns)
    batch = {**BATCH, "valid": jnp.array([True, False, True])}
    assert set(system.visualise(state, batch, KEY)) == {"translations"}
    assert drawn["captions"] == ["input", "output", "truth"] * len(kept) and drawn["columns"] == columns
    made = system.predict(state, {"image": BATCH["image"]}, KEY)["image"]
    wanted = [x[index] for index in kept for x in (BATCH["image"], made, BATCH["target"])]
    np.testing.assert_allclose(drawn["pictures"], wanted, atol=1e-5)


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "batch", "message"),
    [
        ({}, {"image": BATCH["image"]}, r"learns pairs: set data\.images=\{\"target\": FOLDER\}"),
        ({}, BATCH | {"target": images(2, channels=1)}, r"targets' channels are 1, but config\.recipe\.channels=3"),
        ({}, BATCH | {"target": images(2, (16, 8))}, r"the images are 16x16, but their targets 16x8"),
        ({}, {"image": images(1, (16, 24)), "target": images(2, (16, 24))}, r"16x24.*halves 4 times.*of 16 = 2\^4"),
        ({"depth": 8}, BATCH, r"halves 8 times needs sides that are multiples of 256 = 2\^8"),
        ({"field": 70}, BATCH, r"field=70 needs images of at least 24x24, not 16x16: set a smaller one of 1, 16"),
    ],
)
def test_mistakes_are_named_before_anything_compiles(changed, batch, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(small(**changed).init, KEY, batch)


def test_an_objective_without_weights_is_refused():
    with pytest.raises(UserError, match=r"adversarial=0 and config\.recipe\.l1=0"):
        small(adversarial=0.0, l1=0.0)


def test_sources_may_have_other_channels_than_targets():
    system = small()
    state = jax.eval_shape(system.init, KEY, BATCH | {"image": images(1, channels=1)})
    assert state.params["generator"]["down_0"]["kernel"].shape[2] == 1
    assert state.params["discriminator"]["conv_0"]["kernel"].shape[2] == 4
