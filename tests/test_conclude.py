"""What a recipe fits after the last step: once, from the last state, on training batches, saved with the state."""

import jax
import jax.numpy as jnp
import numpy as np

from cvjax import config, fit
from cvjax.core import Recipe, State


def test_a_run_is_concluded_once_and_keeps_what_was_fitted(tmp_path, monkeypatch):
    concluded = []

    def init(key, batch):
        return State(step=jnp.int32(0), params={"net": jnp.zeros(3)}, opt={}, extra={"mean": jnp.zeros(())})

    def train_step(state, batch, key):
        after = state.replace(step=state.step + 1, params={"net": state.params["net"] + 1})
        return after, {"loss/total": jnp.float32(1)}

    def eval_step(state, batch, key):
        return {"mean": jnp.full(len(batch["image"]), state.extra["mean"])}

    def conclude(state, rows):
        means = []
        for outputs, batch in rows(jax.jit(lambda state, batch: {"sums": batch["image"].sum((1, 2, 3))})):
            assert isinstance(outputs["sums"], np.ndarray)
            np.testing.assert_allclose(outputs["sums"], batch["image"].sum((1, 2, 3)), rtol=1e-5)
            means.append(batch["image"].mean())
            if len(means) == 200:  # more than a pass: it goes on
                break
        concluded.append((int(state.step), float(state.params["net"][0])))
        return state.replace(extra={"mean": np.float32(np.mean(means))})

    def score(rows):
        return {"squared_error": np.concatenate([outputs["mean"] for _, outputs in rows]).mean()}

    recipe = Recipe(
        *({}, init, train_step, eval_step, score),
        visualise=lambda *_: {"real": np.zeros((1, 8, 8, 1), np.float32)},
        conclude=conclude,
    )
    monkeypatch.setattr(config, "build", lambda *_: recipe)
    experiment = config.load("configs/vae_digits.py:smoke")
    experiment.update(steps=3, judge="", expect={}, eval_every=1, checkpoint_every=1, figure_every=0)
    figures = fit.fit(experiment, tmp_path)
    assert concluded == [(3, 3.0)]
    assert 0.2 < figures["squared_error"] < 0.4  # digits' mean, which evaluation sees already
    assert fit.fit(experiment, tmp_path) == figures and len(concluded) == 1  # a complete run is complete
    experiment.steps = 5
    fit.fit(experiment, tmp_path)
    assert concluded[1:] == [(5, 5.0)]
