"""Colourisation: what the networks see, the lightness that stays, the controls, and what it makes of grey pictures."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import rgb2lab

from cvjax.errors import UserError
from cvjax.translation import colourisation, pix2pix

KEY = jax.random.key(0)
WHITE = 0.02  # L*a*b* differ by this from scikit-image's, whose white is not exactly what red, green and blue sum to


def images(seed, size=(16, 16), channels=3):
    return jnp.float32(np.random.default_rng(seed).uniform(size=(3, *size, channels)))


def small(**changed):
    chosen = dict(depth=4, width=4, field=16, discriminator_width=4, dropout=0.0, test_mode="running")
    return colourisation.recipe(**{**chosen, **changed})


@pytest.fixture(scope="module")
def system():
    """The recipe with the state after two steps on different pictures."""
    recipe = small()
    state, step = jax.jit(recipe.init)(KEY, {"image": images(0)}), jax.jit(recipe.train_step)
    for seed in range(2):
        state, _ = step(state, {"image": images(seed)}, jax.random.fold_in(KEY, seed))
    return recipe, state


def test_the_networks_see_lightness_and_make_colours(system):
    recipe, state = system
    assert state.params["generator"]["down_0"]["kernel"].shape[2] == 1
    assert state.params["generator"]["up_0"]["kernel"].shape[3] == 2
    assert state.params["discriminator"]["conv_0"]["kernel"].shape[2] == 3
    owner = recipe.train_step.__self__
    lab = rgb2lab(np.asarray(images(0)))
    np.testing.assert_allclose(50 * (owner.source(images(0))[..., 0] + 1), lab[..., 0], atol=WHITE)
    np.testing.assert_allclose(110 * owner.target({"image": images(0)}), lab[..., 1:], atol=WHITE)


@pytest.mark.parametrize(("size", "channels"), [((16, 16), 3), ((9, 21), 1)])
def test_pictures_keep_their_lightness_and_size(system, size, channels):
    recipe, state = system
    given = images(5, size, channels)
    made = np.asarray(recipe.predict(state, {"image": given}, KEY)["image"])
    assert made.shape == (3, *size, 3) and made.min() >= 0 and made.max() <= 1
    wanted = rgb2lab(np.broadcast_to(given, made.shape))[..., 0]
    np.testing.assert_allclose(rgb2lab(made)[..., 0], wanted, atol=WHITE)


def test_colours_of_the_input_are_not_seen(system):
    recipe, state = system
    given = images(6)
    made = recipe.predict(state, {"image": given}, KEY)["image"]
    again = recipe.predict(state, {"image": made}, KEY)["image"]  # other colours at the same lightness
    assert np.abs(made - given).max() > 0.1
    np.testing.assert_allclose(again, made, atol=2e-3)


def test_inputs_are_shown_without_their_colours(system):
    recipe, _ = system
    grey = recipe.train_step.__self__.seen(images(6))
    np.testing.assert_allclose(grey, np.broadcast_to(grey[..., :1], grey.shape), atol=1e-5)
    np.testing.assert_allclose(rgb2lab(np.asarray(grey))[..., 0], rgb2lab(np.asarray(images(6)))[..., 0], atol=WHITE)


def test_defaults_are_those_of_pix2pix():
    ours, theirs = (inspect.signature(module.recipe).parameters for module in (colourisation, pix2pix))
    assert set(theirs) - set(ours) == {"channels", "recoloured"}
    assert all(ours[name].default == theirs[name].default for name in ours)


def test_the_control_has_the_mean_colour_of_the_training_pictures(system):
    recipe, state = system
    seen = np.concatenate([rgb2lab(np.asarray(images(seed))) for seed in range(2)])
    mean = seen[..., 1:].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(110 * state.extra["colours"][:, 1:].sum(axis=0), mean, atol=WHITE)
    muted = 0.45 + 0.1 * images(7)  # so that a screen has the mean colour at every lightness
    rows = [({"image": np.asarray(muted)}, jax.device_get(jax.jit(recipe.eval_step)(state, {"image": muted}, KEY)))]
    figures = recipe.score(rows)
    truth, made = (rgb2lab(np.asarray(x))[..., 1:] for x in (muted, rows[0][1]["image"]))
    error, of_mean = np.linalg.norm(made - truth, axis=-1).mean(), np.linalg.norm(mean - truth, axis=-1).mean()
    np.testing.assert_allclose(figures["chroma_error"], error, atol=WHITE)
    np.testing.assert_allclose(figures["chroma_error_of_mean"], of_mean, atol=2 * WHITE)
    np.testing.assert_allclose(figures["chroma_over_mean"], error / of_mean, rtol=0.01)
    assert {"psnr", "ssim", "l1", "saturation_distance"} < set(figures)


def binned(owner, pictures):
    """The bin of lightness of each pixel, and a and b over 110."""
    bins = np.int32(np.asarray(50 * (owner.source(pictures)[..., 0] + 1)) // 5)
    return np.minimum(bins, 19), np.asarray(owner.target({"image": pictures}))


def test_the_mean_colour_of_each_lightness_is_kept_in_training(system):
    recipe, state = system
    bins, colours = binned(recipe.train_step.__self__, jnp.concatenate([images(seed) for seed in range(2)]))
    members = [(bins == number)[..., None] for number in range(20)]
    table = [[x.mean(), *(x * colours).mean(axis=(0, 1, 2))] for x in members]
    np.testing.assert_allclose(state.extra["colours"], table, atol=1e-6)


def test_the_second_control_has_the_mean_colour_of_each_lightness(system):
    recipe, state = system
    owner, ramp = recipe.train_step.__self__, jnp.linspace(0.2, 0.7, 16)[:, None, None]
    seen, shown = (ramp * jnp.array([1, 0.9, 0.7]) + 0.05 * images(seed) for seed in (9, 10))
    shown = shown + 0.1  # has lightness that was not seen
    (bins, colours), (asked, truth) = binned(owner, seen), binned(owner, shown)
    known = [number in bins for number in range(20)]
    means = np.stack([colours[bins == b if known[b] else bins >= 0].mean(axis=0) for b in range(20)])
    assert {known[number] for number in np.unique(asked)} == {True, False}
    table = colourisation.tabulate(owner.source(seen), owner.target({"image": seen}))
    np.testing.assert_allclose(colourisation.look_up(table, owner.source(shown)), means[asked], atol=1e-5)
    state = state.replace(extra={"colours": table, "seen": jnp.float32(1)})
    batch = {"image": np.asarray(shown)}
    figures = recipe.score([(batch, jax.device_get(jax.jit(recipe.eval_step)(state, batch, KEY)))])
    wanted = 110 * np.linalg.norm(means[asked] - truth, axis=-1).mean()
    np.testing.assert_allclose(figures["chroma_error_of_lightness"], wanted, rtol=0.01)
    assert abs(figures["chroma_error_of_lightness"] / figures["chroma_error_of_mean"] - 1) > 0.02
    ratio = figures["chroma_error"] / figures["chroma_error_of_lightness"]
    np.testing.assert_allclose(figures["chroma_over_lightness"], ratio, rtol=1e-6)


def test_evaluation_takes_sizes_that_do_not_suit_the_generator(system):
    recipe, state = system
    odd = {"image": np.asarray(images(3, (17, 21)))}
    outputs = jax.device_get(jax.jit(recipe.eval_step)(state, odd, KEY))
    made = recipe.predict(state, odd, KEY)["image"]
    np.testing.assert_allclose(outputs["image"], made, atol=2e-3)  # chroma is reduced in steps
    assert np.isfinite(recipe.score([(odd, outputs)])["chroma_over_lightness"])


def tinted(grey):
    return jnp.concatenate([grey, 0.7 * grey, 0.4 * grey], axis=-1)


def test_colours_that_follow_lightness_are_no_merit_beside_the_second_control(system):
    recipe, _ = system
    pictures = tinted(images(8, channels=1))
    source, colours = (
        recipe.train_step.__self__.source(pictures),
        recipe.train_step.__self__.target({"image": pictures}),
    )
    table = colourisation.tabulate(source, colours)
    np.testing.assert_allclose(table[:, 0].sum(), 1, rtol=1e-5)
    by_table = jnp.linalg.norm(colourisation.look_up(table, source) - colours, axis=-1).mean()
    by_mean = jnp.linalg.norm(table[:, 1:].sum(axis=0) - colours, axis=-1).mean()
    assert by_table < 0.25 * by_mean


def test_a_colour_that_depends_on_lightness_is_learnt():
    warm = tinted(images(8, channels=1))
    recipe = small(adversarial=0.0, generator_optimiser={"name": "adam", "learning_rate": 1e-2})
    state, step = jax.jit(recipe.init)(KEY, {"image": warm}), jax.jit(recipe.train_step)
    for index in range(60):
        state, metrics = step(state, {"image": warm}, jax.random.fold_in(KEY, index))
    assert metrics["loss/l1"] < 0.05


def test_grey_pictures_teach_no_colours():
    with pytest.raises(UserError, match="learns from pictures in colour; these have 1 channel"):
        jax.eval_shape(small().init, KEY, {"image": images(0, channels=1)})
    with pytest.raises(UserError, match=r"16x24.*multiples of 16"):
        jax.eval_shape(small().init, KEY, {"image": images(0, (16, 24))})
