#!/usr/bin/env bash
# One would guess: threads may read .npy files with numpy.load, whatever else has been imported.
# What happens: on Python 3.11, once jax is imported, it now and then ends in "SystemError: AST constructor recursion
# depth mismatch". numpy.load parses the header of a file as a Python literal, and the parser of Python 3.11 counts its
# depth once for all threads. Nothing else runs meanwhile, unless a garbage collection comes in between that calls
# Python code: jax installs such a callback, and another thread gets its turn. In Python 3.12 it does not happen.
# Who is hurt: loaders that read features from .npy files in threads, after hours of training. A lock around numpy.load
# helps. Here threads take turns every 10 microseconds, so that it comes within a minute or two.
# Needs a Python 3.11: PYTHON=python3.11 bash findings/jax_import_numpy_load_threads.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "This is about Python 3.11.")'
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cat > "$folder/read.py" <<'PROGRAM'
import gc
import importlib
import platform
import sys
import threading
import time

import numpy as np

path, seconds, *modules = sys.argv[1:]
for module in modules:
    importlib.import_module(module)
np.save(path, np.zeros((3, 4), np.float32))
sys.setswitchinterval(1e-5)
errors, reads, until = [], [0], time.monotonic() + float(seconds)


def read():
    garbage = []
    while time.monotonic() < until and not errors:
        garbage = [*garbage[-5000:], [garbage]]
        reads[0] += 1
        try:
            np.load(path)
        except SystemError as error:
            errors.append(str(error))


threads = [threading.Thread(target=read) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(
    f"Python {platform.python_version()}, numpy {np.__version__}, imported {modules}, gc.callbacks "
    f"{[callback.__name__ for callback in gc.callbacks]}: {reads[0]} reads, {errors or 'no error'}"
)
sys.exit(bool(errors))
PROGRAM
if ! "$folder/venv/bin/python" "$folder/read.py" "$folder/a.npy" 60 || "$folder/venv/bin/python" "$folder/read.py" "$folder/a.npy" 600 jax; then
  echo "This has changed."
  exit 1
fi
echo "As described."
