#!/usr/bin/env bash
# One would guess: a convolution of 16 images on a CPU is shared by its cores, whatever its number of features.
# What happens: with 64 features it runs on one core. With one row of zeros more than the kernel needs it runs on all of
# them, although it has more to do, and so it does with 128 features. XLA's CPU backend hands convolutions to YNNPACK,
# which divides the work among threads by blocks of features, not by images; it does not take those whose result is
# larger than the image, and these run in XLA's own way, on all threads.
# Who is hurt: networks with fewer than 128 features, which train on one core without a word. The option
# xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT leaves YNNPACK only the matrix products.
# Needs Linux and two cores. Counted are threads that get a share of the time of a process, so others may be busy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/threads.py" <<'PROGRAM'
import os
import pathlib
import statistics
import sys

import jax
import jax.numpy as jnp

print(f"jax {jax.__version__}, {len(os.sched_getaffinity(0))} cores")
TASKS = pathlib.Path("/proc/self/task")
OPTION = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}


def had():
    """The nanoseconds that each thread of this process has had."""
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in TASKS.iterdir()}


def busy(features, below=1, options=None):
    """The number of threads that do more than a fifth of a convolution, in most of 50 calls."""
    images, kernel = jnp.ones((16, 48, 48, features)), jnp.ones((3, 3, features, features))
    function = jax.jit(
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, (1, 1), ((1, below), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        compiler_options=options,
    )
    function(images, kernel).block_until_ready()
    counts = []
    for _ in range(50):
        before = had()
        function(images, kernel).block_until_ready()
        spent = [after - before.get(name, 0) for name, after in had().items()]
        counts.append(sum(value > sum(spent) / 5 for value in spent))
    count = statistics.median_low(counts)
    print(f"{features} features, {below} rows of zeros below{', with the option' * bool(options)}: threads {count}")
    return count


sys.exit(not (busy(64) == 1 and busy(64, below=2) > 1 and busy(128) > 1 and busy(64, options=OPTION) > 1))
PROGRAM
if ! "$folder/venv/bin/python" "$folder/threads.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
