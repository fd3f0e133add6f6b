#!/usr/bin/env bash
# One would guess: NaN times 0 is NaN, and jit changes the speed of a function, not whether its result is NaN.
# What happens: if a mask is made of booleans inside the compiled function, XLA rewrites x * mask as select(mask, x, 0).
# The loss below is NaN when called, .408 when jitted, and NaN when jitted with the same mask as an argument.
# jax.debug_nans finds nothing in the compiled one. Optax gives NaN for the label 255, so this is an everyday loss.
# Who is hurt: people who test a masked loss eagerly and train it compiled, or the other way round; who move the mask
# out of the jitted function, into the data pipeline, and get NaN; who look for the origin of a NaN without jit.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 optax==0.2.8 numpy==2.4.6
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax

print({name: version(name) for name in ("jax", "jaxlib", "optax", "numpy")})
logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [1.0, 1.0, 0.0]])
labels = jnp.array([0, 2, 255])  # 255 is void in many segmentation datasets


def masked_mean(logits, labels, mask):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * mask).sum() / mask.sum()


def loss(logits, labels):
    return masked_mean(logits, labels, (labels != 255).astype(jnp.float32))


mask = (labels != 255).astype(jnp.float32)
results = {
    "called": loss(logits, labels),
    "jitted": jax.jit(loss)(logits, labels),
    "jitted, the same mask as an argument": jax.jit(masked_mean)(logits, labels, mask),
}
with jax.debug_nans(True):
    results["jitted, with jax.debug_nans"] = jax.jit(loss)(logits, labels)
    try:
        loss(logits, labels)
    except FloatingPointError:
        print("called, with jax.debug_nans: FloatingPointError")
    else:
        raise AssertionError("jax.debug_nans found no NaN")
for name, value in results.items():
    print(f"{name}: {value:.4f}")
program = jax.jit(lambda x, m: x * m.astype(jnp.float32)).lower(jnp.ones(3), jnp.ones(3, bool)).compile().as_text()
lines = [line.split(", metadata")[0].strip() for line in program.splitlines()]
print("x * mask is compiled to:", *[line for line in lines if " select(" in line])

assert [bool(np.isnan(value)) for value in results.values()] == [True, False, True, False]
assert np.allclose(results["jitted"], 0.4076, atol=1e-4)
assert " select(" in program and " multiply(" not in program
nan = np.float32("nan")
assert np.isnan(np.array([nan]) * np.array([False])).all() and (jnp.array([nan]) * jnp.array([False]) == 0).all()
PYTHON
