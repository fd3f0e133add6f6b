"""How every GAN of this family is trained: a generator against a discriminator, with the strategies of `Training`.

Goodfellow et al., Generative Adversarial Nets, 2014 (arXiv:1406.2661), algorithm 1: some steps of the discriminator,
then of the generator, each a call of `descend`. A system's file has its networks and hands them to `assemble`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from cvjax import optim
from cvjax.core import Recipe, State, check_images, descend
from cvjax.errors import UserError
from cvjax.generative.sampling import Sampler
from cvjax.losses import adversarial as losses
from cvjax.metrics import digits
from cvjax.signature import Count, Range, Share

Loss = Literal["cross_entropy", "least_squares", "wasserstein", "hinge"]


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
    generator, shape, conditional = sampler.generator, sampler.shape, sampler.classes is not None
    discriminator_loss, generator_loss = training.losses(loss)
    generator_tx, discriminator_tx = optim.build(generator_optimiser), optim.build(discriminator_optimiser)
    d_count, g_count = training.discriminator_steps, training.generator_steps
    seen_as = ("probability", jax.nn.sigmoid) if loss == "cross_entropy" else ("score", lambda logits: logits)

    def init(key, batch):
        check_images(batch, shape)
        if len(batch["image"]) % d_count:
            raise UserError(
                f"config.data.batch={len(batch['image'])} cannot be shared among "
                f"config.recipe.training.discriminator_steps={d_count}: take a multiple."
            )
        if conditional and "label" not in batch:
            raise UserError("config.recipe.classes: the dataset has no labels; set it to None, or take one that has.")
        keys, labels = jax.random.split(key), jnp.zeros(1, jnp.int32) if conditional else None
        g = generator.init(keys[0], jnp.zeros((1, sampler.latent)), labels)
        d = discriminator.init(keys[1], jnp.zeros((1, *shape)), labels)
        params = {"generator": g["params"], "discriminator": d["params"]}
        stats = {"generator": g.get("batch_stats", {}), "discriminator": d.get("batch_stats", {})}
        average = {"params": g["params"], "batch_stats": stats["generator"]}
        opt = {"generator": generator_tx.init(g["params"]), "discriminator": discriminator_tx.init(d["params"])}
        extra = {"batch_stats": stats, "ema": {"generator": jax.tree.map(jnp.copy, average)}}
        return State(step=jnp.int32(0), params=params, opt=opt, extra=extra)

    def compare(params, stats, real, fake, labels, key):
        """The discriminator's logits of real and of generated images, and its statistics."""
        if joint:
            labels = None if labels is None else jnp.concatenate([labels, labels])
            both, stats = train_apply(key, discriminator, params, stats, jnp.concatenate([real, fake]), labels)
            return both[: len(real)], both[len(real) :], stats
        keys = jax.random.split(key)
        real_logits, stats = train_apply(keys[0], discriminator, params, stats, real, labels)
        fake_logits, stats = train_apply(keys[1], discriminator, params, stats, fake, labels)  # a batch of its own
        return real_logits, fake_logits, stats

    def slopes(key, params, stats, real, fake, labels):
        """Penalty and norm of the gradient of each pair, on images in [-1, 1]."""
        dropout_key = jax.random.fold_in(key, 1)

        def critic(images):
            return train_apply(dropout_key, discriminator, params, stats, (images + 1) / 2, labels)[0]

        return losses.gradient_penalty(key, critic, 2 * real - 1, 2 * fake - 1)

    def train_step(state, batch, key):
        latent_key, label_key, d_key, g_key = jax.random.split(key, 4)
        stats, noise = state.extra["batch_stats"], training.noise(state.step)
        images = batch["image"].reshape(d_count, -1, *shape)
        z = sampler.draw(latent_key, len(batch["image"])).reshape(d_count, -1, sampler.latent)
        labels = batch["label"].reshape(d_count, -1) if conditional else None

        def disturb(key, images):
            return images + noise * jax.random.normal(key, images.shape) if training.instance_noise else images

        def discriminator_step(carry, given):
            params, opt, d_stats = carry
            keys = jax.random.split(given["key"], 6)
            g_params, g_stats = state.params["generator"], stats["generator"]
            fake, _ = train_apply(keys[0], generator, g_params, g_stats, given["z"], given["label"])
            real, fake = disturb(keys[1], given["image"]), disturb(keys[2], fake)

            def loss_fn(params):
                real_logits, fake_logits, new = compare(params, d_stats, real, fake, given["label"], keys[3])
                value = discriminator_loss(keys[4], real_logits, fake_logits)
                name, seen = seen_as
                metrics = {f"{name}/real": seen(real_logits).mean(), f"{name}/fake": seen(fake_logits).mean()}
                if penalty:
                    penalties, norms = slopes(keys[5], params, new, real, fake, given["label"])
                    value += penalty * penalties.mean()
                    metrics |= {"gradient/norm": norms.mean(), "gradient/penalty": penalties.mean()}
                return value, (new, metrics)

            params, opt, value, (d_stats, metrics) = descend(discriminator_tx, loss_fn, params, opt)
            if clip is not None:
                params = losses.clip_weights(params, clip)
            return (params, opt, d_stats), {"loss/discriminator": value, **metrics}

        carry = state.params["discriminator"], state.opt["discriminator"], stats["discriminator"]
        given = {"image": images, "z": z, "label": labels, "key": jax.random.split(d_key, d_count)}
        (d_params, d_opt, d_stats), metrics = repeat(discriminator_step, carry, given, d_count)

        def generator_step(carry, given):
            params, opt, g_stats = carry
            keys = jax.random.split(given["key"], 3)

            def loss_fn(params):
                fake, new = train_apply(keys[0], generator, params, g_stats, given["z"], given["label"])
                fake = disturb(keys[1], fake)
                logits, _ = train_apply(keys[2], discriminator, d_params, d_stats, fake, given["label"])
                return generator_loss(logits), new

            params, opt, value, g_stats = descend(generator_tx, loss_fn, params, opt)
            return (params, opt, g_stats), value

        if not d_count == g_count == 1:  # else both networks see the same, and the forward pass is shared
            share = len(batch["image"]) // d_count
            z = sampler.draw(jax.random.fold_in(latent_key, 1), g_count * share).reshape(g_count, share, -1)
            labels = jax.random.choice(label_key, batch["label"], (g_count, share)) if conditional else None
        carry = state.params["generator"], state.opt["generator"], stats["generator"]
        given = {"z": z, "label": labels, "key": jax.random.split(g_key, g_count)}
        (g_params, g_opt, g_stats), g_value = repeat(generator_step, carry, given, g_count)

        latest = {"params": g_params, "batch_stats": g_stats}  # statistics belong to parameters: averaged alike
        average = optim.moving_average(state.extra["ema"]["generator"], latest, state.step, training.ema)
        state = State(
            step=state.step + 1,
            params={"generator": g_params, "discriminator": d_params},
            opt={"generator": g_opt, "discriminator": d_opt},
            extra={"batch_stats": {"generator": g_stats, "discriminator": d_stats}, "ema": {"generator": average}},
        )
        noise_metric = {"noise/standard_deviation": noise} if training.instance_noise else {}
        return state, {"loss/generator": g_value, **metrics, **noise_metric}

    def eval_step(state, batch, key):
        outputs = sampler.judged(key, state, batch)
        if penalty:
            labels = batch["label"] if conditional else None
            params, stats = state.params["discriminator"], state.extra["batch_stats"]["discriminator"]
            fake = outputs["raw_samples"][:, 0]  # of the generator that the critic knows
            places_key = jax.random.fold_in(key, 1)
            outputs["gradient_norm"] = slopes(places_key, params, stats, batch["image"], fake, labels)[1]
        return outputs

    def score(rows):
        figures = sampler.score(rows)
        return figures | ({"gradient_error": abs(figures["gradient_norm"] - 1)} if penalty else {})

    def visualise(state, batch, key):
        return {**sampler.figures(key, state), "real": batch["image"][:64]}

    def predict(state, inputs):
        if conditional and "label" not in inputs:
            raise UserError("a conditional GAN's discriminator judges an image of a class: it wants `label` beside it.")
        stats = state.extra["batch_stats"]["discriminator"]
        variables = {"params": state.params["discriminator"], "batch_stats": stats}
        seen = discriminator.apply(variables, inputs["image"], inputs["label"] if conditional else None)
        if loss == "wasserstein":  # a critic's scores have no zero
            return {"score": seen}
        return {"logit": seen - 0.5 if loss == "least_squares" else seen}

    def sample(state, key, count):
        return {"image": sampler.make(state, sampler.draw(key, count), sampler.in_turn(count))}

    controls = digits.controls if sampler.measure == "digits" else None
    return Recipe(init, train_step, eval_step, score, visualise, predict, sample, controls)
