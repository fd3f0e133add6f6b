"""Mistakes on the real command line: exit code 1, one message that names what, where and what would be right."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    "not a config": (["--config=README.md"], ["README.md", "not a Python file"]),
    "unknown variant": (["--config=configs/vae_digits.py:smok"], ["no variant 'smok'", "Did you mean 'smoke'?"]),
    "misspelt flag": ([VAE, "--wrkdir=x"], ["wrkdir", "workdir"]),
    "misspelt key": ([VAE, "--config.step=3"], ["--config.step=3", "Did you mean 'steps'?"]),
    "misspelt recipe key": ([VAE, "--config.recipe.laten=3"], ["config.recipe", "'laten'", "Did you mean 'latent'?"]),
    "misspelt group": ([VAE, "--config.recip.latent=3"], ["'recip'", "Did you mean 'recipe'?"]),
    "mistyped value": ([VAE, "--config.steps=many"], ["--config.steps=many", "expected int"]),
    "mistyped fraction": ([VAE, "--config.steps=2.5"], ["--config.steps=2.5", "expected int"]),
    "mistyped switch": ([VAE, "--config.recipe.binarise=maybe"], ["--config.recipe.binarise=maybe", "true or false"]),
    "no dashes": ([VAE, "config.steps=1"], ["'config.steps=1' is no flag", "--config.steps=1"]),
    "None where a value is due": ([VAE, "--config.steps=None"], ["config.steps=None", "expected int"]),
    "init_from nowhere": ([VAE, "--config.init_from=nowhere/encoder"], ["no folder of checkpoints nowhere"]),
    "best by no figure": ([VAE, "--config.checkpoint_best=fid"], ["config.checkpoint_best='fid'", "bits_per_dim"]),
    "half a cluster": ([VAE, "--coordinator=127.0.0.1:1", "--process_count=2"], ["--coordinator", "--process_index"]),
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


# Imports once, then runs each command line, as it would be run, in a process of its own.
RUNNER = """
import json, os, runpy, sys, traceback, warnings
import cvjax.command, cvjax.fit
warnings.simplefilter("ignore")  # JAX is imported but not initialised: a fork is safe
for arguments, log in json.loads(sys.stdin.read()):
    if os.fork() == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
        os.dup2(2, 1)
        sys.argv, code = ["train.py", *arguments], 0
        try:
            runpy.run_path("train.py", run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each mistake led to: exit code, what was said, and the run's folder."""
    folders, jobs = {}, []
    for name, (arguments, _) in MISTAKES.items():
        folders[name] = folder = tmp_path_factory.mktemp("run")
        if isinstance(arguments, str):
            system, rest = FILES[arguments]
            (folder / "broken.py").write_text(BROKEN_CONFIG.format(system=system, rest=rest))
            arguments = [f"--config={folder / 'broken.py'}"]
        jobs.append(([*arguments, f"--workdir={folder / 'run'}"], str(folder / "log")))
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=ROOT,
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    codes = map(int, run.stdout.split())
    return {
        name: (code, (folder / "log").read_text(), folder / "run")
        for (name, folder), code in zip(folders.items(), codes, strict=True)
    }


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(outcomes, name):
    code, said, workdir = outcomes[name]
    assert code == 1, said
    assert re.search("^error: ", said, re.MULTILINE) and "Traceback" not in said
    for words in MISTAKES[name][1]:
        assert words in said
    assert not (workdir / "config.json").exists()  # nothing was begun


def test_a_mistake_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "train.py", VAE, "--config.step=3"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: --config.step=3") and "Did you mean 'steps'?" in done.stderr


def test_the_readmes_command_trains_on_a_folder_of_images(tmp_path):
    text = (ROOT / "README.md").read_text().split("**Your own images**")[1]
    command = re.search(r"    python train\.py.*?\n\n", text, re.DOTALL).group(0).replace("\\\n", " ").strip()
    pictures = tmp_path / "pictures"
    for index in range(24):
        (pictures / f"class{index % 2}").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 255, (40, 50 + index, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"class{index % 2}" / f"{index}.jpg")
    for old, new in {
        "vae_mnist.py": "vae_mnist.py:smoke",
        "=pictures": f"={pictures}",
        "runs/mine": str(tmp_path / "run"),
    }.items():
        assert old in command
        command = command.replace(old, new)
    arguments = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch"]["image"][0] == [16, 64, 64, 3]
