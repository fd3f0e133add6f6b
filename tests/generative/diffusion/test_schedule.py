"""Noise schedules beside diffusers', and what they promise at any number of steps."""

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.generative.diffusion.process import Process, posteriors
from cvjax.generative.diffusion.schedule import alpha_bars, betas, sampling_steps


@pytest.mark.parity
@pytest.mark.parametrize(
    "schedule, theirs, ends",
    [
        ("linear", "linear", (1e-4, 0.02)),
        ("cosine", "squaredcos_cap_v2", (1e-4, 0.02)),
        ("scaled_linear", "scaled_linear", (0.00085, 0.012)),
    ],
)
def test_schedules_are_those_of_diffusers(schedule, theirs, ends):
    scheduler = pytest.importorskip("diffusers").DDPMScheduler(1000, *ends, beta_schedule=theirs)
    np.testing.assert_allclose(betas(schedule, 1000), scheduler.betas, rtol=2e-4)  # theirs are float32, 1 - 0.9999
    np.testing.assert_allclose(alpha_bars(schedule, 1000), scheduler.alphas_cumprod, rtol=2e-5, atol=1e-9)


@pytest.mark.parity
@pytest.mark.parametrize("count", [1, 10, 50, 1000])
def test_a_divisor_of_the_steps_is_spaced_as_in_diffusers(count):
    scheduler = pytest.importorskip("diffusers").DDIMScheduler(1000, timestep_spacing="leading")
    scheduler.set_timesteps(count)
    np.testing.assert_array_equal(sampling_steps(1000, count), scheduler.timesteps)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [2, 10, 100, 4000])
def test_the_signal_vanishes_whatever_the_number_of_steps(schedule, steps):
    left = alpha_bars(schedule, steps)
    assert left.shape == (steps,) and (np.diff(left) < 0).all()
    assert 0 < left[-1] < 2e-3 and (steps < 100 or left[0] > 0.995)


def test_the_scaled_linear_schedule_leaves_what_it_leaves_in_1000_steps():
    for steps in (250, 500, 4000):
        left = alpha_bars("scaled_linear", steps)
        assert left.dtype == np.float64
        np.testing.assert_allclose(left[-1], 0.0047, rtol=0.08)  # of the published models


def test_the_log_linear_schedule_is_even_in_the_log_of_the_signal_to_noise_ratio():
    left = alpha_bars("log_linear", 200, (7.5, -8.0))
    np.testing.assert_allclose(np.log(left / (1 - left)), np.linspace(7.5, -8.0, 200), atol=1e-9)
    np.testing.assert_allclose(1 - left[0], betas("log_linear", 200, (7.5, -8.0))[0], rtol=1e-9)
    default = Process("log_linear", 4)
    np.testing.assert_allclose(default.alpha_bars, 1 / (1 + np.exp([-13.3, -7.2, -1.1, 5.0])), rtol=1e-6)
    with pytest.raises(UserError, match=r"log_snr=\(-5.0, 13.3\): .*the signal fades"):
        Process("log_linear", 4, log_snr=(-5.0, 13.3))
    for wrong in ((float("inf"), -5.0), (13.3, float("nan"))):
        with pytest.raises(UserError, match=r"log_snr=.*expected two finite numbers"):
            Process("log_linear", 4, log_snr=wrong)


def test_errors_of_the_noise_count_the_same_at_all_steps_of_the_log_linear_schedule():
    # with the smaller variance, a term of the bound is the squared error of the mean over twice the variance
    left = alpha_bars("log_linear", 200, (7.5, -8.0))
    table, noise_in_clean = posteriors(left), np.sqrt((1 - left) / left)
    weights = (table.clean * noise_in_clean) ** 2 / (2 * np.exp(table.log_variance))
    np.testing.assert_allclose(weights[1:], (np.exp(15.5 / 199) - 1) / 2, rtol=1e-6)
    linear = alpha_bars("linear", 200)
    table, noise_in_clean = posteriors(linear), np.sqrt((1 - linear) / linear)
    weights = (table.clean * noise_in_clean) ** 2 / (2 * np.exp(table.log_variance))
    assert weights[1] > 20 * weights[100]


def test_sampling_visits_evenly_spaced_steps_down_to_the_first():
    np.testing.assert_array_equal(sampling_steps(10, 4), [7, 5, 2, 0])
    np.testing.assert_array_equal(sampling_steps(3, 3), [2, 1, 0])
    with pytest.raises(UserError, match="only 10 steps"):
        sampling_steps(10, 11)
