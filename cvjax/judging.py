"""Samples of a run, drawn and measured by the judge that its config names."""

import jax
import numpy as np
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from cvjax import borrow, checkpoint, data, sharding
from cvjax.core import Recipe, State, variables
from cvjax.metrics import judges
from cvjax.metrics.extractors import WEIGHTS
from cvjax.metrics.judges import Images, Judge, Labels

CHUNK = 256  # maximum samples per call
DRAWN = 32  # samples for the judge's pictures


def make_judge(name: str) -> Judge:
    """Makes the judge of `config.judge`: a name or file (see `cvjax.metrics.judges.make`) or a run's classifier."""
    if "/" not in name or name.lower().endswith(WEIGHTS):
        return judges.make(name)
    source = borrow.parse("judge", name)
    described = borrow.describe_network("judge", name)
    network = borrow.make_networks({"judge": described})["judge"]
    state = borrow.as_state(checkpoint.read_tree(source.run / "checkpoints"))
    return judges.from_network(network, variables(state, source.network, source.averaged))


def judge_samples(
    judge: Judge, recipe: Recipe, state: State, examples: data.Data, mesh: jax.sharding.Mesh, config: ConfigDict
) -> dict[str, float]:
    """Returns the judge's figures of a state's samples; `config` is read for `seed` and `judge_samples`.

    The evaluation split has the real images and the labels to condition on. With moving averages, samples of the latest
    networks are measured too: their FID is `raw_fid`, beside `fid_over_raw`.
    """
    real, labels = _real_images(examples, mesh), None
    if "label" in recipe.sample_inputs and "label" in real:
        labels = np.resize(real["label"], config.judge_samples)
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 2)
    figures = judge.measure(_draw(key, recipe, state, config.judge_samples, labels), real["image"], labels)
    if state.average:
        raw = _draw(key, recipe, state.replace(average={}), config.judge_samples, labels)
        figures["raw_fid"] = judge.measure(raw, real["image"], labels)["fid"]
        figures["fid_over_raw"] = figures["fid"] / figures["raw_fid"]
    return figures


def draw_samples(key: Key[Array, ""], judge: Judge, recipe: Recipe, state: State) -> dict[str, Images]:
    """Returns the judge's pictures of a few samples, by name."""
    return judge.draw(_draw(key, recipe, state, DRAWN, None))


def _real_images(examples: data.Data, mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
    """Reads the images (and labels) of the evaluation split; all of them on every host."""
    rows = []
    for batch in examples.evaluate():
        wanted = {name: batch[name] for name in ("image", "label", "valid") if name in batch}
        whole = sharding.to_host(sharding.place_batch(wanted, mesh))
        valid = whole.pop("valid")
        rows.append({name: values[valid] for name, values in whole.items()})
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _draw(key: Key[Array, ""], recipe: Recipe, state: State, count: int, labels: Labels | None) -> Images:
    """Draws samples in chunks of equal size, so that `sample` compiles once."""
    calls = -(-count // CHUNK)
    size = -(-count // calls)
    samples = []
    for call in range(calls):
        inputs = {"count": size}
        if labels is not None:
            inputs["label"] = np.resize(labels[call * size : (call + 1) * size], size)
        drawn = recipe.sample(state, jax.random.fold_in(key, call), inputs)
        samples.append(sharding.to_host(drawn["image"]))
    return np.concatenate(samples)[:count]
