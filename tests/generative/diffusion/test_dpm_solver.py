"""DPM-Solver++(2M) beside diffusers' and beside DDIM, its first order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.generative.diffusion import dpm_solver
from cvjax.generative.diffusion.process import Process, separate
from cvjax.generative.diffusion.samplers import sample

LEVELS, START = Process().alpha_bars, jax.random.normal(jax.random.key(0), (4, 3))


def denoise(noisy, step):
    return separate("noise", jnp.tanh(noisy), noisy, jnp.asarray(LEVELS)[step])


@pytest.mark.parity
def test_steps_are_those_of_diffusers():
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(1000, beta_start=1e-4, beta_end=0.02, final_sigmas_type="zero")
    visited = np.array([900, 700, 600, 350, 200, 90, 20, 0])  # given, since its own spacings divide by n + 1
    scheduler.set_timesteps(timesteps=visited)
    expected, chain = torch.from_numpy(np.array(START)), []
    for step in scheduler.timesteps:
        expected = scheduler.step(torch.tanh(expected), step, expected).prev_sample
        chain.append(expected.numpy())
    _, found = dpm_solver.sample(START, denoise, LEVELS, visited)
    np.testing.assert_allclose(found, chain, rtol=1e-4, atol=1e-4)  # x_0 is divided by sqrt(2.7e-4) at step 900


def test_without_extrapolation_a_step_is_one_of_ddim():
    visited = np.array([900, 300])  # both steps are of first order
    found, _ = dpm_solver.sample(START, denoise, LEVELS, visited, clip=1.0)
    expected, _ = sample(jax.random.key(0), START, denoise, LEVELS, visited, 0.0, clip=1.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    weights = dpm_solver.multistep_weights(LEVELS, np.array([900, 600, 300, 0]))
    assert weights[0, 2] == weights[-1, 2] == 0 and (weights[1:-1, 2] > 0).all()
    np.testing.assert_allclose(weights[-1, :2], [0, 1])  # to clean signals: x_0


def test_steps_are_evenly_spaced_in_the_log_ratio_of_signal_and_noise():
    visited = dpm_solver.solver_steps(LEVELS, 12)
    assert len(visited) == 12 and visited[0] == 999 and visited[-1] == 0 and (np.diff(visited) < 0).all()
    ratios = np.log(LEVELS[visited] / (1 - LEVELS[visited])) / 2
    np.testing.assert_allclose(np.diff(ratios), np.diff(ratios).mean(), rtol=0.25)  # rounded to whole steps
    assert len(dpm_solver.solver_steps(LEVELS, 500)) < 500  # of which several are the first few
