"""What the systems share that learn embeddings: unit vectors that are near each other for pictures of one person.

FaceNet: Schroff, Kalenichenko & Philbin, 2015 (arXiv:1503.03832), section 3, has the sphere and its 128 dimensions. The
network here is a ResNet (He et al., 2016) with a dense layer behind the mean of its last features.
"""

import abc
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from cvjax.core import Batch, Metrics, Params, Pictures, State, advance, check_images, descend, start, variables
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.recognition import unseen
from cvjax.recognition.metric_losses import Embeddings, Labels, unit
from cvjax.signature import Count

Images = Float[Array, "batch height width channels"]

# Adam of the network and of what learns beside it.
OPTIMISER = {"name": "adam", "learning_rate": 1e-3}


@dataclasses.dataclass(frozen=True)
class Backbone:
    """The network of an embedder: `config.recipe.backbone`.

    Attributes:
      depth, width, stem, strides: as in `cvjax.nets.resnet.ResNet`; "small" keeps the size of small images.
      size: numbers in an embedding.
      norm: normalise each of these numbers by the batch's statistics, or in evaluation by the running ones, before the
        division by the length, as ArcFace does. Embeddings of a batch then lie around the origin: no choice of triplets
        can bring all pictures to one point, as the hardest ones of a young network do otherwise.
    """

    depth: Literal[18, 34, 50, 101] = 18
    width: Count = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: tuple[Count, ...] = (1, 2, 2, 2)
    size: Count = 128
    norm: bool = True


BACKBONE = Backbone()


class Embedder(nn.Module):
    """A ResNet, the mean of its last features, a dense layer, its normalisation, and the division by the length."""

    backbone: Backbone

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> tuple[Embeddings, dict[str, Float[Array, "batch ..."]]]:
        """Returns embeddings, and the output of each stage `c2`, `c3`, ... with `features`, the mean of the last.

        Images have three channels or one. Training uses the batch's statistics.
        """
        about = self.backbone
        stages = ResNet(about.depth, about.width, about.stem, about.strides, name="resnet")(images, train)
        *_, last = stages.values()
        features = last.astype(jnp.float32).mean(axis=(1, 2))  # bfloat16 would lose digits of a sum
        numbers = nn.Dense(about.size, use_bias=not about.norm, name="embedding")(features)
        if about.norm:  # without a bias, which could bring all to one point again
            norm = nn.BatchNorm(not train, momentum=0.9, use_scale=False, use_bias=False, name="embedding_norm")
            numbers = norm(numbers)
        return unit(numbers), {**stages, "features": features}


def make_embedder(backbone: Backbone) -> Embedder:
    """Returns the network; raises a UserError if it has not one to four strides."""
    stage_strides(backbone.stem, backbone.strides)
    return Embedder(backbone)


@dataclasses.dataclass(frozen=True)
class EmbeddingSystem(abc.ABC):
    """Base of the systems that learn an embedder, alone or with a `head` that only the loss uses.

    The attributes are made of `recipe`'s arguments. Subclasses say what the loss is.
    """

    balanced: ClassVar[bool] = True  # the loss compares pictures of one class

    net: Embedder
    shape: tuple[int, int, int]
    ema: float
    flip_test: bool
    tx: optax.GradientTransformation
    head: nn.Module | None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The embedder and the head, if there is one."""
        return {"embedder": self.net} | ({} if self.head is None else {"head": self.head})

    @abc.abstractmethod
    def loss(
        self, key: Key[Array, ""], step: Int[Array, ""], params: Params, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of a batch at a step, and metrics; `params` are by network."""

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks and their optimiser."""
        check_images(batch, self.shape)
        net_key, head_key = jax.random.split(key)
        held = {"embedder": self.net.init(net_key, jnp.zeros((1, *self.shape)))}
        if self.head is not None:
            held["head"] = self.head.init(head_key, jnp.zeros((1, self.net.backbone.size)))
        opt = self.tx.init({name: network["params"] for name, network in held.items()})
        return start(held, {"all": opt}, tuple(held) if self.ema else ())

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the loss."""

        def loss_fn(params):
            latest = {**variables(state, "embedder", averaged=False), "params": params["embedder"]}
            (embeddings, _), new = self.net.apply(latest, batch["image"], train=True, mutable=["batch_stats"])
            loss, metrics = self.loss(key, state.step, params, embeddings, batch["label"])
            return loss, (metrics, new["batch_stats"])

        trained = {name: state.params[name] for name in self.networks}
        params, opt, loss, (metrics, stats) = descend(self.tx, loss_fn, trained, state.opt["all"])
        after = advance(state, params, {"all": opt}, {"embedder": stats}, keep=self.ema)
        return after, {"loss/total": loss, **metrics}

    def embed(self, state: State, images: Images) -> Embeddings:
        """Returns the embeddings of images; with `flip_test`, of images and of their mirror images together."""
        held = variables(state, "embedder")
        embeddings, _ = self.net.apply(held, images)
        return unit(embeddings + self.net.apply(held, images[:, :, ::-1])[0]) if self.flip_test else embeddings

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Embeds the images."""
        return {"embedding": self.embed(state, batch["image"])}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `cvjax.recognition.unseen`."""
        labels, outputs = unseen.columns(rows)
        return unseen.figures(outputs["embedding"], labels)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the pictures of `cvjax.recognition.unseen`, of one batch."""
        return draw(key, self, state, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Embeddings]:
        """Returns the embeddings of images."""
        return {"embedding": self.embed(state, inputs["image"])}


def draw(key: Key[Array, ""], system: Any, state: State, batch: Batch) -> Pictures:
    """Returns the pictures of a batch, of which a system with a `predict` gives the embeddings."""
    embeddings = np.asarray(system.predict(state, {"image": batch["image"]}, key)["embedding"])
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    valid = np.asarray(batch.get("valid", np.ones(len(labels), bool)))
    return unseen.pictures(images[valid], embeddings[valid], labels[valid])
