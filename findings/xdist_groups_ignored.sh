#!/usr/bin/env bash
# One would guess: with `pytest -n 2 --dist loadgroup`, tests that are marked with one xdist_group run in one worker.
# What happens: pytest-xdist 3.8.0 tells the group by writing it behind the test's `_nodeid`. Since pytest 9.2.0 a node
# computes `nodeid` from elsewhere, so the group is lost, without a warning: marked tests are spread over the workers,
# as without the mark. With pytest 9.1.0 they stay together. pip installs the two side by side.
# Who is hurt: tests that share a GPU, a port or a trained network by their group compete for it, or train it again in
# every worker. A `pytest_xdist_make_scheduler` with a `_split_scope` of one's own still keeps them together.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"
cat > test_group.py <<'PROGRAM'
import os
import pathlib
import time

import pytest


@pytest.mark.xdist_group("gpu")
@pytest.mark.parametrize("index", range(8))
def test_of_one_group(index):
    time.sleep(0.3)
    with pathlib.Path("workers.txt").open("a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
PROGRAM
for version in 9.1.0 9.2.0; do
  venv/bin/pip install --quiet --disable-pip-version-check "pytest==$version" pytest-xdist==3.8.0
  rm -f workers.txt
  venv/bin/python -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider test_group.py > output.txt
  workers=$(sort -u workers.txt | wc -l)
  echo "pytest $version, pytest-xdist 3.8.0: 8 tests of one group ran in $workers worker(s): $(tail -1 output.txt)"
  case $version:$workers in
    9.1.0:1 | 9.2.0:2) ;;
    *) echo "This has changed."; exit 1 ;;
  esac
done
echo "As described."
