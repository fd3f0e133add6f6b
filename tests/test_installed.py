"""What an installed package can do without the repository: train with the configs that come with it."""

import json
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from processes import environment

from cvjax import runs

ROOT = Path(__file__).parent.parent


def test_the_configs_are_in_the_package():
    assert (ROOT / "cvjax" / "configs").resolve() == ROOT / "configs"  # a link, which a wheel holds as files
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert found == {"include": ["cvjax*"]}  # folders without __init__.py too


def test_a_wheel_has_all_files_of_the_package(tmp_path):
    pytest.importorskip("setuptools", "77")
    for name in ("cvjax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    package = [path for path in (ROOT / "cvjax").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files = {f"cvjax/{path.relative_to(ROOT / 'cvjax')}" for path in package}
    files |= {f"cvjax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert files <= set(zipfile.ZipFile(wheel).namelist())


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
    assert all(f"{what} ..." in done.stdout for what in ("compiling the training step", "initialising", "evaluating"))
    run = tmp_path / "runs" / "vae_digits-smoke"
    assert (run / "report.html").exists()
    assert json.loads((run / "config.json").read_text())["command"] == shlex.join(["python", *command[1:]])
    explained = subprocess.run([*command[:5], "--config.seed", "--help"], **where, capture_output=True, text=True)
    assert explained.stdout.startswith("  --config.seed=0\n      seed of"), explained.stderr
