#!/usr/bin/env bash
# One would guess: an array, its maxima over 2 neighbours, over 4, over 8, ..., each computed from the one before, cost
# one maximum per stage, whether the stages are returned as a list or stacked into one array.
# What happens: on a CPU, XLA fuses each stage into the stack together with all that it is made of, and computes it
# again for every stage: of seven stages, 22 maxima instead of 7, and the time is many times that of the list. A
# `lax.scan` over the stages, which stacks them just so, computes each of them once.
# Who is hurt: pyramids, sparse tables, prefix sums by doubling, and whatever else stacks its intermediate results.
# `jax.lax.optimization_barrier` between the stages does not help. Maxima are counted in the compiled program.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/stages.py" <<'PROGRAM'
import re
import sys
import time

import jax
import jax.numpy as jnp

STAGES = 7
print(f"jax {jax.__version__}")
rows = jax.random.uniform(jax.random.key(0), (256, 4096))


def wider(x, step):
    return jnp.maximum(x, jnp.roll(x, -step, 0))


def as_list(x, between=lambda x: x):
    found = [x]
    for stage in range(STAGES):
        found.append(between(wider(found[-1], 1 << stage)))
    return found


def as_stack(x):
    return jnp.stack(as_list(x))


def with_barriers(x):
    return jnp.stack(as_list(x, jax.lax.optimization_barrier))


def by_scan(x):
    def stage(x, step):
        return (wider(x, step),) * 2

    return jax.lax.scan(stage, x, 1 << jnp.arange(STAGES))[1]


def maxima(function):
    compiled = jax.jit(function).lower(rows).compile()
    count = len(re.findall(r"= f32\S* maximum\(", compiled.as_text()))
    times = []
    for _ in range(5):
        jax.block_until_ready(compiled(rows))
        start = time.process_time()
        jax.block_until_ready(compiled(rows))
        times.append(time.process_time() - start)
    print(f"{function.__name__}: {count} maxima in the program, {1000 * min(times):.1f} ms")
    return count


counts = [maxima(function) for function in (as_list, as_stack, with_barriers, by_scan)]
sys.exit(not (counts[0] == STAGES and counts[1] > 2 * STAGES and counts[2] > 2 * STAGES and counts[3] == 1))
PROGRAM
if ! "$folder/venv/bin/python" "$folder/stages.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
