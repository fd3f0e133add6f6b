"""The loop hands what was evaluated to `visualise`, so that nothing is computed twice to be drawn."""

import dataclasses

import jax
import numpy as np

from cvjax import compiled, config, data, fit
from cvjax.core import Recipe


def test_what_was_evaluated_is_drawn_without_being_computed_again(tmp_path, monkeypatch):
    """Figures are due at step 2, before any evaluation, and at step 4 together with one."""
    calls, drawn, build, compile_recipe = [], [], config.build, fit.compile_recipe

    def building(*arguments):
        def visualise(state, batch, key, outputs):
            drawn.append(jax.device_get((state, batch, outputs)))
            return {}

        return Recipe(**{**vars(build(*arguments)), "visualise": visualise, "shows_outputs": True})

    def compiling(*arguments):
        made = compile_recipe(*arguments)
        counted = lambda state, batch, index: calls.append(index) or made.eval_step(state, batch, index)  # noqa: E731
        return dataclasses.replace(made, eval_step=counted)

    monkeypatch.setattr(config, "build", building)
    monkeypatch.setattr(fit, "compile_recipe", compiling)
    experiment = config.load("configs/vae_digits.py:smoke")
    experiment.update_from_flattened_dict(dict(steps=4, eval_every=4, figure_every=2, checkpoint_every=4))
    fit.fit(experiment, tmp_path)
    batches = len(list(data.load(config.as_dict(experiment.data), seed=0).evaluate()))
    assert calls == [0, *range(batches)]
    eval_step = compiled.jit_eval_step(build(experiment), experiment.seed)
    for state, batch, outputs in drawn:
        found = jax.device_get(eval_step(state, batch, 0))
        for name, rows in found.items():  # on one device here, on several there
            np.testing.assert_allclose(outputs[name], rows, rtol=1e-4, atol=1e-4)
    assert [int(state.step) for state, _, _ in drawn] == [2, 4]
