#!/usr/bin/env bash
# One would guess: what flax.serialization.to_bytes writes, from_bytes reads, as numpy.save and numpy.load do.
# What happens: Flax writes the bytes of the array as they lie in memory and only the name of its type, "float32",
# which leaves the byte order out. A big-endian array comes back with its bytes exchanged: .485 as -1e27.
# Who is hurt: people who read a mean image or targets from a big-endian format, such as FITS, NetCDF 3 or IDX (MNIST),
# and keep them in a state that Flax saves. There is no error and no warning.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 scipy==1.17.1
cd "$dir"
venv/bin/python - <<'PYTHON'
from importlib.metadata import version
from io import BytesIO

import numpy as np
from flax import serialization
from scipy.io import netcdf_file

print({name: version(name) for name in ("flax", "jax", "jaxlib", "numpy", "scipy")})
file = BytesIO()
with netcdf_file(file, "w") as f:  # an ordinary way to come by such an array
    f.createDimension("band", 3)
    f.createVariable("mean", "f4", ("band",))[:] = [0.485, 0.456, 0.406]
    f.flush()
    content = file.getvalue()
mean = netcdf_file(BytesIO(content), mmap=False).variables["mean"][:].copy()
print("read from NetCDF:", mean, mean.dtype.str, "- equal to a native array:", np.array_equal(mean, mean.astype("f4")))

state = {"mean": mean, "native": mean.astype("f4"), "count": np.array([1, 2, 3], ">i4")}
restored = serialization.from_bytes(state, serialization.to_bytes(state))
print("after to_bytes and from_bytes:", restored)
saved = BytesIO()
np.save(saved, mean)
saved.seek(0)
print("after numpy.save and numpy.load:", np.load(saved))

assert np.array_equal(np.load(BytesIO(saved.getvalue())), mean)
assert np.array_equal(restored["native"], state["native"])
assert restored["mean"].dtype == np.float32 and np.array_equal(restored["mean"], mean.view("f4"))
assert not np.allclose(restored["mean"], mean)
assert restored["count"].tolist() == [2**24, 2**25, 2**24 + 2**25]
PYTHON
