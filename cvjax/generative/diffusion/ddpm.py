"""DDPM: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239).

A U-Net learns to predict the noise in images, of all steps of a diffusion at once; sampling goes from noise to an image
step by step. With classes, it is guided as in Ho & Salimans, Classifier-Free Diffusion Guidance, 2022
(arXiv:2207.12598). The trained network also edits images and fills in masks.
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
from cvjax.core import Batch, Metrics, Pictures, Recipe, State, variables
from cvjax.errors import UserError
from cvjax.generative.autoencoders.latents import sheet
from cvjax.generative.autoregressive.pixel_model import quantise
from cvjax.generative.diffusion import conditioning, denoisers, drawing, editing, samplers
from cvjax.generative.diffusion.denoisers import Guidance
from cvjax.generative.diffusion.losses import hybrid_error, squared_error
from cvjax.generative.diffusion.process import Process, at_steps, diffuse, target
from cvjax.generative.diffusion.samplers import AlphaBars, Chain, Sampler, Variance
from cvjax.generative.diffusion.schedule import sampling_steps
from cvjax.generative.diffusion.unet import Architecture, UNet
from cvjax.signature import Count, NonNegative, Range, Share

Images = Float[Array, "batch height width channels"]
Masks = Float[Array, "batch height width 1"]
Labels = Int[Array, " batch"]
Rows = dict[str, Float[Array, "batch ..."]]

SHOWN = 8  # rows, or columns, of a picture
STRENGTHS = (0.3, 0.6)  # of the picture of edits
FILLED = 2  # of the picture of completions: how often each image is filled in
WEIGHTS = (0.0, 0.5, 2.0, 5.0)  # of the picture of guidance


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
      sampler: "ddpm", the paper's; "ddim"; or "dpm_solver", DPM-Solver++(2M).
      steps: how many of the diffusion's steps are visited; None: all.
      variance: of a step of "ddpm", and of the bound: "large" is beta, "small" beta tilde (section 3.2).
      eta: of "ddim", its share of fresh noise; 0: none.
      clip: whether predicted images are clipped to their range in each step.
      guidance: weight of classifier-free guidance, as in `conditioning.guide`; 0: none.
    """

    sampler: Sampler = "ddpm"
    steps: Count | None = None
    variance: Variance = "large"
    eta: Share = 0.0
    clip: bool = True
    guidance: NonNegative = 0.0

    @property
    def limit(self) -> float | None:
        """The largest magnitude of a predicted value, or None."""
        return 1.0 if self.clip else None


@dataclasses.dataclass(frozen=True)
class DDPM:
    """The functions of the recipe; the attributes are its arguments, with network and optimiser built.

    The network is a `UNet`, or another module with an attribute `classes` that is called in the same way.
    """

    unet: nn.Module
    shape: tuple[int, int, int]
    label_dropout: float
    levels: int
    bound_steps: int
    process: Process
    sampling: Sampling
    strength: float
    repeats: int
    ema: float
    tx: optax.GradientTransformation

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network by its name."""
        return {"unet": self.unet}

    @property
    def sample_inputs(self) -> tuple[str, ...]:
        """What samples are made of beside their number: where there are classes, a class and guidance towards it."""
        return () if self.unet.classes is None else ("label", "guidance")

    @property
    def predict_inputs(self) -> tuple[str, ...]:
        """What `predict` reads beside images: the part to fill in, or the deviation of their noise; their class."""
        return ("mask", "noise", *self.sample_inputs)

    @property
    def alpha_bars(self) -> AlphaBars:
        """The share of the signal's variance that is left after each step, in float64."""
        return self.process.shares

    @property
    def visited(self) -> Int[np.ndarray, " visited"]:
        """The steps that sampling visits, falling."""
        return sampling_steps(self.process.steps, self.sampling.steps or self.process.steps)

    def labels(self, inputs: Mapping[str, Any], count: int) -> Labels | None:
        """Returns the labels among inputs, or labels that stand for none; None without classes."""
        if self.unet.classes is None:
            return None
        return jnp.asarray(inputs["label"]) if "label" in inputs else jnp.full(count, self.unet.classes)

    def signals(self, images: Images) -> Images:
        """Returns images as the network takes them, rounded to the levels that the likelihood is of."""
        return to_signals(quantise(images, self.levels) / (self.levels - 1))

    # --- training -------------------------------------------------------------------------------------------------

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network, its optimiser and its average."""
        core.check_images(batch, self.shape)
        images = to_signals(batch["image"])
        unet = self.unet.init(key, images, jnp.zeros(len(images), int))
        return core.start({"unet": unet}, {"unet": self.tx.init(unet["params"])}, averaged=["unet"])

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the error of the prediction at random steps of the diffusion (algorithm 1)."""
        step_key, noise_key, label_key, dropout_key = jax.random.split(key, 4)
        clean = self.signals(batch["image"])
        steps = jax.random.randint(step_key, (len(clean),), 0, self.process.steps)
        noise = jax.random.normal(noise_key, clean.shape)
        labels = self.labels(batch, len(clean))
        if labels is not None:
            labels = conditioning.drop_labels(label_key, labels, self.label_dropout, self.unet.classes)

        def loss_fn(params):
            options = dict(train=True, rngs={"dropout": dropout_key})
            noisy = diffuse(clean, noise, at_steps(self.alpha_bars, steps, clean.ndim))
            output = self.unet.apply({"params": params}, noisy, steps, labels, **options)
            return self.errors(output, clean, noise, steps).mean(), None

        params, opt, loss, _ = core.descend(self.tx, loss_fn, state.params["unet"], state.opt["unet"])
        after = core.advance(state, {"unet": params}, {"unet": opt}, keep=self.ema)
        return after, {"loss/total": loss}

    def errors(
        self, output: Float[Array, "batch ..."], clean: Images, noise: Images, steps: Int[Array, " batch"]
    ) -> Float[Array, " batch"]:
        """Returns the loss of each image, simple or, where the variance is learned, hybrid."""
        output, *share = denoisers.split_variance(output, clean.shape[-1])
        prediction = self.process.prediction
        if share:
            return hybrid_error(prediction, output, *share, clean, noise, steps, self.alpha_bars, self.levels)
        alpha_bar = at_steps(self.alpha_bars, steps, clean.ndim)
        return squared_error(output, target(prediction, clean, noise, alpha_bar))

    # --- evaluation -----------------------------------------------------------------------------------------------

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Rows:
        """Computes the error of the predicted noise, and the bound on the likelihood, of each image."""
        error_key, bound_key = jax.random.split(key)
        clean = self.signals(batch["image"])
        denoise = self.denoise(state, self.labels(batch, len(clean)))
        bound = self.alpha_bars, self.levels, self.bound_steps, self.sampling.variance, self.sampling.limit
        return {
            "denoising_error": denoisers.denoising_error(error_key, clean, denoise, self.process),
            "bits_per_dim": denoisers.sampled_bound(bound_key, clean, denoise, *bound),
        }

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Averages the rows of `eval_step`, and counts the arithmetic of a sample."""
        rows = [outputs for _, outputs in rows]
        means = {name: float(np.concatenate([r[name] for r in rows]).mean(dtype=np.float64)) for name in rows[0]}
        return means | {"gflops_per_sample": drawing.sample_gflops(self, self.shape)}

    # --- sampling -------------------------------------------------------------------------------------------------

    def denoise(
        self, state: State, labels: Labels | None, guidance: float | Float[Array, "..."] = 0.0
    ) -> samplers.Denoise:
        """Returns the function (x_t, t) -> (x_0, noise), guided towards the labels."""
        predict = functools.partial(self.unet.apply, variables(state, "unet"))
        return denoisers.make_denoiser(predict, self.process, labels, self.unet.classes, guidance)

    def guided(self, state: State, labels: Labels | None, guidance: Guidance) -> samplers.Denoise:
        """Returns the same with the sampler's weight of guidance where none is given."""
        return self.denoise(state, labels, self.sampling.guidance if guidance is None else guidance)

    def run(self, key: Key[Array, ""], start: Images, denoise: samplers.Denoise) -> tuple[Images, Chain]:
        """Returns (signals, what they were after each step) by the sampler, from pure noise."""
        chosen = self.sampling
        how = chosen.sampler, chosen.eta, chosen.variance, chosen.limit
        return drawing.draw(key, start, denoise, self.alpha_bars, self.visited, *how)

    def draw(
        self, key: Key[Array, ""], state: State, labels: Labels | None, guidance: Guidance, count: int
    ) -> tuple[Images, Chain]:
        """Draws images, and returns beside them what they were after each step."""
        start_key, step_key = jax.random.split(key)
        start = jax.random.normal(start_key, (count, *self.shape))
        drawn, chain = self.run(step_key, start, self.guided(state, labels, guidance))
        return to_images(drawn), to_images(chain)

    def compare_guidance(self, key: Key[Array, ""], state: State, count: int) -> Float[Array, "weights count ..."]:
        """Draws images of the first classes for each weight of guidance, all from the same noise."""
        start_key, step_key = jax.random.split(key)
        start, labels = jax.random.normal(start_key, (count, *self.shape)), jnp.arange(count) % self.unet.classes

        def draw(weight):
            return to_images(self.run(step_key, start, self.denoise(state, labels, weight))[0])

        return jax.vmap(draw)(jnp.asarray(WEIGHTS))

    @functools.partial(jax.jit, static_argnums=(0, 6))
    def edit(
        self,
        key: Key[Array, ""],
        state: State,
        images: Images,
        labels: Labels | None,
        guidance: Guidance,
        strength: float,
    ) -> Images:
        """Noises images by a share of the sampler's steps and denoises them: SDEdit, Meng et al., 2022."""
        noise_key, step_key = jax.random.split(key)
        clean, noise = to_signals(images), jax.random.normal(noise_key, images.shape)
        return to_images(editing.edit(step_key, clean, noise, *self.editor(state, labels, guidance), strength))

    @functools.partial(jax.jit, static_argnums=0)
    def complete(
        self,
        key: Key[Array, ""],
        state: State,
        images: Images,
        labels: Labels | None,
        guidance: Guidance,
        mask: Masks,
    ) -> Images:
        """Fills in images where the mask is 1: RePaint, Lugmayr et al., 2022."""
        filled = editing.inpaint(key, to_signals(images), mask, *self.editor(state, labels, guidance), self.repeats)
        return jnp.where(mask > 0.5, to_images(filled), images)

    @functools.partial(jax.jit, static_argnums=(0, 6))
    def restore(
        self,
        key: Key[Array, ""],
        state: State,
        images: Images,
        labels: Labels | None,
        guidance: Guidance,
        deviation: float,
    ) -> Images:
        """Returns the mean of what images under white noise of a known deviation may be, by `editing.restore`."""
        denoise, levels, *_ = self.editor(state, labels, guidance)
        return to_images(editing.restore(key, to_signals(images), 2 * deviation, denoise, levels))

    def editor(
        self, state: State, labels: Labels | None, guidance: Guidance
    ) -> tuple[samplers.Denoise, AlphaBars, Int[np.ndarray, " visited"], float]:
        """Returns how edits are sampled: by DDIM, with all of the fresh noise unless "ddim" is chosen with less."""
        chosen = self.sampling
        denoise = denoisers.clip(self.guided(state, labels, guidance), self.process, chosen.limit)
        return denoise, self.alpha_bars, self.visited, chosen.eta if chosen.sampler == "ddim" else 1.0

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Images]:
        """Fills in images where there is a mask, else denoises them where there is `noise`, its deviation on all.

        With neither, draws images that resemble them, the less the more `strength`.
        """
        images = jnp.asarray(inputs["image"])
        how = key, state, images, self.labels(inputs, len(images)), denoisers.read_guidance(inputs, 4)
        if "mask" in inputs:
            return {"image": self.complete(*how, jnp.asarray(inputs["mask"]))}
        if "noise" in inputs:
            return {"image": self.restore(*how, float(np.max(inputs["noise"])))}
        return {"image": self.edit(*how, self.strength)}

    def sample(self, state: State, key: Key[Array, ""], inputs: Mapping[str, Any]) -> dict[str, Images]:
        """Draws images, of the classes `inputs["label"]` and with `inputs["guidance"]` where they are given."""
        labels, guidance = self.labels(inputs, inputs["count"]), denoisers.read_guidance(inputs, 4)
        return {"image": self._sample(key, state, labels, guidance, inputs["count"])}

    @functools.partial(jax.jit, static_argnums=(0, 5))
    def _sample(self, *how):
        return self.draw(*how)[0]

    @functools.partial(jax.jit, static_argnums=0)
    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws samples, their way from noise, edits and completions of images, samples by class and by guidance."""
        sample_key, chain_key, edit_key, complete_key, guidance_key = jax.random.split(key, 5)
        images, classes = batch["image"][:SHOWN], min(self.unet.classes or 0, 10)
        labels, given = self.labels({}, SHOWN**2), self.labels(batch, len(batch["image"]))
        if classes:
            labels, given = jnp.append(labels, jnp.repeat(jnp.arange(classes), SHOWN)), given[:SHOWN]
        samples, _ = self.draw(sample_key, state, labels, None, (SHOWN + classes) * SHOWN)
        _, chain = self.draw(chain_key, state, self.labels({}, SHOWN), None, SHOWN)
        drawn = np.linspace(0, len(chain) - 1, SHOWN + 1).round().astype(int)
        edits = [self.edit(edit_key, state, images, given, None, strength) for strength in STRENGTHS]
        whole = jnp.repeat(images, FILLED, axis=0)
        lower = jnp.zeros((*whole.shape[:3], 1)).at[:, self.shape[0] // 2 :].set(1.0)
        repeated = None if given is None else jnp.repeat(given, FILLED)
        filled = self.complete(complete_key, state, whole, repeated, None, lower).reshape(-1, FILLED, *self.shape)
        known = jnp.where(lower[::FILLED] > 0.5, 0.5, images)
        shown = {
            "samples": samples[: SHOWN**2],
            "chain": sheet(chain[drawn].swapaxes(0, 1)),
            "edits": sheet(jnp.stack([images, *edits], axis=1)),
            "completions": sheet(jnp.concatenate([images[:, None], known[:, None], filled], axis=1)),
        }
        if classes:
            shown["classes"] = sheet(samples[SHOWN**2 :].reshape(classes, SHOWN, *self.shape))
            shown["guidance"] = sheet(self.compare_guidance(guidance_key, state, SHOWN))
        return shown


def to_signals(images: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
    """Returns images in [0, 1] as the network takes them, from -1 to 1."""
    return 2 * images - 1


def to_images(signals: Float[Array, "*batch channels"]) -> Float[Array, "*batch channels"]:
    """Returns signals as images, clipped to [0, 1]."""
    return jnp.clip((signals + 1) / 2, 0.0, 1.0)


# --- recipe -------------------------------------------------------------------------------------------------------

UNET, PROCESS, SAMPLING = Architecture(), Process(), Sampling()
ADAM = {"name": "adam", "learning_rate": 2e-4, "warmup": 5000, "clip": 1.0}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...] | None = None,
    label_dropout: Annotated[float, Range(0.01, 0.99)] = 0.1,
    levels: Annotated[int, Range(2)] = 256,
    bound_steps: Count = 20,
    unet: Architecture = UNET,
    learn_variance: bool = False,
    process: Process = PROCESS,
    sampling: Sampling = SAMPLING,
    strength: Share = 0.5,
    repeats: Count = 10,
    ema: Share = 0.9999,
    optimiser: Mapping[str, Any] = ADAM,
) -> Recipe:
    """Makes a DDPM.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names, to sample by class as well; None: the images have no labels.
      label_dropout: share of the labels dropped in training; without a label, sampling is of all classes.
      levels: number of values that a pixel has in the dataset, which its likelihood is of.
      bound_steps: number of the diffusion's steps at which each image's bound is evaluated; it is exact with all.
      unet: sizes of the network.
      learn_variance: whether the network learns the variance of each step too, by the hybrid loss of Nichol & Dhariwal,
        2021; `sampling.variance` is then unused.
      process: the noise, and what the network predicts.
      sampling: the sampler.
      strength: share of the sampler's steps that `predict` noises an image by, before denoising it.
      repeats: how often `predict` repeats each step where it fills in a mask.
      ema: share of the averaged network that each step keeps.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures: denoising_error, the mean squared error of the predicted noise over ten levels;
      bits_per_dim, the variational bound on the likelihood; gflops_per_sample, billions of operations of a sample.

    Raises:
      UserError: sizes that do not fit the images, or arguments that exclude one another.
    """
    unet.check(shape[:2])
    sampling_steps(process.steps, sampling.steps or process.steps)
    denoisers.check_guidance(sampling.guidance, classes)
    if sampling.eta and sampling.sampler != "ddim":
        raise UserError(
            f'config.recipe.sampling.eta={sampling.eta}: only sampler="ddim" has it, not "{sampling.sampler}": leave '
            "it 0."
        )
    net = UNet(unet, core.count_classes(classes), outputs=2 * shape[2] if learn_variance else None)
    options = label_dropout, levels, bound_steps, process, sampling, strength, repeats, ema, optim.build(optimiser)
    return Recipe.of(DDPM(net, tuple(shape), *options))
