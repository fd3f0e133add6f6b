"""A run that reads captions keeps its vocabulary, so that its folder alone tells what the tokens are."""

import json

import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from cvjax import config, fit
from cvjax.core import Recipe, advance, start
from cvjax.data import vocabulary

COLOURS = ("red", "green", "blue")


def mean_image(size):
    """A system that learns an image for each word; an example's is the mean of its words'."""
    tx = optax.sgd(1.0)

    def init(key, batch):
        params = jnp.zeros((size, *batch["image"].shape[1:]))
        return start({"words": {"params": params}}, {"words": tx.init(params)})

    def drawn(params, batch):
        mask = batch["tokens_mask"][..., None, None, None]
        return (params[batch["tokens"]] * mask).sum(1) / mask.sum(1)

    def train_step(state, batch, key):
        params = state.params["words"]
        error = drawn(params, batch) - batch["image"]
        step = jnp.zeros_like(params).at[batch["tokens"]].add(-error[:, None] / batch["tokens"].size)
        return advance(state, {"words": params + step}, state.opt), {"loss/total": jnp.mean(error**2)}

    def score(rows):
        return {"unknown": np.mean([(outputs["tokens"] == vocabulary.UNKNOWN).mean() for _, outputs in rows])}

    return Recipe(
        networks={},
        init=init,
        train_step=train_step,
        eval_step=lambda state, batch, key: {"tokens": batch["tokens"]},
        score=score,
        visualise=lambda state, batch, key: {"image": batch["image"]},
    )


def test_a_run_keeps_the_vocabulary_that_it_was_begun_with(tmp_path, monkeypatch):
    pictures, run = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    for index in range(30):
        pixels = np.zeros((4, 4, 3), np.uint8)
        pixels[..., index % 3] = 255
        Image.fromarray(pixels).save(pictures / f"{index}.png")

    def caption(words):
        captions = {f"{index}.png": f"All {words[index % 3]}" for index in range(30)}
        (pictures / "captions.json").write_text(json.dumps(captions))

    def train(steps):
        tokenise = (dict(op="tokenise", length=6),)
        read = dict(folder=str(pictures), batch=8, keep=("caption",), transforms=tokenise, eval_transforms=tokenise)
        shape = dict(shape=(4, 4, 3))
        experiment = config.experiment("generative.autoencoders.vae", data=read, steps=steps, recipe=shape)
        return fit.fit(experiment, run)

    monkeypatch.setattr(config, "build", lambda *arguments: mean_image(12))
    caption(COLOURS)
    assert train(2) == {"unknown": 0}
    words = vocabulary.read(run)
    assert sorted(words.words[4:]) == ["all", "blue", "green", "red"]
    assert words.words[4] == "all"
    shape, dtype = json.loads((run / "config.json").read_text())["batch"]["tokens"]
    assert (shape, dtype) == ([8, 6], "int32")
    caption(("red", "violet", "violet"))
    assert train(4)["unknown"] > 0
    assert vocabulary.read(run) == words
