"""Style transfer by a tiny network: what falls, what stays, blends, sizes and colours, and what the recipe shows."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvjax.core import Network
from cvjax.errors import UserError
from cvjax.nets.capture import activations_of
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.nets.vgg import VGG
from cvjax.translation import colours, style_transfer
from cvjax.translation.style_losses import Objective
from cvjax.translation.style_transfer import STAGES, find_targets, paint, parts, total_loss

KEY = jax.random.key(0)
SMALL = Objective(content=("relu2_1",), style=("relu1_1", "relu3_1"), beta=1e3)
NET = VGG(11, width=4)


@pytest.fixture(scope="module")
def held():
    return NET.init(KEY, jnp.zeros((1, 16, 16, 3)))


@pytest.fixture(scope="module")
def pictures():
    """A content and two styles: a gradient, stripes and spots."""
    rows, columns = np.mgrid[:16, :20] / np.float32(20)
    generator = np.random.default_rng(0)
    content = np.stack([rows, columns, 1 - rows], axis=-1)
    stripes = np.stack([np.sin(20 * rows) / 2 + 0.5, 0 * rows + 0.3, 0 * rows], axis=-1)
    spots = generator.uniform(size=(16, 20, 3))
    return jnp.float32(content), jnp.float32([stripes, spots])


def see(held, images, objective=SMALL):
    return activations_of(NET, objective.layers)(held, images)


@functools.partial(jax.jit, static_argnames=("tx", "evaluations", "begin", "colour"))
def painted(held, content, styles, shares, tx=optax.lbfgs(1.0), evaluations=(30,), begin="content", colour="style"):  # noqa: B008
    options = dict(objective=SMALL, tx=tx, evaluations=evaluations, begin=begin, colour=colour)
    return paint(KEY, functools.partial(see, held), content, styles, shares, **options)


ONE = jnp.array([1.0, 0.0])


def test_the_loss_of_lbfgs_falls_below_adams_at_equal_evaluations(held, pictures):
    found = {}
    for name, tx in {"lbfgs": optax.lbfgs(1.0), "adam": optax.adam(0.02)}.items():
        made, losses, counts = painted(held, *pictures, ONE, tx=tx)
        assert (np.diff(losses) <= 0).all() and losses[-1] < 0.7 * losses[0]
        assert counts[-1] <= 33 and made.shape == (len(STAGES), 16, 20, 3)
        assert made.min() >= 0 and made.max() <= 1
        found[name] = losses[-1]
        np.testing.assert_allclose(made[0], pictures[0], atol=1e-6)
    assert found["lbfgs"] < found["adam"]


def test_the_style_comes_nearer_and_the_blend_lies_between(held, pictures):
    content, styles = pictures
    losses = []
    for shares in (ONE, jnp.array([0.0, 3.0]), jnp.array([1.0, 1.0])):
        made = painted(held, content, styles, shares)[0][-1]
        both = []
        for share in jnp.eye(2):
            targets = find_targets(functools.partial(see, held), content, styles, share, SMALL)
            both.append(float(parts(functools.partial(see, held), made, targets, SMALL)["style"]))
        losses.append(both)
    (first, other), (first_of_second, second), (one, two) = losses
    assert first < one < first_of_second and second < two < other


def test_noise_and_coarse_sizes_begin_elsewhere(held, pictures):
    content, styles = pictures
    made, losses, _ = painted(held, content, styles, ONE, begin="noise")
    assert jnp.abs(made[0] - content).mean() > 0.2 and losses[-1] < losses[0] / 2
    large = [jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2) for x in (content, styles)]
    coarse, fine = (painted(held, *large, ONE, evaluations=numbers) for numbers in ((20, 5), (5,)))
    assert coarse[0].shape == (2 * len(STAGES), 32, 40, 3) and fine[0].shape == (len(STAGES), 32, 40, 3)
    assert 25 <= coarse[2][-1] <= 35 and (np.diff(coarse[2]) >= 0).all()
    assert coarse[1][-1] < fine[1][-1] < fine[1][0]  # five steps at full size, from the coarse picture or the content


def test_colours_are_the_contents(held, pictures):
    content, styles = pictures
    made = painted(held, content, styles, ONE, colour="content")[0][-1]
    inside = ((made > 0) & (made < 1)).all(axis=-1)  # where nothing was clipped
    chroma, wanted = (colours.to_yiq(picture)[..., 1:][inside] for picture in (made, content))
    assert inside.mean() > 0.5
    np.testing.assert_allclose(chroma, wanted, atol=1e-4)
    plain, matched = (painted(held, content, styles, ONE, colour=kind)[0][-1] for kind in ("style", "matched"))
    distance = lambda picture: jnp.abs(picture.mean(axis=(0, 1)) - content.mean(axis=(0, 1))).sum()  # noqa: E731
    assert distance(matched) < distance(plain)


@pytest.mark.parity
def test_the_gradient_of_a_picture_is_torchs(held, pictures):
    """Through convolutions, ReLUs and average pooling, by converted weights."""
    torch = pytest.importorskip("torch")
    F, (content, styles) = torch.nn.functional, pictures
    module = NET.clone(pooling="average")
    ours = functools.partial(activations_of(module, SMALL.layers), held)
    targets = find_targets(ours, content, styles[:1], jnp.ones(1), SMALL)
    start = 0.7 * content + 0.3 * styles[1]
    gradient = jax.grad(lambda picture: total_loss(ours, picture, targets, SMALL))(start)

    def features(image):
        mean, deviation = (torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (NET.mean, NET.deviation))
        x, found = ((image - mean) / deviation)[None], {}
        for layer in ("1_1", "2_1", "3_1"):
            params = held["params"][f"conv{layer}"]
            weight = torch.tensor(np.asarray(params["kernel"], np.float64).transpose(3, 2, 0, 1).copy())
            x = F.relu(F.conv2d(x, weight, torch.tensor(np.asarray(params["bias"], np.float64)), padding=1))
            found[f"relu{layer}"] = x[0]
            x = F.avg_pool2d(x, 2)
        return found

    def gram(x):
        flat = x.reshape(len(x), -1)
        return flat @ flat.T

    images = [torch.tensor(np.asarray(x, np.float64).transpose(2, 0, 1).copy()) for x in (start, content, styles[0])]
    images[0].requires_grad_()
    made, wanted, style = map(features, images)
    loss = 0.5 * ((made["relu2_1"] - wanted["relu2_1"]) ** 2).sum()
    for layer in SMALL.style:
        channels, places = made[layer].shape[0], made[layer][0].numel()
        difference = gram(made[layer]) - gram(style[layer])
        loss = loss + 1e3 * 0.5 * (difference**2).sum() / (4 * channels**2 * places**2)
    loss.backward()
    expected = images[0].grad.numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())  # float32 beside float64


# --- recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system(held, pictures):
    recipe = style_transfer.recipe(Network(NET, (16, 16, 3)), SMALL, evaluations=(8,), longest=20)
    content, styles = pictures
    batch = {"image": jnp.stack([content, content]), "also_image": styles, "valid": jnp.array([True, False])}
    state = recipe.init(KEY, batch)
    return recipe, state.replace(frozen={"network": held}), batch


def test_figures_are_of_the_last_stage_and_padding_is_not_painted(system):
    recipe, state, batch = system
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    assert not outputs["stages"][1].any() and outputs["stages"][0].any()
    rows = ({n: np.asarray(v)[:1] for n, v in part.items()} for part in (batch, outputs))
    figures = recipe.score([tuple(rows)])
    assert figures["gram_over_content"] == pytest.approx(outputs["style"][0] / outputs["style_of_content"][0])
    assert 0 < figures["gram_over_content"] < 1 and figures["loss"] == pytest.approx(outputs["loss"][0, -1])


def test_figures_are_measured_by_average_pooling(system, held):
    recipe, state, batch = system
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    losses = {}
    for pooling in ("average", "max"):
        module = NET.clone(pooling=pooling)
        seen = functools.partial(activations_of(module, SMALL.layers), held)
        targets = find_targets(seen, batch["image"][0], batch["also_image"][:1], jnp.ones(1), SMALL)
        pictures = {"style_of_content": batch["image"][0], "style": outputs["stages"][0, -1]}
        losses[pooling] = {name: parts(seen, jnp.asarray(p), targets, SMALL)["style"] for name, p in pictures.items()}
    for name in ("style_of_content", "style"):
        np.testing.assert_allclose(outputs[name][0], losses["average"][name], rtol=1e-4)
        assert abs(outputs[name][0] / losses["max"][name] - 1) > 1e-3


def test_the_first_picture_is_drawn_as_it_was_evaluated(system):
    recipe, state, batch = system
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY))
    shown = recipe.visualise(state, batch, KEY, outputs)
    assert shown["stylised"].shape == (3, 16, 20, 3) and shown["forming"].ndim == 3
    np.testing.assert_array_equal(shown["stylised"][0], batch["image"][0])
    np.testing.assert_array_equal(shown["stylised"][1], batch["also_image"][0])
    np.testing.assert_array_equal(shown["stylised"][2], outputs["stages"][0, -1])


def test_a_style_that_is_the_content_has_no_ratio(system):
    recipe, _, batch = system
    row = {"image": np.asarray(batch["image"][:1])}
    outputs = {
        "style": np.ones(1),
        "style_of_content": np.zeros(1),
        "loss": np.ones((1, 6)),
        "stages": row["image"][:, None],
        "painting": row["image"],
    }
    figures = recipe.score([(row, outputs)])
    assert figures["loss"] == 1 and "gram_over_content" not in figures and "lpips_over_style" not in figures


def test_pictures_of_any_size_are_painted_in_one_style_or_several(system, pictures):
    recipe, state, _ = system
    content, styles = pictures
    large = jnp.repeat(jnp.repeat(content, 2, axis=0), 2, axis=1)[None]
    one = recipe.predict(state, {"image": large, "style": styles[None, 0]}, KEY)["image"]
    assert one.shape == (1, 16, 20, 3)  # 32 x 40, no longer than 20
    inputs = {"image": content[None], "style": styles[None], "weights": np.float32([[1, 0]])}
    blended = recipe.predict(state, inputs, KEY)["image"]
    single = recipe.predict(state, {"image": content[None], "style": styles[None, 0]}, KEY)["image"]
    np.testing.assert_allclose(blended, single, atol=1e-3)
    assert recipe.any_size and recipe.predict_inputs == ("style", "weights") and recipe.train_step is None
    with pytest.raises(UserError, match=r"give --style=FILE"):
        recipe.predict(state, {"image": large}, KEY)
    with pytest.raises(UserError, match=r"3 weights for 2 styles"):
        recipe.predict(state, inputs | {"weights": np.ones((1, 3), np.float32)}, KEY)


def test_sizes_that_a_network_does_not_take_are_stretched_only_if_it_takes_a_single_one():
    digits = Network(DigitClassifier(width=2), (8, 8, 1))
    recipe = style_transfer.recipe(digits, Objective(content=(), style=("conv_1_1",)))
    assert recipe.predict.__self__._size((16, 20, 1)) == (8, 8)
    options = dict(evaluations=(1, 1), longest=64)
    recipe = style_transfer.recipe(Network(Picky(), (16, 16, 3)), Objective((), ("kept",)), **options)
    size = recipe.predict.__self__._size
    assert size((16, 18, 3)) == (16, 18) and size((128, 96, 3)) == (64, 48)
    traced = len(TRACED)
    assert size((16, 18, 3)) == (16, 18) and len(TRACED) == traced  # every frame of a video has the same size
    with pytest.raises(UserError, match=r"does not take pictures of \(4, 9, 3\)"):  # half of 8 x 18
        size((8, 18, 3))


TRACED = []


class Picky(nn.Module):
    """A network that takes images of at least 8 x 8 pixels."""

    @nn.compact
    def __call__(self, images):
        TRACED.append(images.shape)
        if min(images.shape[1:3]) < 8:
            raise ValueError("too small")
        return images.mean(), {"kept": nn.Conv(2, (1, 1))(images)}


def test_faults_of_a_network_are_not_taken_for_its_sizes():
    class Broken(nn.Module):
        @nn.compact
        def __call__(self, images):
            raise KeyError("a fault")

    with pytest.raises(KeyError, match="a fault"):
        style_transfer.find_fault(Network(Broken(), (8, 8, 3)), ("kept",), (8, 8, 3))


@pytest.mark.parametrize("colour", ["content", "matched"])
def test_a_network_of_one_channel_keeps_no_colours(colour):
    with pytest.raises(UserError, match=rf"recipe\.colour='{colour}'.*images of 1 channel"):
        style_transfer.recipe(Network(DigitClassifier(width=2), (8, 8, 1)), colour=colour)


def test_what_cannot_be_painted_is_said_before_anything_compiles(pictures):
    content, styles = pictures
    recipe = style_transfer.recipe(Network(NET, (16, 16, 3)), SMALL)
    with pytest.raises(UserError, match=r"set data\.also"):
        recipe.init(KEY, {"image": content[None]})
    digits = Network(DigitClassifier(width=2), (8, 8, 1))
    recipe = style_transfer.recipe(digits, Objective(content=(), style=("conv_1_1",)))
    with pytest.raises(UserError, match=r"does not take pictures of \(16, 20, 1\); it was trained on \(8, 8, 1\)"):
        recipe.init(KEY, {"image": content[None, ..., :1], "also_image": styles[:1, ..., :1]})
    with pytest.raises(UserError, match=r"there is no layer 'relu9_1'"):
        recipe = style_transfer.recipe(Network(NET, (16, 16, 3)), Objective(style=("relu9_1",)))
        recipe.init(KEY, {"image": content[None], "also_image": styles[:1]})
    with pytest.raises(UserError, match=r"evaluations is empty"):
        style_transfer.recipe(digits, evaluations=())
