"""Latent diffusion: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022.

The second of two stages. A frozen autoencoder of another run turns images into codes and back. The diffusion models its
codes, scaled to unit deviation (section 4.3.2 and appendix G). Of codes that are small images, as in the paper, the
denoiser is a U-Net. Of vectors it is dense: residual blocks that the step and the class scale and shift (Perez et al.,
FiLM, 2018, arXiv:1709.07871).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from cvjax import core, optim
from cvjax.core import Batch, Metrics, Network, Pictures, Recipe, State, variables
from cvjax.errors import UserError
from cvjax.generative.autoencoders.latents import Moments, Scale, sheet
from cvjax.generative.diffusion import conditioning, denoisers, drawing, editing, samplers
from cvjax.generative.diffusion.denoisers import Guidance
from cvjax.generative.diffusion.first_stage import FirstStage, Output
from cvjax.generative.diffusion.process import Process, at_steps, diffuse, separate, target
from cvjax.generative.diffusion.samplers import Sampling
from cvjax.generative.diffusion.schedule import sampling_steps
from cvjax.generative.diffusion.unet import Architecture, ContextUNet, UNet
from cvjax.signature import Count, Range, Share, refuse_unused

Images = Float[Array, "batch height width channels"]
Vectors = Float[Array, "batch codes"]
Labels = Int[Array, " batch"]
Rows = dict[str, Float[Array, "batch ..."]]

SHOWN = 8  # rows, or columns, of a picture
STRENGTHS = (0.0, 0.3, 0.6, 0.9)  # of the picture of edits

# --- nets ---------------------------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """Predicts the noise in a code, or its velocity.

    Attributes:
      width: of the hidden layers.
      blocks: number of residual blocks.
      classes: number of classes; one label more stands for none. None: there are no labels.
      dropout: share of a block's hidden units that are dropped in training.
    """

    width: int = 256
    blocks: int = 3
    classes: int | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, noisy: Vectors, steps: Int[Array, " batch"], labels: Labels | None = None, train: bool = False
    ) -> Vectors:
        """Returns the prediction; it is 0 before training."""
        condition = nn.Dense(self.width)(conditioning.timestep_embedding(steps, self.width))
        condition = nn.Dense(self.width)(nn.silu(condition))
        if self.classes is not None:
            condition += nn.Embed(self.classes + 1, self.width)(labels)
        x = nn.Dense(self.width)(noisy)
        for _ in range(self.blocks):
            scale, shift = jnp.split(nn.Dense(2 * self.width)(nn.silu(condition)), 2, axis=1)
            y = nn.silu(nn.LayerNorm()(x) * (1 + scale) + shift)
            y = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(nn.Dense(self.width)(y)))
            x += nn.Dense(self.width, kernel_init=nn.initializers.zeros)(y)
        return nn.Dense(noisy.shape[1], kernel_init=nn.initializers.zeros)(nn.LayerNorm()(x))


# --- measures -----------------------------------------------------------------------------------------------------


def gaussian_noise(
    noisy: Vectors, alpha_bar: Float[Array, ""], covariance: Float[Array, "codes codes"]
) -> Float[Array, "batch codes"]:
    """Returns E[noise | noisy code] if codes of mean 0 are Gaussian with this covariance: the best linear denoiser."""
    total = alpha_bar * covariance + (1 - alpha_bar) * jnp.eye(len(covariance))
    return jnp.sqrt(1 - alpha_bar) * jnp.linalg.solve(total, noisy.T).T


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LatentDiffusion:
    """The functions of the recipe; the attributes are its arguments, with denoiser, first stage and optimiser built."""

    denoiser: Denoiser | UNet | ContextUNet
    stage: FirstStage
    label_dropout: float
    process: Process
    sampling: Sampling
    strength: float
    ema: float
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks by name."""
        return {"denoiser": self.denoiser, "encoder": self.stage.encoder.module, "decoder": self.stage.decoder.module}

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """What samples are made of beside their number: where there are classes, a class and guidance towards it."""
        return () if self.denoiser.classes is None else ("label", "guidance")

    predict_inputs = sample_inputs

    @property
    def visited(self) -> Int[np.ndarray, " visited"]:
        """The steps that sampling visits, falling."""
        return sampling_steps(self.process.steps, self.sampling.steps)

    def labels(self, inputs: Mapping[str, Any], count: int) -> Labels | None:
        """Returns the labels among inputs, or labels that stand for none; None without classes."""
        if self.denoiser.classes is None:
            return None
        return jnp.asarray(inputs["label"]) if "label" in inputs else jnp.full(count, self.denoiser.classes)

    def guidance(self, inputs: Mapping[str, Any]) -> Guidance:
        """Returns the weights of guidance among inputs, or None."""
        return denoisers.read_guidance(inputs, 1 + len(self.stage.code_shape))

    # --- training -------------------------------------------------------------------------------------------------

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the denoiser; the borrowed networks replace those of `frozen`."""
        images, shape = batch["image"], tuple(self.stage.encoder.shape)
        if images.shape[1:] != shape:
            raise UserError(
                f"the images are {images.shape[1:]}, but the borrowed encoder was trained on {shape}: resize them by "
                "data.transforms and data.eval_transforms."
            )
        stage_key, denoiser_key = jax.random.split(key)
        codes, frozen = self.stage.init(stage_key, images)
        steps = jnp.zeros(len(codes), int)
        denoiser = self.denoiser.init(denoiser_key, codes, steps, self.labels({}, len(codes)))
        opt = {"denoiser": self.tx.init(denoiser["params"])}
        extra = {"codes": Moments.standard(codes.shape[1]) if codes.ndim == 2 else Scale.standard()}
        return core.start({"denoiser": denoiser}, opt, averaged=["denoiser"], frozen=frozen, extra=extra)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the squared error of the prediction, and averages in the moments of the codes."""
        encode_key, step_key, noise_key, label_key, dropout_key = jax.random.split(key, 5)
        codes = self.stage.encode(encode_key, state, batch["image"])
        moments = state.extra["codes"].updated(codes, state.step, keep=1.0)
        clean = moments.standardise(codes)
        steps = jax.random.randint(step_key, (len(clean),), 0, self.process.steps)
        alpha_bar = at_steps(self.process.alpha_bars, steps, clean.ndim)
        noise = jax.random.normal(noise_key, clean.shape)
        noisy, wanted = diffuse(clean, noise, alpha_bar), target(self.process.prediction, clean, noise, alpha_bar)
        labels = self.labels(batch, len(clean))
        if labels is not None:
            labels = conditioning.drop_labels(label_key, labels, self.label_dropout, self.denoiser.classes)

        def loss_fn(params):
            options = dict(train=True, rngs={"dropout": dropout_key})
            output = self.denoiser.apply({"params": params}, noisy, steps, labels, **options)
            return jnp.square(output - wanted).mean(), None

        params, opt, loss, _ = core.descend(self.tx, loss_fn, state.params["denoiser"], state.opt["denoiser"])
        after = core.advance(state, {"denoiser": params}, {"denoiser": opt}, extra={"codes": moments}, keep=self.ema)
        return after, {"loss/total": loss}

    # --- evaluation -----------------------------------------------------------------------------------------------

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Rows:
        """Computes the errors of the denoiser, of the best linear one, and of the autoencoder, for each image."""
        encode_key, noise_key = jax.random.split(key)
        moments, denoiser = state.extra["codes"], variables(state, "denoiser")
        codes = self.stage.encode(encode_key, state, batch["image"])
        clean, labels = moments.standardise(codes), self.labels(batch, len(codes))

        def errors(inputs):
            noise, step, alpha_bar = inputs
            noisy = diffuse(clean, noise, alpha_bar)
            output = self.denoiser.apply(denoiser, noisy, jnp.full(len(codes), step), labels)
            _, predicted = separate(self.process.prediction, output, noisy, alpha_bar)
            found = {"denoising_error": predicted}
            if codes.ndim == 2:
                found["gaussian_error"] = gaussian_noise(noisy, alpha_bar, moments.correlation())
            axes = tuple(range(1, codes.ndim))
            return {name: jnp.square(noise - prediction).mean(axis=axes) for name, prediction in found.items()}

        steps = denoisers.evaluated_steps(self.process.steps)
        noise = jax.random.normal(noise_key, (len(steps), *codes.shape))
        levels = noise, jnp.asarray(steps), jnp.asarray(self.process.alpha_bars[steps])
        found = jax.lax.map(errors, levels)
        difference = batch["image"] - self.stage.decode(state, codes)
        return {
            **{name: values.mean(axis=0) for name, values in found.items()},
            "squared_error": jnp.square(difference).mean(axis=(1, 2, 3)),
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        rows = [outputs for _, outputs in rows]
        means = {name: np.concatenate([r[name] for r in rows]).mean(dtype=np.float64) for name in rows[0]}
        if "gaussian_error" in means:
            means["error_over_gaussian"] = means["denoising_error"] / means.pop("gaussian_error")
        means["gflops_per_sample"] = drawing.sample_gflops(self, tuple(self.stage.encoder.shape))
        return {name: float(value) for name, value in means.items()}

    # --- sampling -------------------------------------------------------------------------------------------------

    def denoise(self, state: State, labels: Labels | None, guidance: Guidance) -> samplers.Denoise:
        """Returns the function (x_t, t) -> (x_0, noise), guided towards the labels."""
        weight = self.sampling.guidance if guidance is None else guidance
        predict = functools.partial(self.denoiser.apply, variables(state, "denoiser"))
        return denoisers.make_denoiser(predict, self.process, labels, self.denoiser.classes, weight)

    def draw(
        self, key: Key[Array, ""], state: State, count: int, labels: Labels | None, guidance: Guidance = None
    ) -> tuple[samplers.Signals, samplers.Chain]:
        """Draws codes, and returns beside them what they were after each step."""
        start_key, step_key = jax.random.split(key)
        scale, chosen = state.extra["codes"], self.sampling
        start = jax.random.normal(start_key, (count, *self.stage.code_shape))
        how = self.process.shares, self.visited, chosen.sampler, chosen.eta, chosen.variance
        clean, chain = drawing.draw(step_key, start, self.denoise(state, labels, guidance), *how)
        return scale.restore(clean), scale.restore(chain)

    def edit(
        self,
        key: Key[Array, ""],
        state: State,
        images: Images,
        labels: Labels | None,
        guidance: Guidance,
        strength: float,
    ) -> Images:
        """Noises the codes of images by a share of the sampler's steps and denoises them: SDEdit, Meng et al., 2022."""
        encode_key, noise_key, step_key = jax.random.split(key, 3)
        moments, levels = state.extra["codes"], self.process.alpha_bars
        codes = self.stage.encode(encode_key, state, images)
        clean, noise = moments.standardise(codes), jax.random.normal(noise_key, codes.shape)
        how = self.denoise(state, labels, guidance), levels, self.visited, self.sampling.eta
        return self.stage.decode(state, moments.restore(editing.edit(step_key, clean, noise, *how, strength)))

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Draws images that resemble those given, the less the larger `strength`."""
        images, guidance = jnp.asarray(inputs["image"]), self.guidance(inputs)
        return {"image": self._edit(key, state, images, self.labels(inputs, len(images)), guidance)}

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws images, of the classes `inputs["label"]` and with `inputs["guidance"]` where they are given."""
        labels = self.labels(inputs, inputs["count"])
        return {"image": self._sample(key, state, inputs["count"], labels, self.guidance(inputs))}

    @functools.partial(jax.jit, static_argnums=0)
    def _edit(self, *how):
        return self.edit(*how, self.strength)

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _sample(self, key, state, *how):
        return self.stage.decode(state, self.draw(key, state, *how)[0])

    @functools.partial(jax.jit, static_argnums=0)
    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws samples, their way from noise, what they resemble, edits of images, and a row of each class."""
        sample_key, gaussian_key, encode_key, edit_key = jax.random.split(key, 4)
        images, count, decode = batch["image"], SHOWN**2, functools.partial(self.stage.decode, state)
        rows, labels, few = 0, self.labels({}, count), [images[:SHOWN], None, None]
        if labels is not None:
            rows = min(self.denoiser.classes, 10)
            labels = jnp.concatenate([labels, jnp.repeat(jnp.arange(rows), SHOWN)])
            few[1] = self.labels(batch, len(images))[:SHOWN]
        codes, chain = self.draw(sample_key, state, count + rows * SHOWN, labels)
        samples, known = decode(codes), decode(self.stage.encode(encode_key, state, images))
        found, rows_of_pixels = samples[: count // 2], known.reshape(len(known), -1)
        distances = jnp.square(rows_of_pixels).sum(axis=1) - 2 * found.reshape(len(found), -1) @ rows_of_pixels.T
        pairs = jnp.stack([found, known[distances.argmin(axis=1)]], axis=1)
        drawn = np.linspace(0, len(chain) - 1, SHOWN + 1).round().astype(int)
        edits = [self.edit(edit_key, state, *few, strength) for strength in STRENGTHS]
        shown = {
            "samples": samples[:count],
            "nearest_reconstructions": pairs.reshape(count, *images.shape[1:]),
            "chain": sheet(jnp.stack([decode(chain[step, :SHOWN]) for step in drawn], axis=1)),
            "edits": sheet(jnp.stack([few[0], *edits], axis=1)),
        }
        if codes.ndim == 2:
            shown["gaussian_samples"] = decode(state.extra["codes"].sample(gaussian_key, count))
        if rows:
            shown["classes"] = sheet(samples[count:].reshape(rows, SHOWN, *images.shape[1:]))
        return shown


UNET, PROCESS, SAMPLING = Architecture(dropout=0.0), Process(), Sampling()
ADAM = {"name": "adam", "learning_rate": 1e-3}


def recipe(
    encoder: Network,
    decoder: Network,
    decoder_output: Output = "image",
    classes: Count | tuple[str, ...] | None = None,
    label_dropout: Annotated[float, Range(0.01, 0.99)] = 0.1,
    width: Count = 256,
    blocks: Count = 3,
    dropout: Share = 0.0,
    unet: Architecture = UNET,
    tokens: Count | None = None,
    process: Process = PROCESS,
    sampling: Sampling = SAMPLING,
    strength: Share = 0.5,
    ema: Share = 0.999,
    optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes a latent diffusion.

    Args:
      encoder, decoder: of one autoencoder's run, set by `config.borrow`; its codes are vectors or small images.
      decoder_output: what the decoder gives, as in `FirstStage`.
      classes: number of classes, or their names, to sample by class as well; None: the images have no labels.
      label_dropout: share of the labels dropped in training; without a label, sampling is of all classes.
      width, blocks, dropout: of vectors, as in `Denoiser`.
      unet: of small images, the sizes of the U-Net.
      tokens: of small images, the width of a token that the U-Net reads the class from by cross-attention, 512 in the
        paper; None: the class is added to the step.
      process: the noise, and what the denoiser predicts.
      sampling: the sampler.
      strength: share of the sampler's steps that `predict` noises an image by, before denoising it.
      ema: share of the averaged denoiser that each step keeps.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: denoising_error, the mean squared error of the predicted noise over ten levels; of vectors,
      error_over_gaussian, the same over that of the best denoiser of Gaussian codes; squared_error, of reconstructions
      by the first stage; gflops_per_sample, billions of operations of a sample, decoder included.

    Raises:
      UserError: networks that do not fit, or arguments that exclude one another.
    """
    sampling_steps(process.steps, sampling.steps)
    stage = FirstStage(encoder, decoder, decoder_output)
    stage.check()
    denoisers.check_guidance(sampling.guidance, classes)
    count = core.count_classes(classes)
    if sampling.sampler != "ddim":
        eta = dataclasses.replace(SAMPLING, eta=sampling.eta)
        refuse_unused(recipe, f'only sampler="ddim" has it, not "{sampling.sampler}"', sampling=eta)
    if len(stage.code_shape) == 1:
        refuse_unused(recipe, "codes are vectors, and only those of small images have it", unet=unet, tokens=tokens)
        denoiser = make_dense(width, blocks, count, dropout)
    else:
        why = "codes are small images, and only those of vectors have it"
        refuse_unused(recipe, why, width=width, blocks=blocks, dropout=dropout)
        denoiser = make_unet(unet, stage.code_shape, count, tokens)
    tx = optim.build(optimiser)
    return Recipe.of(LatentDiffusion(denoiser, stage, label_dropout, process, sampling, strength, ema, tx))


def make_dense(width: int, blocks: int, classes: int | None, dropout: float) -> Denoiser:
    """Returns the denoiser of vectors; raises a UserError for a width that cannot be."""
    if width % 2 or width < 4:
        raise UserError(
            f"config.recipe.width={width}: half of it are sines and half cosines of the step: at least 4, even."
        )
    return Denoiser(width, blocks, classes, dropout)


def make_unet(
    sizes: Architecture, shape: tuple[int, ...], classes: int | None, tokens: int | None
) -> UNet | ContextUNet:
    """Returns the denoiser of codes of this shape; raises a UserError for sizes that do not fit."""
    try:
        sizes.check(shape[:2])
    except UserError as error:
        raise UserError(f"of codes of {' x '.join(map(str, shape))}, {error}") from None
    if tokens is None:
        return UNet(sizes, classes)
    if classes is None:
        raise UserError(f"config.recipe.tokens={tokens}: without classes there is nothing to read; leave it out.")
    return ContextUNet(sizes, classes, tokens)
