"""DDPM of images in two classes, by a network that knows the best denoiser of Gaussians but for their means."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvjax.core import Recipe
from cvjax.errors import UserError
from cvjax.generative.diffusion import ddpm
from cvjax.generative.diffusion.process import Process
from cvjax.generative.diffusion.samplers import sample_ancestral
from cvjax.generative.diffusion.unet import Architecture

SHAPE, KEY, LEVELS = (2, 2, 1), jax.random.key(0), 41
PROCESS = Process(steps=40)
MEANS = jnp.array([0.3, 0.7])  # of the classes, as images
WITHIN = 0.05  # deviation of a class


class Gaussians(nn.Module):
    """The noise in Gaussians, one per class and a wider one of all, whose means are learned."""

    classes: int | None = 2
    outputs: int = 1

    @nn.compact
    def __call__(self, noisy, steps, labels=None, train=False):
        means = self.param("means", nn.initializers.zeros, (3,))
        labels = jnp.full(len(noisy), 2) if labels is None else labels
        mean, deviation = means[labels][:, None, None, None], 2 * jnp.array([WITHIN, WITHIN, 0.1])[labels]
        variance = deviation[:, None, None, None] ** 2
        level = jnp.asarray(PROCESS.alpha_bars)[steps][:, None, None, None]
        gain = jnp.sqrt(level) * variance / (level * variance + 1 - level)
        clean = mean + gain * (noisy - jnp.sqrt(level) * mean)
        noise = (noisy - jnp.sqrt(level) * clean) / jnp.sqrt(1 - level)
        return jnp.concatenate([noise, jnp.zeros_like(noise)], axis=-1)[..., : self.outputs]


SYSTEM = ddpm.DDPM(
    unet=Gaussians(),
    shape=SHAPE,
    label_dropout=0.3,
    levels=LEVELS,
    bound_steps=10,
    process=PROCESS,
    sampling=ddpm.Sampling(),
    strength=0.5,
    repeats=2,
    ema=0.9,
    tx=optax.adam(3e-2),
)
made = functools.partial(dataclasses.replace, SYSTEM)


def draw_batch(key, count=64):
    label_key, noise_key = jax.random.split(key)
    label = jax.random.bernoulli(label_key, 0.5, (count,)).astype(jnp.int32)
    images = MEANS[label][:, None, None, None] + WITHIN * jax.random.normal(noise_key, (count, *SHAPE))
    return {"image": jnp.clip(images, 0, 1), "label": label}


@pytest.fixture(scope="module")
def trained():
    state = SYSTEM.init(KEY, draw_batch(KEY))

    @jax.jit
    def run(state, keys):
        return jax.lax.scan(lambda s, key: SYSTEM.train_step(s, draw_batch(key), key), state, keys)

    return run(state, jax.random.split(KEY, 300))[0]


def mean_of(images, rows=slice(None)):
    return float(np.asarray(images)[rows].mean())


# --- training -------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_squared_error_of_the_noise_at_uniform_steps():
    batch, key = draw_batch(KEY), jax.random.key(7)
    state = SYSTEM.init(KEY, batch).replace(params={"unet": {"means": jnp.array([-0.4, 0.4, 0.0])}})
    after, metrics = jax.jit(SYSTEM.train_step)(state, batch, key)
    step_key, noise_key, label_key, _ = jax.random.split(key, 4)
    steps = np.asarray(jax.random.randint(step_key, (64,), 0, 40))
    noise = np.asarray(jax.random.normal(noise_key, (64, *SHAPE)))
    dropped = np.asarray(jax.random.bernoulli(label_key, 0.3, (64,)))
    label, level = np.where(dropped, 2, batch["label"]), PROCESS.alpha_bars[steps].astype(np.float64)
    clean = 2 * np.round(np.asarray(batch["image"]) * 40) / 40 - 1  # of 41 levels, from -1 to 1
    errors = []
    for row in range(64):
        noisy = np.sqrt(level[row]) * clean[row] + np.sqrt(1 - level[row]) * noise[row]
        mean, variance = (-0.4, 0.4, 0.0)[label[row]], (0.1, 0.1, 0.2)[label[row]] ** 2
        found = mean + np.sqrt(level[row]) * variance / (level[row] * variance + 1 - level[row]) * (
            noisy - np.sqrt(level[row]) * mean
        )
        errors.append((noise[row] - (noisy - np.sqrt(level[row]) * found) / np.sqrt(1 - level[row])) ** 2)
    np.testing.assert_allclose(metrics["loss/total"], np.mean(errors), rtol=1e-4)
    assert steps.min() < 4 and steps.max() > 35 and 5 < dropped.sum() < 40
    assert int(after.step) == 1 and after.average.keys() == {"unet"}


def test_training_finds_the_means_and_averages_them(trained):
    np.testing.assert_allclose(trained.params["unet"]["means"], [-0.4, 0.4, 0.0], atol=0.1)
    average = trained.average["unet"]["params"]["means"]
    np.testing.assert_allclose(average, [-0.4, 0.4, 0.0], atol=0.08)
    assert not np.array_equal(average, trained.params["unet"]["means"])


def test_a_learned_variance_has_a_loss_of_its_own(trained):
    system = made(unet=Gaussians(outputs=2), tx=optax.sgd(0.0))
    state = trained.replace(opt={"unet": system.tx.init(trained.params["unet"])})
    simple, hybrid = (
        jax.jit(each.train_step)(state, draw_batch(KEY), KEY)[1]["loss/total"] for each in (made(tx=system.tx), system)
    )
    assert 1e-4 < hybrid - simple < 0.1
    *_, share = system.denoise(trained, None)(jnp.zeros((2, *SHAPE)), jnp.int32(3))
    np.testing.assert_array_equal(share, jnp.full((2, *SHAPE), 0.5))  # a network's 0 is halfway between the variances


# --- figures --------------------------------------------------------------------------------------------------------


def test_figures_know_the_class(trained):
    batch = draw_batch(jax.random.key(5), 256)
    evaluate = jax.jit(SYSTEM.eval_step)
    figures = SYSTEM.score([(batch, jax.device_get(evaluate(trained, batch, KEY)))])
    wrong = batch | {"label": 1 - batch["label"]}
    others = SYSTEM.score([(wrong, jax.device_get(evaluate(trained, wrong, KEY)))])
    assert figures.keys() == {"denoising_error", "bits_per_dim", "gflops_per_sample"}
    assert others["denoising_error"] > 1.5 * figures["denoising_error"]
    entropy = np.log2(WITHIN * np.sqrt(2 * np.pi * np.e) / 0.025)  # of a class, in bins of 0.025
    assert entropy < figures["bits_per_dim"] < entropy + 1.2 < np.log2(41) < others["bits_per_dim"]


# --- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        ddpm.Sampling(),
        ddpm.Sampling("ddpm", steps=20, variance="small"),
        ddpm.Sampling("ddim", steps=20),
        ddpm.Sampling("dpm_solver", steps=10),
    ],
)
def test_samples_are_of_their_class_and_the_same_for_a_key(trained, sampling):
    system, labels = made(sampling=sampling), np.arange(400) % 2
    draw = functools.partial(system.sample, trained)
    found = draw(KEY, {"count": 400, "label": labels})["image"]
    assert found.shape == (400, *SHAPE) and found.min() >= 0 and found.max() <= 1
    for label in (0, 1):
        assert abs(mean_of(found, labels == label) - MEANS[label]) < 0.03
    np.testing.assert_array_equal(found, draw(KEY, {"count": 400, "label": labels})["image"])
    assert not np.array_equal(found, draw(jax.random.key(1), {"count": 400, "label": labels})["image"])
    assert abs(mean_of(draw(KEY, {"count": 400})["image"]) - 0.5) < 0.08  # without a label, of all classes


def test_all_steps_of_the_ancestral_sampler_are_taken_in_signals(trained):
    found = SYSTEM.sample(trained, KEY, {"count": 3})["image"]
    start_key, step_key = jax.random.split(KEY)
    start, denoise = jax.random.normal(start_key, (3, *SHAPE)), SYSTEM.denoise(trained, None)
    visited = np.arange(40)[::-1]
    expected, _ = sample_ancestral(step_key, start, denoise, SYSTEM.alpha_bars, visited, "large", 1.0)
    np.testing.assert_allclose(found, jnp.clip((expected + 1) / 2, 0, 1), atol=1e-5)


def test_samples_are_of_the_averaged_network(trained):
    moved = trained.replace(params={"unet": {"means": jnp.array([0.9, 0.9, 0.9])}})
    inputs = {"count": 16, "label": np.arange(16) % 2}
    np.testing.assert_array_equal(
        SYSTEM.sample(moved, KEY, inputs)["image"], SYSTEM.sample(trained, KEY, inputs)["image"]
    )
    raw = SYSTEM.sample(moved.replace(average={}), KEY, inputs)["image"]
    assert abs(mean_of(raw) - 0.95) < 0.05


def test_guidance_moves_samples_away_from_the_other_class(trained):
    labels = np.arange(200) % 2
    gaps = []
    for weight in (0.0, 2.0):
        system = made(sampling=ddpm.Sampling("ddim", steps=10, guidance=weight))
        drawn = system.sample(trained, KEY, {"count": 200, "label": labels})["image"]
        gaps.append(mean_of(drawn, labels == 1) - mean_of(drawn, labels == 0))
    assert gaps[1] > gaps[0] + 0.02


def test_guidance_is_given_for_each_image_or_by_the_sampler(trained):
    inputs = {"count": 4, "label": np.array([0, 1, 0, 1])}
    plain, guided = (
        made(sampling=ddpm.Sampling("ddim", steps=4, guidance=weight)).sample(trained, KEY, inputs)["image"]
        for weight in (0.0, 2.0)
    )
    system = made(sampling=ddpm.Sampling("ddim", steps=4, guidance=1.0))  # what is given goes before it
    found = system.sample(trained, KEY, inputs | {"guidance": np.float32([0, 2, 2, 0])})["image"]
    np.testing.assert_allclose(found, jnp.stack([plain[0], guided[1], guided[2], plain[3]]), atol=1e-5)
    assert jnp.abs(plain - guided).max() > 0.01
    assert system.sample_inputs == ("label", "guidance") and made(unet=Gaussians(None)).sample_inputs == ()


# --- given images ---------------------------------------------------------------------------------------------------


def test_filling_in_keeps_known_pixels_and_fits_the_rest_to_the_class(trained):
    image = draw_batch(jax.random.key(6))["image"]
    mask = jnp.zeros((64, 2, 2, 1)).at[:, 1].set(1.0)
    inputs = {"image": image, "mask": mask, "label": np.ones(64, np.int32)}
    found = SYSTEM.predict(trained, inputs, KEY)["image"]
    np.testing.assert_array_equal(found[:, 0], image[:, 0])
    assert abs(mean_of(found[:, 1]) - 0.7) < 0.05
    hidden = inputs | {"image": image.at[:, 1].set(0.0)}  # what is below the mask is not read
    np.testing.assert_array_equal(found, SYSTEM.predict(trained, hidden, KEY)["image"])
    assert SYSTEM.predict_inputs == ("mask", "noise", *SYSTEM.sample_inputs)
    assert made(unet=Gaussians(None)).predict_inputs == ("mask", "noise")


def test_edits_change_more_the_stronger_they_are(trained):
    image, changes = draw_batch(jax.random.key(6))["image"], []
    for strength in (0.0, 0.1, 1.0):
        edited = made(strength=strength).predict(trained, {"image": image}, KEY)["image"]
        changes.append(float(jnp.square(edited - image).mean()))
    edited = made(strength=1.0).predict(trained, {"image": image, "label": np.ones(64, np.int32)}, KEY)["image"]
    assert changes[0] < 1e-10 and 1e-4 < changes[1] < 0.5 * changes[2]
    assert abs(mean_of(edited) - 0.7) < 0.03  # at full strength nothing is left of the image but its label


def test_pictures(trained):
    batch = draw_batch(KEY, 8)
    shown = SYSTEM.visualise(trained, batch, KEY)
    assert shown.keys() == {"samples", "chain", "edits", "completions", "classes", "guidance"}
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in shown.values())
    assert shown["samples"].shape == (64, *SHAPE)
    rows = np.asarray(shown["classes"]).reshape(2, 50, 8, 50)[:, 1:49, :, 1:49]
    np.testing.assert_allclose(rows.mean(axis=(1, 2, 3)), MEANS, atol=0.04)
    rows = np.asarray(shown["guidance"]).reshape(4, 50, 8, 50)[:3, 1:49, :, 1:49].mean(axis=(1, 3))
    assert (np.diff(rows[:, 1::2].mean(axis=1)) > 0).all() and (np.diff(rows[:, ::2].mean(axis=1)) < 0).all()
    cells = np.asarray(shown["completions"]).reshape(8, 50, 4, 50)[:, 1:49, :, 1:49]
    whole, known, first, second = cells.transpose(2, 0, 1, 3)
    np.testing.assert_array_equal(whole[:, :24], first[:, :24])
    assert (known[:, 24:] == 0.5).all() and np.abs(first[:, 24:] - second[:, 24:]).max() > 0.01


def test_noise_of_a_known_deviation_is_removed_towards_the_class(trained):
    image, noise = (
        0.3 + WITHIN * jax.random.normal(KEY, (64, *SHAPE)),
        jax.random.normal(jax.random.key(8), (64, *SHAPE)),
    )
    inputs = {"image": image + 0.1 * noise, "noise": np.full(64, 0.1, np.float32)}
    error = {}
    for label in (0, 1):
        found = SYSTEM.predict(trained, inputs | {"label": np.full(64, label)}, KEY)["image"]
        error[label] = float(jnp.square(found - image).mean())
    best = 1 / (1 / WITHIN**2 + 1 / 0.1**2)  # the error of the posterior's mean
    assert 0.8 * best < error[0] < 1.4 * best and error[1] > 0.01  # the noise's own; the wrong class is worse


# --- arguments ------------------------------------------------------------------------------------------------------


def test_the_recipe_by_default_is_the_papers():
    found = ddpm.recipe((32, 32, 3))
    system = found.sample.__self__
    assert isinstance(found, Recipe) and system.unet.architecture == Architecture()
    assert (system.ema, system.sampling.sampler, len(system.visited)) == (0.9999, "ddpm", 1000)
    assert ddpm.recipe((32, 32, 3), learn_variance=True).networks["unet"].outputs == 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "is not a multiple of 8"),
        ({"shape": (32, 32, 3), "sampling": ddpm.Sampling(steps=1001)}, "only 1,000 steps"),
        ({"shape": (32, 32, 3), "sampling": ddpm.Sampling(guidance=1.0)}, "nothing to guide towards"),
        ({"shape": (32, 32, 3), "sampling": ddpm.Sampling(eta=0.5)}, 'only sampler="ddim" has it, not "ddpm"'),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    with pytest.raises(UserError, match=message):
        ddpm.recipe(**{"shape": (28, 28, 1)} | arguments)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"\(4, 4, 1\), but config.recipe.shape=\(2, 2, 1\)"):
        SYSTEM.init(KEY, {"image": jnp.zeros((2, 4, 4, 1))})
