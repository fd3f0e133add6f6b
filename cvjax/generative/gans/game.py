"""How every GAN of this family is trained: a generator against a discriminator, with the strategies of `Training`.

Goodfellow et al., Generative Adversarial Nets, 2014 (arXiv:1406.2661), algorithm 1: some steps of the discriminator,
then of the generator: `Game.train_step`. A system's file has its networks and hands them to `assemble`.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from cvjax import core, optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, check_images, descend, variables
from cvjax.errors import UserError
from cvjax.generative.gans.sampling import Sampler
from cvjax.losses import adversarial
from cvjax.losses.strategies import Training
from cvjax.nets.players import Player, advance, get_player, train_apply

Loss = Literal["cross_entropy", "least_squares", "wasserstein", "hinge"]
Images = Float[Array, "batch height width channels"]
Logits = Float[Array, " batch"]
Labels = Int[Array, " batch"] | None


@dataclasses.dataclass(frozen=True)
class Game:
    """A generator against a discriminator: how they start, take turns, are judged and shown.

    Attributes are the arguments of `assemble`, which says what they are, with the optimisers built.
    """

    sampler: Sampler
    discriminator: nn.Module
    loss: Loss
    training: Training
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    joint: bool = False
    penalty: float = 0.0
    clip: float | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks, by their names in the state."""
        return {"generator": self.sampler.generator, "discriminator": self.discriminator}

    @property
    def predict_inputs(self) -> tuple[str, ...]:
        """What `predict` reads beside the image."""
        return ("label",) if self.conditional else ()

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """What `sample` reads beside the count."""
        return self.predict_inputs

    @property
    def conditional(self) -> bool:
        """Whether images are made, and judged, as those of a class."""
        return self.sampler.classes is not None

    def check(self, batch: Batch) -> None:
        """Refuses a batch that the networks cannot take or the steps cannot share."""
        check_images(batch, self.sampler.shape)
        self.training.check_batch(len(batch["image"]))
        if self.conditional and "label" not in batch:
            raise UserError("config.recipe.classes: the dataset has no labels; set it to None, or take one that has.")

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks, their optimisers, and the generator's average."""
        self.check(batch)
        keys, labels = jax.random.split(key), jnp.zeros(1, jnp.int32) if self.conditional else None
        g = self.sampler.generator.init(keys[0], jnp.zeros((1, self.sampler.latent)), labels)
        d = self.discriminator.init(keys[1], jnp.zeros((1, *self.sampler.shape)), labels)
        opt = {
            "generator": self.generator_tx.init(g["params"]),
            "discriminator": self.discriminator_tx.init(d["params"]),
        }
        return core.start({"generator": g, "discriminator": d}, opt, averaged=("generator",))

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes the discriminator's steps, then the generator's against what became of it, then the average's."""
        noise = self.training.noise_level(state.step)
        to_discriminator, to_generator = self.deal(key, batch)
        generator, discriminator = (get_player(state, name) for name in ("generator", "discriminator"))

        step = functools.partial(self.discriminator_step, generator=generator, noise=noise)
        discriminator, metrics = jax.lax.scan(step, discriminator, to_discriminator)

        step = functools.partial(self.generator_step, discriminator=discriminator, noise=noise)
        generator, losses = jax.lax.scan(step, generator, to_generator)

        state = advance(state, {"generator": generator, "discriminator": discriminator}, self.training.ema)
        metrics = {"loss/generator": losses[-1]} | {name: values[-1] for name, values in metrics.items()}
        return state, metrics | ({"noise/standard_deviation": noise} if self.training.instance_noise else {})

    def deal(self, key: Key[Array, ""], batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
        """Deals out the batch, latents and keys: a row to each of the discriminator's steps, and of the generator's.

        Returns:
          (the former's, {"image", "z", "label", "key"}; the latter's, without images).
        """
        latent_key, label_key, d_key, g_key = jax.random.split(key, 4)
        sampler, d_count, g_count = self.sampler, self.training.discriminator_steps, self.training.generator_steps
        images = batch["image"].reshape(d_count, -1, *sampler.shape)
        z = sampler.draw(latent_key, len(batch["image"])).reshape(d_count, -1, sampler.latent)
        labels = batch["label"].reshape(d_count, -1) if self.conditional else None
        to_discriminator = {"image": images, "z": z, "label": labels, "key": jax.random.split(d_key, d_count)}
        if not d_count == g_count == 1:  # else both networks see the same, and the forward pass is shared
            share = len(batch["image"]) // d_count
            z = sampler.draw(jax.random.fold_in(latent_key, 1), g_count * share).reshape(g_count, share, -1)
            labels = jax.random.choice(label_key, batch["label"], (g_count, share)) if self.conditional else None
        return to_discriminator, {"z": z, "label": labels, "key": jax.random.split(g_key, g_count)}

    def discriminator_step(
        self, discriminator: Player, given: Mapping[str, Any], generator: Player, noise: Float[Array, ""]
    ) -> tuple[Player, Metrics]:
        """Takes one step of the discriminator against a generator that stays.

        Args:
          discriminator: before the step.
          given: its row of what `deal` gives.
          generator: whose images it sees.
          noise: standard deviation of the noise on all images.

        Returns:
          (the discriminator afterwards, its loss and more from before).
        """
        z, labels, keys = given["z"], given["label"], jax.random.split(given["key"], 6)
        fake, _ = train_apply(keys[0], self.sampler.generator, generator.params, generator.stats, z, labels)
        real = self.training.add_noise(keys[1], given["image"], noise)
        fake = self.training.add_noise(keys[2], fake, noise)
        discriminator_loss, _ = adversarial.LOSSES[self.loss]
        options = self.training.discriminator_options(keys[4], self.loss, len(real))

        def loss_fn(params):
            real_logits, fake_logits, stats = self.compare(keys[3], params, discriminator.stats, real, fake, labels)
            value = discriminator_loss(real_logits, fake_logits, **options)
            metrics = self.verdicts(real_logits, fake_logits)
            if self.penalty:
                penalties, norms = self.slopes(keys[5], params, stats, real, fake, labels)
                value += self.penalty * penalties.mean()
                metrics |= {"gradient/norm": norms.mean(), "gradient/penalty": penalties.mean()}
            return value, (stats, metrics)

        changed = descend(self.discriminator_tx, loss_fn, discriminator.params, discriminator.opt)
        params, opt, loss, (stats, metrics) = changed
        if self.clip is not None:
            params = adversarial.clip_weights(params, self.clip)
        return Player(params, opt, stats), {"loss/discriminator": loss, **metrics}

    def generator_step(
        self, generator: Player, given: Mapping[str, Any], discriminator: Player, noise: Float[Array, ""]
    ) -> tuple[Player, Float[Array, ""]]:
        """Takes one step of the generator against a discriminator that stays; returns it and its loss from before."""
        z, labels, keys = given["z"], given["label"], jax.random.split(given["key"], 3)
        d_params, _, d_stats = discriminator
        _, generator_loss = adversarial.LOSSES[self.loss]

        def loss_fn(params):
            fake, stats = train_apply(keys[0], self.sampler.generator, params, generator.stats, z, labels)
            fake = self.training.add_noise(keys[1], fake, noise)
            logits, _ = train_apply(keys[2], self.discriminator, d_params, d_stats, fake, labels)
            return generator_loss(logits, **self.training.generator_options()), stats

        params, opt, loss, stats = descend(self.generator_tx, loss_fn, generator.params, generator.opt)
        return Player(params, opt, stats), loss

    def compare(
        self, key: Key[Array, ""], params: PyTree, stats: PyTree, real: Images, fake: Images, labels: Labels
    ) -> tuple[Logits, Logits, PyTree]:
        """Returns the discriminator's logits of real and of generated images, and its statistics afterwards."""
        if self.joint:
            labels = None if labels is None else jnp.concatenate([labels, labels])
            both, stats = train_apply(key, self.discriminator, params, stats, jnp.concatenate([real, fake]), labels)
            return both[: len(real)], both[len(real) :], stats
        keys = jax.random.split(key)
        real_logits, stats = train_apply(keys[0], self.discriminator, params, stats, real, labels)
        fake_logits, stats = train_apply(keys[1], self.discriminator, params, stats, fake, labels)  # a batch of its own
        return real_logits, fake_logits, stats

    def verdicts(self, real_logits: Logits, fake_logits: Logits) -> Metrics:
        """Returns what is shown of the logits: mean probabilities where they are such, else mean scores."""
        name, seen = ("probability", jax.nn.sigmoid) if self.loss == "cross_entropy" else ("score", lambda x: x)
        return {f"{name}/real": seen(real_logits).mean(), f"{name}/fake": seen(fake_logits).mean()}

    def slopes(
        self, key: Key[Array, ""], params: PyTree, stats: PyTree, real: Images, fake: Images, labels: Labels
    ) -> tuple[Logits, Logits]:
        """Returns penalty and norm of the gradient between the images of each pair, as images in [-1, 1]."""
        dropout_key = jax.random.fold_in(key, 1)

        def critic(images):
            return train_apply(dropout_key, self.discriminator, params, stats, (images + 1) / 2, labels)[0]

        return adversarial.gradient_penalty(key, critic, 2 * real - 1, 2 * fake - 1)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, " rows"]]:
        """With a gradient penalty, measures the critic's gradient between each image and a sample."""
        if not self.penalty:
            return {}
        z, labels = self.sampler.draw(key, len(batch["image"])), batch["label"] if self.conditional else None
        fake = self.sampler.generate(variables(state, "generator", averaged=False), z, labels)
        params, _, stats = get_player(state, "discriminator")
        _, norms = self.slopes(jax.random.fold_in(key, 1), params, stats, batch["image"], fake, labels)
        return {"gradient_norm": norms}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """With a gradient penalty, averages the gradient's norm; how far that is from 1 is its error."""
        if not self.penalty:
            return {}
        norm = float(np.concatenate([outputs["gradient_norm"] for _, outputs in rows]).mean(dtype=np.float64))
        return {"gradient_norm": norm, "gradient_error": abs(norm - 1)}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Shows the sampler's figures beside real images."""
        return {**self.sampler.figures(key, state), "real": batch["image"][:64]}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Logits]:
        """Judges images: `logit`, above 0 where they look real, or a critic's `score`."""
        labels = None
        if self.conditional:
            if "label" not in inputs:
                raise UserError("a conditional GAN's discriminator judges an image of a class: give its `label` too.")
            labels = self.sampler.class_labels(inputs["label"], len(inputs["image"]))
        seen = self.discriminate(state, inputs["image"], labels)
        if self.loss == "wasserstein":  # a critic's scores have no zero
            return {"score": seen}
        return {"logit": seen - 0.5 if self.loss == "least_squares" else seen}

    @functools.partial(jax.jit, static_argnums=0)
    def discriminate(self, state: State, images: Images, labels: Labels) -> Logits:
        """Applies the discriminator as after training, compiled."""
        return self.discriminator.apply(variables(state, "discriminator"), images, labels)

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws `count` images by the averaged generator, of the classes `label`, or of all in turn."""
        count = inputs["count"]
        labels = self.sampler.class_labels(inputs.get("label"), count)
        return {"image": self.sampler.make(state, self.sampler.draw(key, count), labels)}


def assemble(
    sampler: Sampler,
    discriminator: nn.Module,
    loss: Loss,
    training: Training,
    generator_optimiser: Mapping[str, Any],
    discriminator_optimiser: Mapping[str, Any],
    *,
    joint: bool = False,
    penalty: float = 0.0,
    clip: float | None = None,
) -> Recipe:
    """Makes the recipe of a GAN from its networks.

    Args:
      sampler: the generator, its latents and classes.
      discriminator: (images in [0, 1], labels or None, train) -> one logit an image.
      loss: of both, by its name in `cvjax.losses.adversarial.LOSSES`.
      training: the strategies.
      generator_optimiser: as `cvjax.optim.build` takes it.
      discriminator_optimiser: likewise.
      joint: the discriminator sees real and generated images in one batch: faster, and right only where it has no batch
        normalisation. Spectral normalisation then iterates once a step.
      penalty: weight of the gradient penalty, on images in [-1, 1]; 0 for none.
      clip: largest magnitude of a weight of the discriminator.

    Returns:
      The recipe. With a penalty its figures are gradient_norm, the mean norm of the critic's gradient between held-out
      images and samples, and gradient_error, how far that is from 1; otherwise there are none.

    Raises:
      UserError: a strategy that the loss cannot use.
    """
    training.check(loss)
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    game = Game(sampler, discriminator, loss, training, *optimisers, joint, penalty, clip)
    return Recipe.of(game)
