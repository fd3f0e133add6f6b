#!/usr/bin/env bash
# One would guess: jaxtyping's import hook checks shapes in the process that installs it, and leaves nothing behind for
# processes without it.
# What happens: the hook sets its bytecode apart while a module is imported. What `runpy.run_module` (how tests run a
# `python -m` program in their own process) compiles under the hook goes into __pycache__ under the module's ordinary
# name. From then on a plain `import` of that module, in a process without the hook, ends in KeyError: '<32 digits>'
# until the source changes or the cache is removed.
# Who is hurt: a test-suite passes, and afterwards the program itself no longer starts; or a test that starts a plain
# process fails, depending on the order of the tests. Set `sys.dont_write_bytecode` around `runpy.run_module`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.6
cd "$folder"
mkdir -p shapes
touch shapes/__init__.py
cat > shapes/tool.py <<'PROGRAM'
import numpy as np
from jaxtyping import Float


def double(x: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    return 2 * x


if __name__ == "__main__":
    print("run as a program:", double(np.ones((1, 2))))
PROGRAM
cat > hooked.py <<'PROGRAM'
import runpy
import sys
from importlib import metadata

import jaxtyping

versions = [f"{name} {metadata.version(name)}" for name in ("jaxtyping", "beartype")]
print(*versions, "Python", sys.version.split()[0])
sys.dont_write_bytecode = sys.argv[1] == "leave nothing"
with jaxtyping.install_import_hook("shapes", "beartype.beartype"):
    runpy.run_module("shapes.tool", run_name="__main__")
PROGRAM
plain() {
  (venv/bin/python -c 'import shapes.tool; print("a plain import works")' 2>&1 || true) | tail -1
}
venv/bin/python hooked.py "leave nothing"
clean=$(plain)
echo "after it, without bytecode: $clean"
rm -rf shapes/__pycache__
venv/bin/python hooked.py "write bytecode"
poisoned=$(plain)
echo "after it, with bytecode: $poisoned"
rm -rf shapes/__pycache__
echo "after removing __pycache__: $(plain)"
[[ $clean == "a plain import works" && $poisoned == "KeyError: '"* ]] || { echo "This has changed."; exit 1; }
echo "As described."
