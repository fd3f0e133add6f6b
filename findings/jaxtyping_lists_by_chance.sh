#!/usr/bin/env bash
# One would guess: a list annotated `list[Float[ndarray, "batch 3"]]`, of arrays with different numbers of rows, is either
# accepted, each array having a batch of its own, or refused, since "batch" is one number within a call.
# What happens: it is accepted or refused by chance, call by call. beartype looks at one random item of a list. jaxtyping
# has it look once before the call, which binds "batch", and once more, with the result, after it: if the second look
# falls on an array of another length, the call fails, and the message blames a return value that is what it should be.
# With two lengths, about half of the calls fail; a test passes one day and fails the next.
# Who is hurt: functions that go through batches, of which the last is shorter. "..." instead of a named axis helps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.6
cat > "$folder/call.py" <<'PROGRAM'
import sys
from importlib import metadata

import numpy as np
from beartype import beartype
from jaxtyping import Float, TypeCheckError, jaxtyped

print(*[f"{name} {metadata.version(name)}" for name in ("jaxtyping", "beartype", "numpy")], sep=", ")


@jaxtyped(typechecker=beartype)
def named(batches: list[Float[np.ndarray, "batch 3"]]) -> int:
    return sum(map(len, batches))


@jaxtyped(typechecker=beartype)
def unnamed(batches: list[Float[np.ndarray, "..."]]) -> int:
    return sum(map(len, batches))


def refused(function, batches, calls=400):
    messages = []
    for _ in range(calls):
        try:
            assert function(batches) == sum(map(len, batches))
        except TypeCheckError as error:
            messages.append(str(error).splitlines()[0])
    print(f"{function.__name__}, lengths {[len(x) for x in batches]}: {len(messages)} of {calls} refused", *set(messages))
    return len(messages), all("return value" in message for message in messages)


uneven, even = [np.zeros((rows, 3)) for rows in (4, 1)], [np.zeros((4, 3))] * 2
count, blamed = refused(named, uneven)
same = 100 < count < 300 and blamed and refused(named, even)[0] == 0 and refused(unnamed, uneven)[0] == 0
sys.exit(not same)
PROGRAM
if ! "$folder/venv/bin/python" "$folder/call.py"; then
  echo "This has changed."
  exit 1
fi
echo "As described."
