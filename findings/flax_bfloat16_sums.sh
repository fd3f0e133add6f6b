#!/usr/bin/env bash
# One would guess: the average of ones is 1 in every type, as sums of bfloat16 are accumulated in float32, by jnp.mean
# and jnp.sum for example.
# What happens: avg_pool of Flax (Linen and NNX) adds up in the type of the input. In bfloat16 a sum of ones stops at
# 256, where adding 1 no longer changes it: 32 x 32 ones average .25. jax.ops.segment_sum stops there too.
# Who is hurt: nets in mixed precision that pool globally with avg_pool: on a large map the features are too small, by
# a factor that depends on the size of the image. Even averages over 7 x 7 random values are more than 1 % off.
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
from flax import nnx

print({name: version(name) for name in ("flax", "jax", "jaxlib", "numpy")})
for size in (7, 16, 32, 64):
    x = jnp.ones((1, size, size, 1), jnp.bfloat16)
    pooled = [float(pool(x, (size, size))[0, 0, 0, 0]) for pool in (nn.avg_pool, nnx.avg_pool)]
    mean = float(x.mean())
    print(f"{size} x {size} ones in bfloat16: avg_pool of Linen and NNX {pooled}, mean {mean}")
    assert mean == 1 and pooled[0] == pooled[1]
    assert pooled[0] == 1 if size**2 <= 256 else pooled[0] < 0.5

x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 7, 7, 512)), jnp.bfloat16)
exact = np.asarray(x, np.float64).mean((0, 1, 2))
error = {name: np.abs(np.asarray(y, np.float64).ravel() / exact - 1).max()
         for name, y in (("avg_pool", nn.avg_pool(x, (7, 7))), ("mean", x.mean((1, 2))))}
print("largest error of a 7 x 7 average:", {name: f"{e:.2%}" for name, e in error.items()})
assert error["avg_pool"] > 0.01 > 0.004 > error["mean"]

votes = jax.ops.segment_sum(jnp.ones(1000, jnp.bfloat16), jnp.zeros(1000, int), 1)
print("segment_sum of 1000 ones:", float(votes[0]), "and jnp.sum:", float(jnp.ones(1000, jnp.bfloat16).sum()))
assert votes[0] == 256 and jnp.ones(1000, jnp.bfloat16).sum() == 1000
PYTHON
