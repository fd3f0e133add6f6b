#!/usr/bin/env bash
# One would guess: a scheduler trained with 1,000 steps and asked for n of them spreads n steps over all noise levels;
# more steps cost more and are at least as good.
# What happens: with timestep_spacing="leading" (the default of DDIM and DDPM) the stride is 1000 // n, so for n from
# 501 to 999 the stride is 1, and sampling starts at t = n - 1. With 600 steps the 400 noisiest levels are never
# visited, although the sample starts as pure noise. Below, an exact denoiser of pixels with the mean and the
# deviation of MNIST's draws pictures that are half as bright again if n is 501.
# Who is hurt: whoever raises the number of steps for quality, or compares step counts that do not divide 1000:
# pictures drift to grey, and the curve of quality over steps bends for a reason that is not in the model.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.13.0 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import DDIMScheduler, DDPMScheduler

print({name: version(name) for name in ("diffusers", "torch", "numpy")})
MEAN, STD = 2 * 0.1307 - 1, 2 * 0.3081  # of MNIST in [-1, 1]; the best denoiser of a normal distribution is known


def sampled_mean(n):
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(n)
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        a = scheduler.alphas_cumprod[t]
        x0 = MEAN + (x - a.sqrt() * MEAN) * a.sqrt() * STD**2 / (a * STD**2 + 1 - a)
        x = scheduler.step((x - a.sqrt() * x0) / (1 - a).sqrt(), t, x).prev_sample
    return (x.mean().item() + 1) / 2  # from [-1, 1] to [0, 1]


first, mean = {}, {}
for n in (100, 250, 400, 500, 501, 600, 800, 1000):
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(n)
    ddpm = DDPMScheduler(num_train_timesteps=1000)
    ddpm.set_timesteps(n)
    assert ddpm.timesteps[0] == scheduler.timesteps[0]
    first[n], mean[n] = int(scheduler.timesteps[0]), sampled_mean(n)
    print(f"{n:4} steps: the first is t = {first[n]}; mean of the samples {mean[n]:.3f}, of the data 0.131")

assert scheduler.config.timestep_spacing == "leading"
assert first == {100: 990, 250: 996, 400: 798, 500: 998, 501: 500, 600: 599, 800: 799, 1000: 999}
assert all(abs(mean[n] - 0.1307) < 0.01 for n in (100, 250, 500, 1000))
assert mean[501] > 0.18 and mean[600] > 0.15
PYTHON
