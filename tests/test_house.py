"""Each rule of house.py catches what it should, and the project keeps them all: new systems need no new test."""

import ast
import pathlib
import subprocess
import sys

import house
import jax
import jax.numpy as jnp
import pytest
from house import (
    bare_arrays,
    foreign_imports,
    long_code,
    nameless_names,
    poor_config,
    poor_docstrings,
    stilted_prose,
    uncited,
    upward_imports,
    wrong_keys,
)

from cvjax.core import State, descend

GOOD = '''"""Boxes. Girshick, 2015."""
from jaxtyping import Array, Float, Key
from cvjax.errors import UserError


def shift(key: Key[Array, ""], boxes: Float[Array, "n 4"], by: float = 1.0) -> Float[Array, "n 4"]:
    """Moves boxes.

    Args:
      key: of the noise.
      boxes: xyxy.
      by: pixels,
        on average.

    Returns:
      Moved boxes.
    """
    return boxes
'''

PLANTED = [
    (upward_imports, "cvjax/ops/boxes.py", "from cvjax.losses import focal", "floor above"),
    (upward_imports, "cvjax/ops/boxes.py", "from cvjax import fit", "floor above"),
    (upward_imports, "cvjax/ops/boxes.py", "from ..nets import resnet", "floor above"),
    (upward_imports, "cvjax/ops/boxes.py", "def f():\n  import cvjax.generative.gans.gan as gan", "floor above"),
    (upward_imports, "cvjax/data/x.py", "importlib.import_module('cvjax.config')", "floor above"),
    (upward_imports, "cvjax/fit.py", "import train", "floor above"),
    (upward_imports, "cvjax/ops/x.py", "if __name__ == '__main__':\n  import cvjax.fit", "floor above"),
    (upward_imports, "cvjax/generative/gans/gan.py", "from cvjax.record import Record", "floor above"),
    (upward_imports, "cvjax/generative/gans/gan.py", "from cvjax.detection.ssd import decode", "another family"),
    (upward_imports, "cvjax/weights/files.py", "from cvjax.weights import __main__", "floor above"),
    (upward_imports, "cvjax/tools/x.py", "", "no floor"),
    (upward_imports, "cvjax/fit.py", "import cvjax.tools", "no floor"),
    (foreign_imports, "cvjax/ops/boxes.py", "def f():\n  import torch.nn.functional as F", "torch"),
    (foreign_imports, "cvjax/ops/boxes.py", "from tensorflow import io", "tensorflow"),
    (poor_docstrings, "cvjax/ops/x.py", "def f(): pass", "first line"),
    (poor_docstrings, "cvjax/ops/x.py", "class F:\n  def g(self): pass", "F.g"),
    (poor_docstrings, "cvjax/ops/x.py", GOOD.replace("Moves boxes.", "Moves\n    boxes."), "first line"),
    (poor_docstrings, "cvjax/ops/x.py", GOOD.replace("by: pixels", "bye: pixels"), "['key', 'boxes', 'bye']"),
    (poor_docstrings, "cvjax/ops/x.py", GOOD.replace("key: of the noise", "by: pixels"), "['by', 'boxes', 'by']"),
    (poor_docstrings, "cvjax/ops/x.py", GOOD.replace("Returns:", "So:"), "no Returns"),
    (poor_docstrings, "cvjax/x.py", "def recipe(a, b, c):\n  'Adds three.'", "Args documents []"),
    (bare_arrays, "cvjax/ops/x.py", "def f(x): pass", "x has no type"),
    (bare_arrays, "cvjax/ops/x.py", "def f(x: jax.Array): pass", "x is an array without a shape"),
    (bare_arrays, "cvjax/ops/x.py", "def f() -> tuple[int, np.ndarray | None]: pass", "the result"),
    (bare_arrays, "cvjax/nets/x.py", "class N:\n  def __call__(self, x: Array): pass", "N.__call__: x"),
    (wrong_keys, "cvjax/ops/x.py", "def f(rng: int): pass", "`key`"),
    (wrong_keys, "cvjax/ops/x.py", "def f(noise: Key[Array, '']): pass", "`key`"),
    (wrong_keys, "cvjax/ops/x.py", "def f(x: int, key: Key[Array, '']): pass", "first"),
    (nameless_names, "cvjax/utils.py", "", "utils"),
    (nameless_names, "cvjax/misc/x.py", "", "misc"),
    (nameless_names, "cvjax/x.py", "def f():\n  tmp = 1", "tmp"),
    (nameless_names, "cvjax/x.py", "def load_helper(): pass", "load_helper"),
    (uncited, "cvjax/losses/x.py", GOOD.replace(" Girshick, 2015.", ""), "cites a source"),
    (long_code, "cvjax/x.py", "\n" * 401, "401 lines"),
    (long_code, "cvjax/x.py", "def f():\n" + "  x = 1\n" * 60, "61 lines of its own"),
    (poor_config, "configs/vae.py", '"""VAE.\n\nPaper: Kingma 2014\nResult: RESULT\nTime: 3 minutes\n"""', "`Result"),
    (poor_config, "configs/vae.py", '"""VAE.\n\nCommand: python train.py --config=configs/gan.py\n"""', "`Command"),
    (poor_config, "configs/vae.py", '"""VAE."""', "`Paper"),
    (stilted_prose, "cvjax/x.py", "'Crops.'\n\n# Flips, likewise.", "x.py:3 'likewise'"),
    (stilted_prose, "cvjax/x.py", "def f():\n  '''Draws.\n\n  far: so\n    many.'''", "x.py:4 'so many'"),
    (stilted_prose, "cvjax/x.py", "# Rows; noise has as\n# many.", "x.py:1 'as many': say 'the same number'"),
    (stilted_prose, "cvjax/x.py", "raise ValueError(f'{n} boxes: there are not so many.')", "if there are fewer"),
    (stilted_prose, "cvjax/x.py", "say = 1  # is told of each step", "is given"),
    (stilted_prose, "cvjax/x.py", "'Makes what of the pictures is made on the device.'", "name the thing"),
    (stilted_prose, "cvjax/x.py", "'Boxes of which no more is known.'", "'of which no'"),
    (stilted_prose, "cvjax/x.py", "'Writes what the system makes of them.'", "the output of"),
    (stilted_prose, "cvjax/x.py", "'Returns one logit an image.'", "'per'"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "text", "words"), PLANTED)
def test_rule_catches(rule, path, text, words):
    assert words in "\n".join(rule(path, text))


@pytest.mark.parametrize("rule", dict.fromkeys(p[0] for p in PLANTED if p[0] is not poor_config))
def test_rule_lets_good_code_pass(rule):
    nested = "def f():\n  '''" + "\n" * 50 + "'''\n" + "  def g():\n    pass\n" * 25
    assert rule("cvjax/losses/focal.py", GOOD) == []
    assert rule is not long_code or long_code("cvjax/x.py", nested) == []
    assert (
        rule is not upward_imports or rule("cvjax/nets/unet.py", "from cvjax.losses import focal\nimport cvjax") == []
    )
    assert rule is not upward_imports or rule("cvjax/fit.py", "from cvjax import __version__, data") == []
    assert rule is not foreign_imports or rule("cvjax/data/x.py", "import tensorflow_datasets") == []
    shared = "def recipe(a, b, c):\n  '''Adds.\n\n  Args:\n    a, b: summands.\n    c: another.\n  '''"
    for documented in (shared, GOOD.replace("boxes: xyxy", ""), "def f(a, b, c):\n  'Adds three.'"):
        assert rule is not poor_docstrings or rule("cvjax/x.py", documented) == []
    plain = "# twice as many rows, as many columns as there are, at least as many as before; models are told apart"
    assert rule is not stilted_prose or rule("cvjax/x.py", plain) == []


# --- the rules hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", house.RULES)
def test_project_keeps(rule):
    complaints = house.complaints(rule)
    assert not complaints, "\n" + "\n".join(complaints)


def test_families_are_the_folders_that_hold_systems():
    from cvjax import config

    assert {name.split(".")[0] for name in config.systems()} == house.FAMILIES >= {"generative", "detection"}


def test_every_test_file_has_a_name_of_its_own():
    names = [pathlib.PurePath(path).name for path in house.sources("tests/**/test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_every_folder_is_a_package():
    folders = {pathlib.PurePath(path).parent for path in house.sources("cvjax/**/*.py")}
    assert [f for f in folders if not (house.ROOT / f / "__init__.py").exists()] == []


def test_docstrings_are_at_most_a_fifth_of_the_lines():
    described = lines = 0
    for path in house.sources("cvjax/**/*.py"):
        text = (house.ROOT / path).read_text(encoding="utf-8")
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                described += node.body[0].end_lineno - node.body[0].lineno + 1
    assert described < 0.2 * lines


def test_everything_imports_without_tensorflow_and_torch():
    modules = [
        p.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for p in house.sources("cvjax/**/*.py")
    ]
    program = f"""
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "torch", "keras"): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
for name in {modules}: importlib.import_module(name)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


# --- the suite itself ---------------------------------------------------------------------------------------------


def test_suite_has_eight_devices_and_checks_shapes():
    assert len(jax.devices()) == 8
    with pytest.raises(Exception, match="parameter 'tx'"):
        descend(None, lambda p: (p, None), 1.0, None)
    state = State(step=jnp.int32(0), params={}, opt={}, extra={})
    assert jax.tree.map(lambda leaf: "anything", state).step == "anything"  # as jit, sharding and checkpoints do
