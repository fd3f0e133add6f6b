#!/usr/bin/env bash
# One would guess: the output of LayerNorm has a standard deviation of 1, whatever is added to the input.
# What happens: Flax's norms compute the variance as mean(x^2) - mean(x)^2 in float32 and clip it at 0. With a mean of
# 4,000 and a deviation of 1 it may come out as 0 (the output is 1,000 times too large), or several times too
# large. BatchNorm then stores the wrong variance for inference. use_fast_variance=False gives the right result.
# Who is hurt: nets fed depth in millimetres, 16-bit medical or satellite images, heights or times without
# centring them first: a norm as the first layer, which should make this unnecessary, is what goes wrong.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

print({name: version(name) for name in ("flax", "jax", "jaxlib", "numpy")})
signal = np.random.default_rng(0).normal(size=(64, 64))


def deviations(norm, offset, axis):
    x = jnp.asarray(signal + offset, jnp.float32)
    output, _ = norm.init_with_output(jax.random.key(0), x)
    return np.asarray(output).std(axis=axis)


for offset in (0, 100, 1000, 4000):
    rows = {fast: deviations(nn.LayerNorm(use_fast_variance=fast), offset, -1) for fast in (True, False)}
    print(f"LayerNorm, mean {offset:5}: deviation of a row {rows[True].min():.3f} to {rows[True].max():.3f};"
          f" with use_fast_variance=False {rows[False].min():.3f} to {rows[False].max():.3f}")
    assert np.allclose(rows[False], 1, atol=1e-3)
    if offset == 0:
        assert np.allclose(rows[True], 1, atol=1e-3)
assert rows[True].max() > 100 and rows[True].min() < 0.9

norm = nn.BatchNorm(use_running_average=False, momentum=0.0)
columns = jnp.asarray(signal + 4000, jnp.float32)
_, variables = norm.init_with_output(jax.random.key(0), columns)
_, stored = norm.apply(variables, columns, mutable=["batch_stats"])
variance = np.asarray(stored["batch_stats"]["var"])
true = np.asarray(columns, np.float64).var(axis=0)
print(f"BatchNorm stores a variance of 0 for {np.mean(variance == 0):.0%} of the channels;"
      f" others are {(variance / true)[variance > 0].min():.2f} to {(variance / true).max():.2f} times the true one")
assert (variance == 0).mean() > 0.05 and np.max(variance / true) > 1.5
PYTHON
