#!/usr/bin/env bash
# One would guess: save_file(array) followed by load_file() gives the array back, whatever its strides.
# What happens: since 0.8.0 the NumPy front end of safetensors writes an array that is not C-contiguous in the
# order of its memory, under the shape of the view. A transposed kernel comes back scrambled, without a word.
# Who is hurt: everyone who converts torch weights (OIHW) to JAX (HWIO) with transpose() and saves the result: the
# file loads, all shapes are right, and the network answers nonsense. np.ascontiguousarray before saving avoids it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet numpy==2.4.6 safetensors==0.8.0
"$dir/venv/bin/pip" install --quiet --no-deps --target "$dir/before" safetensors==0.7.0
cd "$dir"
cat > kernel.py <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load_file, save_file

print("numpy", version("numpy"), "safetensors", version("safetensors"))
torch_kernel = np.random.default_rng(0).normal(size=(16, 3, 5, 5)).astype(np.float32)
kernel = torch_kernel.transpose(2, 3, 1, 0)  # OIHW to HWIO
arrays = {"transposed": kernel, "sliced": kernel[:, :, :, ::2], "copied": np.ascontiguousarray(kernel)}
save_file(arrays, "kernel.safetensors")
loaded = load_file("kernel.safetensors")
same = {name: np.array_equal(loaded[name], array) for name, array in arrays.items()}
print("  comes back as it was:", same)
print(f"  weights at another place in 'transposed': {np.mean(loaded['transposed'] != kernel):.1%}")
for name, array in (("before", kernel), ("after", loaded["transposed"])):
    print(f"  answer to a constant patch {name}:", np.round(array.sum((0, 1, 2))[:4], 2))

assert all(loaded[name].shape == array.shape for name, array in arrays.items())
if sys.argv[1] == "right":
    assert all(same.values())
else:
    assert same == {"transposed": False, "sliced": False, "copied": True}
    assert np.array_equal(loaded["transposed"].ravel(), torch_kernel.ravel())  # the order of the memory
PYTHON
PYTHONPATH=before venv/bin/python kernel.py right
venv/bin/python kernel.py scrambled
