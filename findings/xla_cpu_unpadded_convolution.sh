#!/usr/bin/env bash
# One would guess: a convolution without padding takes no longer than the same with one row of zeros, which computes a
# row more.
# What happens: on CPU it takes three to five times as long, once images have 24 channels or more and their patches some
# hundred thousand numbers. Both are fusions for the same library of kernels in the compiled program. In JAX 0.11.2 the
# two are within a quarter of one another.
# Who is hurt: U-Net as its paper has it, and others whose convolutions are "VALID". A row of zeros whose row of outputs
# is cut off again gives the same numbers in a third of the time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/times.py" <<'PROGRAM'
import sys
import time

import jax
import numpy as np


def convolve(x, w, zeros):
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, w, (1, 1), ((0, zeros), (0, 0)), dimension_numbers=layout)
    return y[:, : x.shape[1] - 2]


def milliseconds(function, *arguments):
    function(*arguments).block_until_ready()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        function(*arguments).block_until_ready()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


print(f"jax {jax.__version__}, convolutions 3x3 of two images of 64 channels")
generator = np.random.default_rng(0)
kernel = jax.device_put(generator.standard_normal((3, 3, 64, 64), np.float32))
for size in (26, 142, 284):
    images = jax.device_put(generator.standard_normal((2, size, size, 64), np.float32))
    bare, padded = (jax.jit(lambda x, w, zeros=zeros: convolve(x, w, zeros)) for zeros in (0, 1))
    np.testing.assert_allclose(bare(images, kernel), padded(images, kernel), atol=1e-4)
    times = milliseconds(bare, images, kernel), milliseconds(padded, images, kernel)
    print(f"{size} pixels: {times[0]:.1f} ms without padding, {times[1]:.1f} ms with a row of zeros, which is cut off")
sys.exit(times[0] < 2 * times[1])
PROGRAM
if ! JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/times.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
