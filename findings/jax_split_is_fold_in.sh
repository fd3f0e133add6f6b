#!/usr/bin/env bash
# One would guess: jax.random.fold_in(key, step) and jax.random.split(key) derive unrelated keys, so that one key can
# give the initial parameters by split and a key for every training step by fold_in.
# What happens: with the generator that is the default since JAX 0.5, split(key, n)[i] is fold_in(key, i), bit by bit
# (on purpose: pull request 13341 of JAX). Below, the noise of training step 1 equals the initial parameters.
# jax.debug_key_reuse, which is there to find such mistakes, does not count fold_in as a use and sees nothing.
# Who is hurt: training loops that fold the step number into a key which has also been split: their first steps repeat
# random numbers that were used already. Split first, and fold the step into a key of its own.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import jax
import numpy as np

print({name: version(name) for name in ("jax", "jaxlib", "numpy")})
with jax.debug_key_reuse(True):
    key = jax.random.key(42)
    step_keys = [jax.random.fold_in(key, step) for step in range(3)]
    data_key, init_key, dropout_key = jax.random.split(key, 3)
    noise = [np.asarray(jax.random.normal(k, (10_000,))) for k in step_keys]
    parameters = np.asarray(jax.random.normal(init_key, (10_000,)))
    mask = np.asarray(jax.random.bernoulli(dropout_key, 0.9, (10_000,)))

correlation = [float(np.corrcoef(parameters, n)[0, 1]) for n in noise]
print("correlation of the parameters with the noise of steps 0, 1, 2:", np.round(correlation, 3))
split_off = (data_key, init_key, dropout_key)
same = [[bool((jax.random.key_data(a) == jax.random.key_data(b)).all()) for b in split_off] for a in step_keys]
print("keys of steps 0, 1, 2 that equal one of the three split off:", same)
assert same == np.eye(3, dtype=bool).tolist()
assert correlation[1] > 0.999 and abs(correlation[0]) < 0.05 and abs(correlation[2]) < 0.05

# The check of key reuse is on, and does find a key that is used twice.
with jax.debug_key_reuse(True):
    key = jax.random.key(0)
    jax.random.normal(key)
    try:
        jax.random.normal(key)
    except jax.errors.KeyReuseError as error:
        print("of a key that is used twice the check says:", str(error).splitlines()[0])
    else:
        raise AssertionError("the check of key reuse found nothing")

# The earlier generator keeps them apart.
with jax.threefry_partitionable(False):
    key = jax.random.key(42)
    apart = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(3)]
    split = jax.random.key_data(jax.random.split(key, 3))
    equal = [bool((a == b).all()) for a, b in zip(apart, split)]
print("with jax_threefry_partitionable=False:", equal)
assert equal == [False, False, False]
PYTHON
