#!/usr/bin/env bash
# One would guess: a checkpoint that does not fit the tree given as template is refused, as it is for another shape
# of a jax.Array.
# What happens: the template's types win, silently. A learning rate of .001 restored into a template that says 1 is 0;
# 300 in float32 restored into uint8 becomes another number. And a template of NumPy arrays is not checked for
# shape: what comes back has the shape of the file, where the same template in JAX raises.
# Who is hurt: people who write a template by hand ({"step": 0, "rate": 1}) or change a type between two runs: training
# resumes, with a learning rate of 0 or with a cut mean image.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
import logging
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

logging.disable(logging.WARNING)
print({name: version(name) for name in ("orbax-checkpoint", "jax", "jaxlib", "numpy")})
folder = Path("state").absolute()
saved = {"rate": 0.001, "step": 7, "mean": np.array([1.9, 300.0, 130.0], np.float32), "w": np.ones((2, 3), np.float32)}
ocp.save(folder, saved)

template = {"rate": 1, "step": 0, "mean": np.zeros(3, np.uint8), "w": np.zeros((5,), np.float32)}
loaded = ocp.load(folder, template)
print("saved:", saved)
print("loaded:", loaded)
assert loaded["rate"] == 0 and loaded["step"] == 7
assert loaded["mean"].dtype == np.uint8 and loaded["mean"][0] == 1 and loaded["mean"][2] == 130
assert loaded["w"].shape == (2, 3)
try:
    ocp.load(folder, template | {"w": jnp.zeros((5,), jnp.float32)})
except ValueError as error:
    print("with a jax.Array of that shape as template: ValueError:", str(error).splitlines()[0][:90], "...")
else:
    raise AssertionError("a jax.Array of another shape is taken as template")
PYTHON
