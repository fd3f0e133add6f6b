"""How every GAN of this family is trained: a generator against a discriminator, with the strategies of `Training`.

Goodfellow et al., Generative Adversarial Nets, 2014 (arXiv:1406.2661), algorithm 1: some steps of the discriminator,
then of the generator: `Game.train_step`. A system's file has its networks and hands them to `assemble`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from cvjax import core, optim
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, check_images, descend, variables
from cvjax.errors import UserError
from cvjax.generative.gans.sampling import Sampler
from cvjax.losses import adversarial as losses
from cvjax.metrics import digits
from cvjax.signature import Count, Range, Share

Loss = Literal["cross_entropy", "least_squares", "wasserstein", "hinge"]
Images = Float[Array, "batch height width channels"]
Logits = Float[Array, " batch"]
Labels = Int[Array, " batch"] | None


@dataclasses.dataclass(frozen=True)
class Training:
    """The strategies of training, `config.recipe.training` of every GAN.

    Attributes:
      real_label: what the discriminator is to say of real images, or (low, high) for a number drawn for each of them;
        below 1 it is one-sided smoothing (Salimans et al., 2016, arXiv:1606.03498). Only where the loss has labels.
      saturating: the generator minimises log(1 - D(G(z))) in place of -log D(G(z)); cross-entropy only.
      discriminator_steps: of the discriminator in one training step; each sees its own part of the batch.
      generator_steps: of the generator in one training step; each sees as many latents as a discriminator's step does.
      instance_noise: standard deviation, on images in [0, 1], of the Gaussian noise that is added to whatever the
        discriminator sees (Sønderby et al., 2017, arXiv:1610.04490); it falls linearly from the first step on.
      noise_steps: training steps after which there is none any more.
      ema: share of the averaged generator that each step keeps; (1 + step) / (10 + step) where that is less.
    """

    real_label: float | tuple[float, float] = 1.0
    saturating: bool = False
    discriminator_steps: Count = 1
    generator_steps: Count = 1
    instance_noise: Annotated[float, Range(0)] = 0.0
    noise_steps: Count = 10_000
    ema: Share = 0.999

    def noise(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Returns the standard deviation of the noise at a step."""
        return self.instance_noise * (1.0 - jnp.minimum(step / self.noise_steps, 1.0))

    def check(self, loss: str) -> None:
        """Refuses what a loss cannot use."""
        if isinstance(self.real_label, tuple) and self.real_label[0] > self.real_label[1]:
            raise UserError(f"config.recipe.training.real_label={self.real_label}: expected (low, high).")
        if loss not in losses.LABELLED and self.real_label != 1.0:
            raise UserError(
                f"config.recipe.training.real_label={self.real_label}: the {loss} loss has no labels; leave it at 1, "
                f"or take a loss that has: {', '.join(losses.LABELLED)}."
            )
        if loss != "cross_entropy" and self.saturating:
            raise UserError(
                f"config.recipe.training.saturating=True: only the cross_entropy loss saturates, not {loss}; leave it "
                "at False."
            )

    def losses(self, loss: str) -> tuple[Callable, Callable]:
        """Returns the discriminator's loss, of (key, real logits, fake logits), and the generator's, of fake logits."""
        of_discriminator, of_generator = losses.LOSSES[loss]

        def discriminator_loss(key, real_logits, fake_logits):
            if loss not in losses.LABELLED:
                return of_discriminator(real_logits, fake_logits)
            labels = losses.draw_labels(key, len(real_logits), self.real_label)
            return of_discriminator(real_logits, fake_logits, labels)

        def generator_loss(fake_logits):
            return of_generator(fake_logits, True) if self.saturating else of_generator(fake_logits)

        return discriminator_loss, generator_loss


def train_apply(
    key: Key[Array, ""],
    net: nn.Module,
    params: PyTree,
    stats: PyTree,
    *inputs: Float[Array, "..."] | Int[Array, "..."] | None,
) -> tuple[Float[Array, "batch ..."], PyTree]:
    """Applies a network as in training.

    Args:
      key: of dropout.
      net: the network.
      params: its parameters.
      stats: its batch statistics, {} where it has none.
      *inputs: latents or images, and labels or None.

    Returns:
      (what it gives, its statistics afterwards).
    """
    variables = {"params": params, "batch_stats": stats}
    outputs, new = net.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    return outputs, new.get("batch_stats", {})


def repeat(step: Callable, carry: PyTree, given: PyTree, count: int) -> tuple[PyTree, PyTree]:
    """Takes several steps, each with its own row of what is given; one alone is a plain call and no loop.

    Args:
      step: (carry, row) -> (carry, outputs).
      carry: what goes from step to step.
      given: arrays of `count` rows.
      count: how many steps.

    Returns:
      (carry after the last step, its outputs).
    """
    if count == 1:
        return step(carry, jax.tree.map(lambda rows: rows[0], given))
    carry, outputs = jax.lax.scan(step, carry, given)
    return carry, jax.tree.map(lambda rows: rows[-1], outputs)


class Player(NamedTuple):
    """What training changes of one network."""

    params: PyTree
    opt: PyTree  # the state of its optimiser
    stats: PyTree  # its batch statistics, {} where it has none


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
        if len(batch["image"]) % self.training.discriminator_steps:
            raise UserError(
                f"config.data.batch={len(batch['image'])} cannot be shared among "
                f"config.recipe.training.discriminator_steps={self.training.discriminator_steps}: take a multiple."
            )
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
        noise = self.training.noise(state.step)
        to_discriminator, to_generator = self.deal(key, batch)
        generator, discriminator = (
            Player(state.params[name], state.opt[name], state.stats.get(name, {}))
            for name in ("generator", "discriminator")
        )

        step = functools.partial(self.discriminator_step, generator=generator, noise=noise)
        discriminator, metrics = repeat(step, discriminator, to_discriminator, self.training.discriminator_steps)

        step = functools.partial(self.generator_step, discriminator=discriminator, noise=noise)
        generator, loss = repeat(step, generator, to_generator, self.training.generator_steps)

        players = {"generator": generator, "discriminator": discriminator}
        params, opt, stats = ({name: player[field] for name, player in players.items()} for field in range(3))
        state = core.advance(state, params, opt, stats, keep=self.training.ema)
        noise_metric = {"noise/standard_deviation": noise} if self.training.instance_noise else {}
        return state, {"loss/generator": loss, **metrics, **noise_metric}

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
        real, fake = self.disturb(keys[1], given["image"], noise), self.disturb(keys[2], fake, noise)

        def loss_fn(params):
            real_logits, fake_logits, stats = self.compare(keys[3], params, discriminator.stats, real, fake, labels)
            value = self.training.losses(self.loss)[0](keys[4], real_logits, fake_logits)
            metrics = self.verdicts(real_logits, fake_logits)
            if self.penalty:
                penalties, norms = self.slopes(keys[5], params, stats, real, fake, labels)
                value += self.penalty * penalties.mean()
                metrics |= {"gradient/norm": norms.mean(), "gradient/penalty": penalties.mean()}
            return value, (stats, metrics)

        changed = descend(self.discriminator_tx, loss_fn, discriminator.params, discriminator.opt)
        params, opt, loss, (stats, metrics) = changed
        if self.clip is not None:
            params = losses.clip_weights(params, self.clip)
        return Player(params, opt, stats), {"loss/discriminator": loss, **metrics}

    def generator_step(
        self, generator: Player, given: Mapping[str, Any], discriminator: Player, noise: Float[Array, ""]
    ) -> tuple[Player, Float[Array, ""]]:
        """Takes one step of the generator against a discriminator that stays; returns it and its loss from before."""
        z, labels, keys = given["z"], given["label"], jax.random.split(given["key"], 3)
        d_params, _, d_stats = discriminator

        def loss_fn(params):
            fake, stats = train_apply(keys[0], self.sampler.generator, params, generator.stats, z, labels)
            fake = self.disturb(keys[1], fake, noise)
            logits, _ = train_apply(keys[2], self.discriminator, d_params, d_stats, fake, labels)
            return self.training.losses(self.loss)[1](logits), stats

        params, opt, loss, stats = descend(self.generator_tx, loss_fn, generator.params, generator.opt)
        return Player(params, opt, stats), loss

    def disturb(self, key: Key[Array, ""], images: Images, noise: Float[Array, ""]) -> Images:
        """Adds Gaussian noise of a standard deviation to images, if there is to be any noise."""
        return images + noise * jax.random.normal(key, images.shape) if self.training.instance_noise else images

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

        return losses.gradient_penalty(key, critic, 2 * real - 1, 2 * fake - 1)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "rows ..."]]:
        """Makes samples for each image and, with a penalty, measures the critic's slope between it and one of them."""
        outputs = self.sampler.judged(key, state, batch)
        if self.penalty:
            labels = batch["label"] if self.conditional else None
            params, stats = state.params["discriminator"], state.stats.get("discriminator", {})
            fake = outputs["raw_samples"][:, 0]  # of the generator that the critic knows
            places_key = jax.random.fold_in(key, 1)
            outputs["gradient_norm"] = self.slopes(places_key, params, stats, batch["image"], fake, labels)[1]
        return outputs

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Judges the samples and, with a penalty, how far the critic's slope is from 1."""
        figures = self.sampler.score(rows)
        return figures | ({"gradient_error": abs(figures["gradient_norm"] - 1)} if self.penalty else {})

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Shows the sampler's figures beside real images."""
        return {**self.sampler.figures(key, state), "real": batch["image"][:64]}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Logits]:
        """Judges images: `logit`, above 0 where they look real, or a critic's `score`."""
        labels = None
        if self.conditional:
            if "label" not in inputs:
                raise UserError("a conditional GAN's discriminator judges an image of a class: give its `label` too.")
            labels = self.sampler.given_labels(inputs["label"], len(inputs["image"]))
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
        labels = self.sampler.given_labels(inputs.get("label"), count)
        labels = self.sampler.in_turn(count) if labels is None else labels
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
      sampler: the generator, its latents and classes, and how its images are judged.
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
      The recipe. Its figures are the sampler's and, with a penalty, `gradient_norm`: the mean norm of the critic's
      gradient between held-out images and generated ones, and `gradient_error`: how far that is from 1.

    Raises:
      UserError: a strategy that the loss cannot use.
    """
    training.check(loss)
    optimisers = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    game = Game(sampler, discriminator, loss, training, *optimisers, joint, penalty, clip)
    return Recipe.of(game, digits.controls if sampler.measure == "digits" else None)
