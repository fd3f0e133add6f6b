#!/usr/bin/env bash
# One would guess: 21 / 7 is 3, since a division is rounded correctly, and JAX divides in float32 as NumPy does.
# What happens: an array divided by one number, constant or not, inside jit or outside, is multiplied by the number's
# rounded reciprocal on a CPU. 21 / 7 is above 3, and `ceil` of it 4; 41 / 41 is below 1, and `floor` of it 0. More than
# half of the quotients of whole numbers by 7 differ from NumPy's in the last digit. By an array of sevens, which XLA
# cannot know to be one number, the quotients are NumPy's.
# Who is hurt: code that floors or ceils quotients, such as the bins of RoIPool, of which some began or ended a cell off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/divide.py" <<'PROGRAM'
import sys

import jax
import jax.numpy as jnp
import numpy as np

print(f"jax {jax.__version__}, numpy {np.__version__}, {jax.default_backend()}")
numbers = np.arange(1, 4097, dtype=np.float32)


def compare(divisor, name, divide):
    found, right = np.asarray(divide(numbers)), numbers / np.float32(divisor)
    above = numbers[np.ceil(found) > np.ceil(right)][:4].astype(int).tolist()
    below = numbers[np.floor(found) < np.floor(right)][:4].astype(int).tolist()
    print(f"by {divisor}, {name}: {(found != right).sum()} of 4096 differ; ceil above {above}; floor below {below}")
    return (found != right).any(), above, below


seven = compare(7, "op by op", lambda x: jnp.asarray(x) / 7)
jitted = compare(7, "jit", jax.jit(lambda x: x / 7))
argument = compare(7, "jit, an argument", lambda x: jax.jit(jnp.divide)(x, 7.0))
array = compare(7, "jit, an array of sevens", lambda x: jax.jit(jnp.divide)(x, np.full_like(x, 7)))
itself = compare(41, "jit", jax.jit(lambda x: x / 41))
same = seven == jitted == argument and seven[1][0] == 21 and not array[0] and itself[2][0] == 41
sys.exit(not same)
PROGRAM
if ! "$folder/venv/bin/python" "$folder/divide.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
