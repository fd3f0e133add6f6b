"""Training of a generator against a discriminator: Goodfellow et al., 2014 (arXiv:1406.2661), algorithm 1."""

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
class GAN:
    """The functions of a GAN's recipe; the attributes are the arguments of `make_recipe`, with the optimisers built."""

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
        """Both networks."""
        return {"generator": self.sampler.generator, "discriminator": self.discriminator}

    @property
    def predict_inputs(self) -> tuple[str, ...]:
        """Inputs of `predict` beside the image."""
        return ("label",) if self.conditional else ()

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """Inputs of `sample` beside the count."""
        return self.predict_inputs

    @property
    def conditional(self) -> bool:
        """Whether both networks are given a class label."""
        return self.sampler.classes is not None

    def check(self, batch: Batch) -> None:
        """Raises a UserError if a batch does not suit the networks or the number of steps."""
        check_images(batch, self.sampler.shape)
        self.training.check_batch(len(batch["image"]))
        if self.conditional and "label" not in batch:
            raise UserError("config.recipe.classes: the dataset has no labels; set it to None, or use a labelled one.")

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks, their optimisers and the generator's moving average."""
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
        """Updates the discriminator, then the generator against the new discriminator, then the moving average."""
        noise = self.training.noise_level(state.step)
        discriminator_inputs, generator_inputs = self.split_batch(key, batch)
        generator, discriminator = (get_player(state, name) for name in ("generator", "discriminator"))

        step = functools.partial(self.discriminator_step, generator=generator, noise=noise)
        discriminator, metrics = jax.lax.scan(step, discriminator, discriminator_inputs)

        step = functools.partial(self.generator_step, discriminator=discriminator, noise=noise)
        generator, losses = jax.lax.scan(step, generator, generator_inputs)

        state = advance(state, {"generator": generator, "discriminator": discriminator}, self.training.ema)
        metrics = {"loss/generator": losses[-1]} | {name: values[-1] for name, values in metrics.items()}
        return state, metrics | ({"noise/standard_deviation": noise} if self.training.instance_noise else {})

    def split_batch(self, key: Key[Array, ""], batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
        """Splits a batch among the steps of both networks, each with latents and a key.

        Returns the inputs of both, with a first axis over steps: `z`, `label`, `key`, and the first one's `image`.
        """
        latent_key, label_key, d_key, g_key = jax.random.split(key, 4)
        sampler, d_count, g_count = self.sampler, self.training.discriminator_steps, self.training.generator_steps
        images = batch["image"].reshape(d_count, -1, *sampler.shape)
        z = sampler.draw_latents(latent_key, len(batch["image"])).reshape(d_count, -1, sampler.latent)
        labels = batch["label"].reshape(d_count, -1) if self.conditional else None
        discriminator_inputs = {"image": images, "z": z, "label": labels, "key": jax.random.split(d_key, d_count)}
        if not d_count == g_count == 1:  # with one step each, both use the same latents and share the forward pass
            size = len(batch["image"]) // d_count
            z = sampler.draw_latents(jax.random.fold_in(latent_key, 1), g_count * size).reshape(g_count, size, -1)
            labels = jax.random.choice(label_key, batch["label"], (g_count, size)) if self.conditional else None
        return discriminator_inputs, {"z": z, "label": labels, "key": jax.random.split(g_key, g_count)}

    def discriminator_step(
        self, discriminator: Player, inputs: Mapping[str, Any], generator: Player, noise: Float[Array, ""]
    ) -> tuple[Player, Metrics]:
        """Takes one step against a fixed generator; returns the discriminator and metrics from before the update.

        `inputs` are those of one step from `split_batch`, `noise` is the standard deviation of the instance noise.
        """
        z, labels, keys = inputs["z"], inputs["label"], jax.random.split(inputs["key"], 6)
        fake, _ = train_apply(keys[0], self.sampler.generator, generator.params, generator.stats, z, labels)
        real = self.training.add_noise(keys[1], inputs["image"], noise)
        fake = self.training.add_noise(keys[2], fake, noise)
        discriminator_loss, _ = adversarial.LOSSES[self.loss]
        options = self.training.discriminator_options(keys[4], self.loss, len(real))

        def loss_fn(params):
            real_logits, fake_logits, stats = self.discriminator_logits(
                keys[3], params, discriminator.stats, real, fake, labels
            )
            loss = discriminator_loss(real_logits, fake_logits, **options)
            metrics = self.logit_metrics(real_logits, fake_logits)
            if self.penalty:
                penalties, norms = self.gradient_penalty(keys[5], params, stats, real, fake, labels)
                loss += self.penalty * penalties.mean()
                metrics |= {"gradient/norm": norms.mean(), "gradient/penalty": penalties.mean()}
            return loss, (stats, metrics)

        params, opt, loss, (stats, metrics) = descend(
            self.discriminator_tx, loss_fn, discriminator.params, discriminator.opt
        )
        if self.clip is not None:
            params = adversarial.clip_weights(params, self.clip)
        return Player(params, opt, stats), {"loss/discriminator": loss, **metrics}

    def generator_step(
        self, generator: Player, inputs: Mapping[str, Any], discriminator: Player, noise: Float[Array, ""]
    ) -> tuple[Player, Float[Array, ""]]:
        """Takes one step of the generator against a fixed discriminator; returns it and the loss before the update."""
        z, labels, keys = inputs["z"], inputs["label"], jax.random.split(inputs["key"], 3)
        d_params, _, d_stats = discriminator
        _, generator_loss = adversarial.LOSSES[self.loss]

        def loss_fn(params):
            fake, stats = train_apply(keys[0], self.sampler.generator, params, generator.stats, z, labels)
            fake = self.training.add_noise(keys[1], fake, noise)
            logits, _ = train_apply(keys[2], self.discriminator, d_params, d_stats, fake, labels)
            return generator_loss(logits, **self.training.generator_options()), stats

        params, opt, loss, stats = descend(self.generator_tx, loss_fn, generator.params, generator.opt)
        return Player(params, opt, stats), loss

    def discriminator_logits(
        self, key: Key[Array, ""], params: PyTree, stats: PyTree, real: Images, fake: Images, labels: Labels
    ) -> tuple[Logits, Logits, PyTree]:
        """Returns the logits of real images, those of generated images, and the new batch statistics."""
        if self.joint:
            labels = None if labels is None else jnp.concatenate([labels, labels])
            logits, stats = train_apply(key, self.discriminator, params, stats, jnp.concatenate([real, fake]), labels)
            return logits[: len(real)], logits[len(real) :], stats
        keys = jax.random.split(key)
        real_logits, stats = train_apply(keys[0], self.discriminator, params, stats, real, labels)
        fake_logits, stats = train_apply(keys[1], self.discriminator, params, stats, fake, labels)
        return real_logits, fake_logits, stats

    def logit_metrics(self, real_logits: Logits, fake_logits: Logits) -> Metrics:
        """Returns the mean probability of real and of generated images for cross-entropy, else their mean logit."""
        name, scale = ("probability", jax.nn.sigmoid) if self.loss == "cross_entropy" else ("score", lambda x: x)
        return {f"{name}/real": scale(real_logits).mean(), f"{name}/fake": scale(fake_logits).mean()}

    def gradient_penalty(
        self, key: Key[Array, ""], params: PyTree, stats: PyTree, real: Images, fake: Images, labels: Labels
    ) -> tuple[Logits, Logits]:
        """Returns `adversarial.gradient_penalty` of images rescaled to [-1, 1]: (penalties, gradient norms)."""
        dropout_key = jax.random.fold_in(key, 1)

        def critic(images):
            return train_apply(dropout_key, self.discriminator, params, stats, (images + 1) / 2, labels)[0]

        return adversarial.gradient_penalty(key, critic, 2 * real - 1, 2 * fake - 1)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, " rows"]]:
        """Returns the critic's gradient norm between each image and a sample, if there is a gradient penalty."""
        if not self.penalty:
            return {}
        z, labels = self.sampler.draw_latents(key, len(batch["image"])), batch["label"] if self.conditional else None
        fake = self.sampler.generate(variables(state, "generator", averaged=False), z, labels)
        params, _, stats = get_player(state, "discriminator")
        _, norms = self.gradient_penalty(jax.random.fold_in(key, 1), params, stats, batch["image"], fake, labels)
        return {"gradient_norm": norms}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Returns the mean gradient norm and its distance from 1, if there is a gradient penalty."""
        if not self.penalty:
            return {}
        norm = float(np.concatenate([outputs["gradient_norm"] for _, outputs in rows]).mean(dtype=np.float64))
        return {"gradient_norm": norm, "gradient_error": abs(norm - 1)}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Returns the sampler's figures and real images."""
        return {**self.sampler.figures(key, state), "real": batch["image"][:64]}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Logits]:
        """Returns the discriminator's `logit`, positive for images that look real, or a critic's `score`."""
        labels = None
        if self.conditional:
            if "label" not in inputs:
                raise UserError("the discriminator of a conditional GAN needs the class of each image: pass `label`.")
            labels = self.sampler.class_labels(inputs["label"], len(inputs["image"]))
        logits = self.discriminate(state, inputs["image"], labels)
        if self.loss == "wasserstein":  # a critic's scores have no zero
            return {"score": logits}
        return {"logit": logits - 0.5 if self.loss == "least_squares" else logits}

    @functools.partial(jax.jit, static_argnums=0)
    def discriminate(self, state: State, images: Images, labels: Labels) -> Logits:
        """Applies the discriminator in evaluation mode."""
        return self.discriminator.apply(variables(state, "discriminator"), images, labels)

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Samples `count` images from the averaged generator, of the classes `label` or of all classes in turn."""
        labels = self.sampler.class_labels(inputs.get("label"), inputs["count"])
        z = self.sampler.draw_latents(key, inputs["count"])
        return {"image": self.sampler.generate_averaged(state, z, labels)}


def make_recipe(
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
    """Returns the recipe of a GAN; a UserError says that the loss does not support a strategy.

    With a penalty its figures are `gradient_norm`, the mean norm of the critic's gradient between held-out images and
    samples, and `gradient_error`, its distance from 1; otherwise there are none.

    Args:
      discriminator: (images in [0, 1], labels or None, train) -> one logit per image.
      joint: apply the discriminator to real and generated images in one batch, which is faster. Wrong with batch
        normalisation; with spectral normalisation there is one power iteration per step.
      penalty: weight of the gradient penalty, on images in [-1, 1]; 0 for none.
      clip: largest magnitude of the discriminator's weights.
    """
    training.check(loss)
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    return Recipe.of(GAN(sampler, discriminator, loss, training, *optimisers, joint, penalty, clip))
