"""What an installed package can do without the repository: train with the configs that come with it."""

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import environment

from cvjax import runs

ROOT = Path(__file__).parent.parent


def test_the_configs_are_in_the_package():
    assert (ROOT / "cvjax" / "configs").resolve() == ROOT / "configs"  # a link, which a wheel holds as files
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert found == {"include": ["cvjax*"]}  # folders without __init__.py too


def test_the_commit_is_that_of_the_repository_or_none(monkeypatch, tmp_path):
    if (ROOT / ".git").exists() and shutil.which("git"):
        assert len(runs.find_commit()) == 40
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs.find_commit() == ""  # without git
    monkeypatch.undo()
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "site-packages" / "cvjax" / "runs.py"))
    assert runs.find_commit() == ""  # installed, perhaps inside the repository of something else


@pytest.mark.slow
def test_training_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "cvjax.train", "--config", "vae_digits:smoke", "--config.steps", "2"]
    where = dict(cwd=tmp_path, env=environment() | {"PYTHONPATH": str(ROOT)})
    done = subprocess.run(command, **where, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "compiling the training step" in done.stdout and "evaluating" in done.stdout
    run = tmp_path / "runs" / "vae_digits-smoke"
    assert (run / "report.html").exists()
    assert json.loads((run / "config.json").read_text())["command"] == shlex.join(["python", *command[1:]])
    explained = subprocess.run([*command[:5], "--config.seed", "--help"], **where, capture_output=True, text=True)
    assert explained.stdout.startswith("  --config.seed=0\n      seed of"), explained.stderr
