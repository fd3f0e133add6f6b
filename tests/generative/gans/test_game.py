"""Every strategy of training changes what it should and nothing else, on the smallest GAN there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import config
from cvjax.errors import UserError
from cvjax.generative.gans import game, gan, sagan, wgan
from cvjax.losses import adversarial as losses
from cvjax.losses.strategies import Training

SHAPE, LATENT, BATCH = (4, 4, 1), 3, 12
SGD = {"name": "sgd", "learning_rate": 0.5}
KEY = jax.random.key(5)


def make(training, **options):
    return gan.recipe(
        SHAPE,
        "dense",
        latent=LATENT,
        hidden=(6, 4),
        dropout=0.0,
        training=training,
        generator_optimiser=SGD,
        discriminator_optimiser=SGD,
        **options,
    )


@pytest.fixture(scope="module")
def batch():
    images = jax.random.uniform(jax.random.key(7), (BATCH, *SHAPE))
    return {"image": images, "label": jnp.arange(BATCH) % 3}


@pytest.fixture(scope="module")
def stepped(batch):
    """Training -> (state before, state after, metrics) of one step, each compiled once."""
    done = {}

    def step(training, at=0, **options):
        name = (training, at, *options.items())
        if name not in done:
            recipe = make(training, **options)
            state = recipe.init(jax.random.key(0), batch).replace(step=jnp.int32(at))
            done[name] = (state, *jax.jit(recipe.train_step)(state, batch, KEY))
        return done[name]

    return step


def different(one, two):
    return max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True))


def by_hand(state, batch, d_count, g_count):
    """The same step by plain SGD, one descent after the other."""
    generator, discriminator = gan.DenseGenerator(SHAPE, 6), gan.DenseDiscriminator(4, 0.0)
    latent_key = jax.random.split(KEY, 4)[0]
    share = BATCH // d_count
    z = jax.random.uniform(latent_key, (BATCH, LATENT), minval=-1.0, maxval=1.0).reshape(d_count, share, LATENT)
    g, d = state.params["generator"], state.params["discriminator"]

    def d_loss(d, images, z):
        fake = generator.apply({"params": g}, z)
        logits = [discriminator.apply({"params": d}, seen) for seen in (images, fake)]
        return losses.cross_entropy_discriminator_loss(*logits)

    def g_loss(g, z):
        return losses.cross_entropy_generator_loss(
            discriminator.apply({"params": d}, generator.apply({"params": g}, z))
        )

    for images, latents in zip(batch["image"].reshape(d_count, share, *SHAPE), z, strict=True):
        d = jax.tree.map(lambda p, s: p - 0.5 * s, d, jax.grad(d_loss)(d, images, latents))
    if (d_count, g_count) != (1, 1):
        fresh = jax.random.fold_in(latent_key, 1)
        z = jax.random.uniform(fresh, (g_count * share, LATENT), minval=-1.0, maxval=1.0).reshape(g_count, share, -1)
    for latents in z:
        g = jax.tree.map(lambda p, s: p - 0.5 * s, g, jax.grad(g_loss)(g, latents))
    return {"generator": g, "discriminator": d}


@pytest.mark.parametrize("d_count, g_count", [(1, 1), (3, 1), (1, 2)])
def test_steps_are_descents_one_after_the_other(stepped, batch, d_count, g_count):
    before, after, _ = stepped(Training(discriminator_steps=d_count, generator_steps=g_count))
    expected = by_hand(before, batch, d_count, g_count)
    assert different(after.params, before.params) > 1e-3
    for ours, theirs in zip(jax.tree.leaves(after.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)  # float32, updates of about 1e-2
    assert after.step == 1


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_compiles(batch):
    recipe = make(Training(discriminator_steps=5))
    with pytest.raises(UserError, match=r"data\.batch=12: .*discriminator_steps=5"):
        jax.eval_shape(recipe.init, KEY, batch)
    recipe = make(Training(), classes=3)
    with pytest.raises(UserError, match=r"recipe\.classes: the dataset has no labels"):
        jax.eval_shape(recipe.init, KEY, {"image": batch["image"]})


def test_noise_changes_the_step_until_it_has_decayed(stepped):
    training = Training(instance_noise=0.5, noise_steps=100)
    silent = stepped(Training())[1]
    assert different(stepped(training)[1].params["discriminator"], silent.params["discriminator"]) > 1e-3
    assert different(stepped(training)[1].params["generator"], silent.params["generator"]) > 1e-5
    assert stepped(training)[2]["noise/standard_deviation"] == 0.5
    np.testing.assert_array_equal(different(stepped(training, at=100)[1].params, silent.params), 0)


def test_noise_reaches_real_and_generated_images_of_the_stated_height(batch):
    """A discriminator that shows what it sees."""
    seen = []

    class Mirror(gan.nn.Module):
        @gan.nn.compact
        def __call__(self, images, labels=None, train=False):
            jax.debug.callback(lambda pixels: seen.append(np.asarray(pixels)), images)
            return gan.nn.Dense(1)(images.reshape(len(images), -1))[:, 0]

    big = {"image": jnp.full((64, 16, 16, 1), 0.9)}  # brighter than what is generated: callbacks have no order
    generator = gan.DenseGenerator((16, 16, 1), 6)
    sampler = game.Sampler(generator, (16, 16, 1), LATENT)
    recipe = game.make_recipe(sampler, Mirror(), "cross_entropy", Training(instance_noise=0.2), SGD, SGD)
    state = recipe.init(KEY, big)
    seen.clear()
    recipe.train_step(state, big, KEY)
    jax.effects_barrier()
    real = next(pixels for pixels in seen if abs(pixels.mean() - 0.9) < 0.01 and pixels.std() > 0.1)
    assert real.std() == pytest.approx(0.2, rel=0.02)  # 16,384 draws: a standard error of .6 %
    assert len(seen) >= 3 and all(pixels.std() > 0.19 for pixels in seen)


def test_the_saturating_loss_is_the_other_form(stepped):
    plain, saturating = stepped(Training()), stepped(Training(saturating=True))
    assert different(plain[1].params["discriminator"], saturating[1].params["discriminator"]) == 0
    assert different(plain[1].params["generator"], saturating[1].params["generator"]) > 1e-6
    # The latents are the same: log(1 - D) and -log D of the same logits, at first near 0, where both are log 2
    assert plain[2]["loss/generator"] > 0 > saturating[2]["loss/generator"]
    moved = [
        jax.tree.map(lambda a, b: b - a, before.params["generator"], after.params["generator"])
        for before, after, _ in (plain, saturating)
    ]
    along = sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, moved), strict=True))
    assert along > 0  # both push the same way


def test_without_memory_the_average_is_the_generator(stepped):
    _, after, _ = stepped(Training(ema=0.0))
    assert different(after.average["generator"]["params"], after.params["generator"]) < 1e-7
    _, after, _ = stepped(Training())
    assert different(after.average["generator"]["params"], after.params["generator"]) > 1e-6


def test_what_a_loss_cannot_use_is_refused():
    for system in (wgan, sagan):
        with pytest.raises(UserError, match=r"training\.real_label=.*no labels"):
            system.recipe((8, 8, 1), base=2, training=Training(real_label=0.9), **small(system))
    with pytest.raises(UserError, match=r"training\.saturating=True"):
        make(Training(saturating=True), loss="least_squares")


def small(system):
    return {"attention": 4} if system is sagan else {}


@pytest.mark.parametrize("system", ["gan", "wgan", "sagan"])
def test_every_gan_takes_every_strategy_from_a_config(system):
    options = dict(shape=(8, 8, 1), base=2, training=dict(instance_noise=0.1))
    options |= {"attention": 4} if system == "sagan" else {}
    experiment = config.experiment(f"generative.gans.{system}", recipe=options)
    experiment.recipe.training.generator_steps = 2  # as a flag does
    chosen = experiment.to_dict()["recipe"]["training"]
    default = {"gan": 1, "wgan": 5, "sagan": 1}[system]
    wanted = Training(instance_noise=0.1, generator_steps=2, discriminator_steps=default)
    assert Training(**chosen) == wanted
    config.build(experiment)
    with pytest.raises(UserError, match=r"config\.recipe\.training\.generator_step: .*'generator_steps'"):
        config.experiment(f"generative.gans.{system}", recipe=options | {"training": {"generator_step": 2}})
    for key, value, expected in [
        ("generator_steps", 0, "int at least 1"),
        ("ema", 2.0, "from 0 to 1"),
        ("instance_noise", -1.0, "at least 0"),
        ("real_label", "high", r"float \| tuple"),
    ]:
        broken = config.as_dict(experiment) | {"recipe": options | {"training": chosen | {key: value}}}
        with pytest.raises(UserError, match=rf"config\.recipe\.training\.{key}=.*{expected}"):
            config.build(broken)
    with pytest.raises(UserError, match=r"config\.recipe\.training=3: expected a group of keys, real_label, "):
        config.build(config.as_dict(experiment) | {"recipe": options | {"training": 3}})


def test_least_squares_descends_by_its_own_losses(stepped, batch):
    """The metric is half a mean square, and logits count as scores: there is no sigmoid."""
    before, _, metrics = stepped(Training(), loss="least_squares")
    discriminator = gan.DenseDiscriminator(4, 0.0)
    z = jax.random.uniform(jax.random.split(KEY, 4)[0], (BATCH, LATENT), minval=-1.0, maxval=1.0)
    fake = gan.DenseGenerator(SHAPE, 6).apply({"params": before.params["generator"]}, z)
    real, fake = (
        discriminator.apply({"params": before.params["discriminator"]}, seen) for seen in (batch["image"], fake)
    )
    expected = (np.square(real - 1).mean() + np.square(fake).mean()) / 2
    np.testing.assert_allclose(metrics["loss/discriminator"], expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["score/real"], real.mean(), rtol=1e-5)
    assert "probability/real" not in metrics


def test_an_image_is_judged_with_its_own_label(stepped, batch):
    before, _, metrics = stepped(Training(), classes=3)
    discriminator = gan.DenseDiscriminator(4, 0.0, 3)
    params = {"params": before.params["discriminator"]}
    right, wrong = (
        jax.nn.sigmoid(discriminator.apply(params, batch["image"], labels)).mean()
        for labels in (batch["label"], (batch["label"] + 1) % 3)
    )
    np.testing.assert_allclose(metrics["probability/real"], right, rtol=1e-5)
    assert abs(right - wrong) > 1e-4


def test_images_are_drawn_of_the_classes_asked_for_or_of_all_in_turn(batch):
    recipe = make(Training(), classes=3)
    state = recipe.init(jax.random.key(0), batch)
    generator = gan.DenseGenerator(SHAPE, 6, 3)
    z = jax.random.uniform(KEY, (5, LATENT), minval=-1.0, maxval=1.0)
    for given, labels in [({}, [0, 1, 2, 0, 1]), ({"label": np.array([2, 2, 0, 1, 1])}, [2, 2, 0, 1, 1])]:
        images = recipe.sample(state, KEY, {"count": 5, **given})["image"]
        expected = generator.apply({"params": state.params["generator"]}, z, jnp.array(labels))
        np.testing.assert_allclose(images, expected, atol=1e-6)
    logits = recipe.predict(state, batch, KEY)["logit"]
    discriminator = gan.DenseDiscriminator(4, 0.0, 3)
    params = {"params": state.params["discriminator"]}
    np.testing.assert_allclose(logits, discriminator.apply(params, batch["image"], batch["label"]), atol=1e-6)
    assert recipe.sample_inputs == recipe.predict_inputs == ("label",)


def test_a_label_is_asked_for_where_there_are_classes(batch):
    plain, conditional = make(Training()), make(Training(), classes=3)
    assert plain.sample_inputs == plain.predict_inputs == ()
    state = jax.eval_shape(conditional.init, KEY, batch)
    with pytest.raises(UserError, match="pass `label`"):
        conditional.predict(state, {"image": batch["image"]}, KEY)
    with pytest.raises(UserError, match="trained without classes"):
        plain.sample(state, KEY, {"count": 1, "label": [0]})
