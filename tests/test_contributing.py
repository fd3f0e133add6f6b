"""The worked example of CONTRIBUTING.md: it keeps the rules of the house, trains, and its own test passes."""

import os
import re
import shutil
import subprocess
import sys

import house
import pytest

PAGE = (house.ROOT / "CONTRIBUTING.md").read_text()
FILES = dict(re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL))
SYSTEM, CONFIG, TEST = (
    "cvjax/generative/ppca.py",
    "configs/ppca_digits.py",
    "tests/generative/test_ppca.py",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with the example's files in it."""
    root = tmp_path_factory.mktemp("project")
    for name in ("cvjax", "train.py", "pyproject.toml", "tests/conftest.py"):
        (root / name).parent.mkdir(exist_ok=True)
        source = house.ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def run(root, *command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    result = subprocess.run([sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_example_has_a_system_a_config_and_a_test():
    assert list(FILES) == [SYSTEM, CONFIG, TEST]


@pytest.mark.parametrize("rule", house.RULES)
def test_example_keeps_the_rules(rule):
    chosen = (
        [CONFIG]
        if rule is house.poor_config
        else [SYSTEM, CONFIG, TEST]
        if rule is house.long_code
        else [SYSTEM, CONFIG]
    )
    assert [complaint for path in chosen for complaint in rule(path, FILES[path])] == []


def test_example_is_linted():
    for path, text in FILES.items():
        for command in (["check"], ["format", "--check"]):
            ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", path, "-"]
            result = subprocess.run(ruff, input=text, cwd=house.ROOT, capture_output=True, text=True)
            assert result.returncode == 0, result.stdout + result.stderr


def test_example_trains(tree):
    output = run(tree, "train.py", f"--config={CONFIG}:smoke", "--workdir=run")
    assert "log_likelihood" in output
    assert (tree / "run" / "report.html").exists() and list((tree / "run" / "figures" / "samples").iterdir())


@pytest.mark.slow
def test_examples_test_passes(tree):
    assert "1 passed" in run(tree, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", TEST)


def test_table_of_floors_is_that_of_the_rules():
    rows = re.findall(r"^\| \d \| (.*?) \|", PAGE, re.MULTILINE)
    floors = [{name.removesuffix("/") for name in re.findall(r"`([\w./]+)`", row)} for row in rows]
    assert floors == [set(floor) - {"cvjax"} for floor in house.FLOORS]
