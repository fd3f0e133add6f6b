"""Mistakes on the real command line: exit code 1, one message that names what, where and what would be right."""

import concurrent.futures
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VAE = "--config=configs/vae_digits.py:smoke"

BROKEN_CONFIG = """
from cvjax.config import experiment
def get_config(name=""):
    return experiment({system!r}, {rest})
"""

# The name of each mistake: (arguments, what the message has to say).
MISTAKES = {
    "no config": ([], ["--config=FILE", "configs/vae_digits.py"]),
    "missing file": (
        ["--config=configs/vae_digit.py"],
        ["configs/vae_digit.py", "Did you mean 'configs/vae_digits.py'?"],
    ),
    "not a config": (["--config=README.md"], ["README.md", "does not give a config"]),
    "unknown variant": (["--config=configs/vae_digits.py:smok"], ["no variant 'smok'", "Did you mean 'smoke'?"]),
    "misspelt flag": ([VAE, "--wrkdir=x"], ["wrkdir", "workdir"]),
    "misspelt key": ([VAE, "--config.step=3"], ["--config.step=3", "Did you mean 'steps'?"]),
    "misspelt recipe key": ([VAE, "--config.recipe.laten=3"], ["config.recipe", "'laten'", "Did you mean 'latent'?"]),
    "misspelt group": ([VAE, "--config.recip.latent=3"], ["'recip'", "Did you mean 'recipe'?"]),
    "mistyped value": ([VAE, "--config.steps=many"], ["--config.steps=many", "expected int"]),
    "mistyped fraction": ([VAE, "--config.steps=2.5"], ["--config.steps=2.5", "expected int"]),
    "mistyped switch": ([VAE, "--config.recipe.binarise=maybe"], ["--config.recipe.binarise=maybe", "true or false"]),
    "no value": ([VAE, "--config.steps"], ["--config.steps", "expected --config.steps=VALUE"]),
    "a whole group": ([VAE, "--config.data=digits"], ["config.data is a group", "name"]),
    "out of range": ([VAE, "--config.steps=0"], ["config.steps=0", "at least 1"]),
    "unknown dataset": ([VAE, "--config.data.name=digit"], ["digit", "Did you mean 'digits'?"]),
    "unknown split": ([VAE, "--config.data.train_split=trian"], ["trian", "train"]),
    "unknown transform": ([VAE, "--config.data.transforms=({'op': 'flop'},)"], ["flop", "flip"]),
    "unknown optimiser": ([VAE, "--config.recipe.optimiser.name=adm"], ["adm", "adam"]),
    "unknown mesh": ([VAE, "--config.mesh.data=3", "--config.mesh.fsdp=5"], ["config.mesh", "8 devices"]),
    "indivisible batch": ([VAE, "--config.data.batch=17"], ["17", "8"]),
    "unknown system": ("system", ["config.system", "Did you mean 'generative.vae'?"]),
    "misspelt key in the file": ("key", ["config.stepz", "Did you mean 'steps'?"]),
    "misspelt argument in the file": ("argument", ["config.recipe.latnt", "Did you mean 'latent'?"]),
    "mistyped argument in the file": ("type", ["config.recipe.latent='eight'", "expected int"]),
    "misspelt optimiser argument": ("optimiser", ["learning_rat", "learning_rate"]),
}
FILES = {
    "system": ("generative.vea", "steps=1"),
    "key": ("generative.vae", "stepz=1, recipe=dict(shape=(8, 8, 1))"),
    "argument": ("generative.vae", "recipe=dict(shape=(8, 8, 1), latnt=3)"),
    "type": ("generative.vae", "recipe=dict(shape=(8, 8, 1), latent='eight'), data=dict(name='digits')"),
    "optimiser": (
        "generative.vae",
        "data=dict(name='digits'), recipe=dict(shape=(8, 8, 1), optimiser=dict(name='adam', learning_rat=1.0))",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each mistake led to: all are made at once, two at a time."""

    def make(item):
        name, (arguments, _) = item
        folder = tmp_path_factory.mktemp("run")
        if isinstance(arguments, str):
            system, rest = FILES[arguments]
            (folder / "broken.py").write_text(BROKEN_CONFIG.format(system=system, rest=rest))
            arguments = [f"--config={folder / 'broken.py'}"]
        command = [sys.executable, "train.py", *arguments, f"--workdir={folder / 'run'}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=dict(os.environ))
        return name, (done, folder / "run")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(pool.map(make, MISTAKES.items()))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(outcomes, name):
    done, workdir = outcomes[name]
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for words in MISTAKES[name][1]:
        assert words in done.stderr
    assert not (workdir / "config.json").exists()  # nothing was begun
