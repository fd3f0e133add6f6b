"""Samples of a run, drawn and measured by the judge that its config names."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from cvjax import borrow, checkpoint, data, sharding
from cvjax import config as experiments
from cvjax.core import Network, Recipe, State, Variables
from cvjax.errors import UserError, number_of
from cvjax.metrics import classifier_judge, judges
from cvjax.metrics.classifier_judge import Examples
from cvjax.metrics.extractors import WEIGHTS
from cvjax.metrics.judges import Images, Judge, Labels
from cvjax.rundir import read_config
from cvjax.weights import hub

CHUNK = 256  # maximum samples per call
DRAWN = 32  # samples for the judge's pictures


def make_judge(config: ConfigDict, training: Mapping[str, Any] | None = None) -> Judge:
    """Makes the judge of `config.judge`: a name or file (see `cvjax.metrics.judges.make`) or a run's classifier.

    A classifier, RUN/NETWORK, is asked about the evaluation split of `config.data` at once, and compares samples with
    it and with the training split; `training` is the `data` of the run's training where `config.data` is another.

    Raises:
      UserError: there is no such judge, its run is not finished, or it does not know these images and classes.
    """
    name = config.judge
    if "/" not in name or name.lower().endswith(WEIGHTS):
        return judges.make(name)
    if config.judge_samples < classifier_judge.FEWEST:
        raise UserError(
            f"config.judge_samples={config.judge_samples}: a judge that is a classifier takes at least "
            f"{classifier_judge.FEWEST}."
        )
    network, variables = _load_classifier(name)
    settings = experiments.as_dict(config.data)
    names = data.check(settings)
    if names and network.classes and len(names) != len(network.classes):
        raise UserError(
            f"config.judge={name!r} is a classifier of {number_of(len(network.classes), 'class')}, and "
            f"{settings['name'] or settings['folder']} has {len(names)}: give one that was trained on the same classes."
        )
    held_out, read_training = read_split(settings, "eval_split"), partial(read_split, training or settings)
    return classifier_judge.from_network(network, variables, held_out, partial(read_training, "train_split"))


def read_split(settings: Mapping[str, Any], key: str) -> Examples:
    """Reads all images and labels of the split `settings[key]`, after the transforms of evaluation, on every host."""
    split = settings[key]
    chosen = {**settings, "train_split": split, "eval_split": split, "transforms": settings["eval_transforms"]}
    examples = data.load({**chosen, "also": {}, "per_class": None}, seed=0)
    rows = [data.drop_padding(batch, batch) for batch in examples.evaluate()]
    images = np.concatenate([classifier_judge.to_bytes(row["image"]) for row in rows])
    return Examples(images, np.concatenate([row["label"] for row in rows]) if "label" in rows[0] else None)


def _load_classifier(name: str) -> tuple[Network, Variables]:
    """Returns a network of another run, which has to be finished, and its variables."""
    source, described = borrow.parse("config.judge", name), borrow.describe_network("config.judge", name)
    where = f"config.judge={name!r}"
    if not hub.is_published(source.run):
        steps, folder = read_config(source.run)["config"]["steps"], source.run / "checkpoints"
        taken = int(checkpoint.read_tree(folder)["step"]) if checkpoint.exists(folder) else 0
        if taken < steps:
            raise UserError(
                f"{where}: {source.run} has taken {taken:,} of its {steps:,} steps, and a judge must not change. Train "
                f"it first, by its config and --workdir={source.run}."
            )
    return borrow.make_networks({"judge": described})["judge"], borrow.read_network(where, source)


def judge_samples(
    judge: Judge, recipe: Recipe, state: State, examples: data.Data, mesh: jax.sharding.Mesh, config: ConfigDict
) -> dict[str, float]:
    """Returns the judge's figures of a state's samples; `config` is read for `seed` and `judge_samples`.

    The evaluation split has the real images and the labels to condition on. With moving averages, samples of the latest
    networks are measured too: their distance is `raw_fid`, beside `fid_over_raw`, or what it is called by this judge.
    """
    real, labels = _real_images(examples, mesh), None
    if "label" in recipe.sample_inputs and "label" in real:
        labels = np.resize(real["label"], config.judge_samples)
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 2)
    figures = judge.measure(_draw(key, recipe, state, config.judge_samples, labels), real["image"], labels)
    if state.average:
        raw = _draw(key, recipe, state.replace(average={}), config.judge_samples, labels)
        distance = judge.distance
        figures[f"raw_{distance}"] = judge.measure(raw, real["image"], labels)[distance]
        figures[f"{distance}_over_raw"] = figures[distance] / figures[f"raw_{distance}"]
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
