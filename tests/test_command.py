"""Mistakes on the real command line: exit code 1, one message that names what, where and what would be right.

Nothing is lost by them: what was there before is there afterwards, byte for byte.
"""

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cvjax import runs
from cvjax.rundir import read_metrics

ROOT = Path(__file__).parent.parent
VAE = "--config=configs/vae_digits.py:smoke"
CLASSIFIER = "--config=configs/classifier_digits.py:smoke"
BOMB = 50_000  # pixels along each side

BROKEN_CONFIG = """
from cvjax.config import experiment
def get_config(name=""):
    return experiment({system!r}, {rest})
"""


def folder(name):
    return ["--config.data.name=None", f"--config.data.folder={{pictures}}/{name}"]


SKIP = 'data.on_corrupt="skip" leaves out'
SCENES = ["--config=configs/conditional_pixelcnn_digits.py:smoke", "--config.data.name=digit_scenes/plain_64"]
SCENES += ["--config.recipe.shape=(64, 64, 3)"]
# The name of each mistake: (arguments of train.py, what the message has to say).
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
    "a key without its group": ([VAE, "--latent=4"], ["latent", "Did you mean --config.recipe.latent=4?"]),
    "no dashes": ([VAE, "config.steps=1"], ["'config.steps=1' is not a flag", "--config.steps=1"]),
    "None where a value is due": ([VAE, "--config.steps=None"], ["config.steps=None", "expected int"]),
    "borrowed from nowhere": ([VAE, "--config.borrow.encoder=nowhere/encoder"], ["nowhere is not the folder of a run"]),
    "borrowed for nothing": ([VAE, "--config.borrow.encdr=nowhere/encoder"], ["no network 'encdr'", "'encoder'"]),
    "best by no figure": ([VAE, "--config.checkpoint_best=fid"], ["config.checkpoint_best='fid'", "bits_per_dim"]),
    "half a cluster": ([VAE, "--coordinator=127.0.0.1:1", "--process_count=2"], ["--coordinator", "--process_index"]),
    "no value": ([VAE, "--config.steps"], ["--config.steps", "expected --config.steps=VALUE"]),
    "a whole group": ([VAE, "--config.data=digits"], ["config.data is a group", "--config.data.name,"]),
    "out of range": ([VAE, "--config.steps=0"], ["config.steps=0", "at least 1"]),
    "a width of nothing": ([VAE, "--config.recipe.hidden=(0,)"], ["config.recipe.hidden=(0,)", "int at least 1"]),
    "no latents": ([VAE, "--config.recipe.latent=0"], ["config.recipe.latent=0", "expected int at least 1"]),
    "all dropped and more": ([VAE, "--config.recipe.dropout=1.5"], ["recipe.dropout=1.5", "float from 0 to 1"]),
    "a dataset without boxes": (
        ["--config=configs/yolov2_scenes.py:smoke", "--config.data.max_boxes=None"],
        ["but the dataset has only", "config.data.max_boxes"],
    ),
    "a dataset without labels": (SCENES, ["needs `label`, but the dataset has only"]),
    "unknown dataset": ([VAE, "--config.data.name=digit"], ["digit", "Did you mean 'digits'?"]),
    "unknown split": ([VAE, "--config.data.train_split=trian"], ["trian", "train"]),
    "unknown transform": ([VAE, "--config.data.transforms=({'op': 'flop'},)"], ["flop", "flip"]),
    "unknown optimiser": ([VAE, "--config.recipe.optimiser.name=adm"], ["config.recipe.optimiser", "adm", "adam"]),
    "unknown mesh": ([VAE, "--config.mesh.data=3", "--config.mesh.fsdp=5"], ["config.mesh", "8 devices"]),
    "indivisible batch": ([VAE, "--config.data.batch=17"], ["17", "8"]),
    "unknown system": ("system", ["config.system", "Did you mean 'generative.autoencoders.vae'?"]),
    "misspelt key in the file": ("key", ["config.stepz", "Did you mean 'steps'?"]),
    "misspelt argument in the file": ("argument", ["config.recipe.latnt", "Did you mean 'latent'?"]),
    "mistyped argument in the file": ("type", ["config.recipe.latent='eight'", "expected int"]),
    "misspelt optimiser argument": ("optimiser", ["learning_rat", "learning_rate"]),
    "dataset not prepared": (
        [VAE, "--config.data.name=mnist", "--config.data.data_dir={pictures}"],
        [
            "'mnist'",
            "pip install 'cvjax[prepare]'",
            "tfds build mnist --file_format=array_record --data_dir={pictures}",
        ],
    ),
    "absent folder": ([VAE, *folder("god")], ["{pictures}/god", "No such file", "Did you mean 'good'?"]),
    "file for a folder": ([VAE, *folder("file")], ["{pictures}/file' is not a folder but a file"]),
    "empty folder": ([VAE, *folder("empty")], ["{pictures}/empty", "holds no images", ".png"]),
    "truncated image": ([VAE, *folder("truncated")], ["{pictures}/truncated/train/b/bad.png", "is truncated", SKIP]),
    "text called .png": ([VAE, *folder("text")], ["{pictures}/text/train/b/bad.png", "no known image format", SKIP]),
    "bomb": ([VAE, *folder("bomb")], ["{pictures}/bomb/train/b/bad.png", "may be a decompression bomb", SKIP]),
    "another class to test": ([VAE, *folder("other")], ["{pictures}/other/test/d/", "'d'", "train", "Known: a, b, c"]),
    "classes of a dataset": (
        [CLASSIFIER, "--config.recipe.classes=9"],
        ["config.recipe.classes=9", "digits has 10", "set --config.recipe.classes=10"],
    ),
    "classes of a folder": (
        [CLASSIFIER, *folder("good")],
        ["config.recipe.classes=10", "{pictures}/good has 3 classes (a, b, c)", "set --config.recipe.classes=3"],
    ),
    "no classes": ([CLASSIFIER, *folder("good/train/a")], ["{pictures}/good/train/a", "no classes", "sub-folder"]),
    "workdir below a file": (  # where nobody, not even root, may write
        [VAE, "--workdir={pictures}/file/run"],
        ["--workdir={pictures}/file/run", "{pictures}/file is a file", "Choose another folder"],
    ),
    "workdir is a file": ([VAE, "--workdir={pictures}/file"], ["--workdir={pictures}/file", "is a file"]),
}
FILES = {
    "system": ("generative.vea", "steps=1"),
    "key": ("generative.autoencoders.vae", "stepz=1, recipe=dict(shape=(8, 8, 1))"),
    "argument": ("generative.autoencoders.vae", "recipe=dict(shape=(8, 8, 1), latnt=3)"),
    "type": ("generative.autoencoders.vae", "recipe=dict(shape=(8, 8, 1), latent='eight'), data=dict(name='digits')"),
    "optimiser": (
        "generative.autoencoders.vae",
        "data=dict(name='digits'), recipe=dict(shape=(8, 8, 1), optimiser=dict(name='adam', learning_rat=1.0))",
    ),
}


# Imports once, then runs each command line, as it would be run, in a process of its own.
RUNNER = """
import json, os, runpy, sys, traceback, warnings
import cvjax.apply, cvjax.command, cvjax.fit
warnings.simplefilter("ignore")  # JAX is imported but not initialised: a fork is safe
for line in sys.stdin:
    program, arguments, log = json.loads(line)
    if os.fork() == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        sys.argv, code = [program, *arguments], 0
        run = runpy.run_path if program.endswith(".py") else runpy.run_module
        try:
            run(program, run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    status, used = os.wait4(-1, 0)[1:]
    print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024]), flush=True)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs a command line; returns its exit code, what it said, and the most bytes of memory that it took."""
    log = tmp_path_factory.mktemp("said") / "log"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    with subprocess.Popen([sys.executable, "-c", RUNNER], cwd=ROOT, env=environment, **pipes) as runner:

        def run(program, *arguments):
            print(json.dumps([program, arguments, str(log)]), file=runner.stdin)
            code, memory = json.loads(runner.stdout.readline())
            return types.SimpleNamespace(code=code, said=log.read_text(), memory=memory)

        yield run
        runner.stdin.close()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of 8 x 8 images in three classes, 18 to train and 6 to test; what is wrong with each is its name."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for index in range(24):
        path = root / "good" / ("train" if index % 4 else "test") / "abc"[index // 4 % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", BOMB, BOMB, 8, 0, 0, 0, 0))  # grey
    broken = {
        "truncated": whole[: len(whole) * 2 // 3],
        "text": b"not an image",
        "bomb": whole[:8] + header + chunk(b"IDAT", zlib.compress(bytes(BOMB))) + chunk(b"IEND", b""),
    }
    for name, content in broken.items():
        shutil.copytree(root / "good", root / name)
        (root / name / "train" / "b" / "bad.png").write_bytes(content)
    shutil.copytree(root / "good", root / "all")
    for name, content in broken.items():
        (root / "all" / "train" / "b" / f"{name}.png").write_bytes(content)
    (root / "all" / "test" / "c" / "text.png").write_bytes(broken["text"])
    shutil.copytree(root / "good", root / "other")
    (root / "other" / "test" / "c").rename(root / "other" / "test" / "d")
    (root / "empty").mkdir()
    (root / "file").write_text("not a folder")
    return root


@pytest.fixture(scope="module")
def trained(trained_run):
    """A finished run."""
    return trained_run(VAE.removeprefix("--config="))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_explained(done, words):
    assert done.code == 1, done.said
    assert re.search("^error: ", done.said, re.MULTILINE) and "Traceback" not in done.said
    for expected in words:
        assert expected in done.said
    assert done.memory < BOMB**2  # as much as the bomb's pixels would take


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(run, pictures, tmp_path, name):
    arguments, words = MISTAKES[name]
    if isinstance(arguments, str):
        system, rest = FILES[arguments]
        (tmp_path / "broken.py").write_text(BROKEN_CONFIG.format(system=system, rest=rest))
        arguments = [f"--config={tmp_path / 'broken.py'}"]
    if not any("--workdir=" in argument for argument in arguments):
        arguments = [*arguments, f"--workdir={tmp_path / 'run'}"]
    before = contents(pictures)
    done = run("train.py", *(argument.replace("{pictures}", str(pictures)) for argument in arguments))
    assert_explained(done, [expected.replace("{pictures}", str(pictures)) for expected in words])
    assert not (tmp_path / "run" / "config.json").exists()  # nothing was begun
    assert contents(pictures) == before


def test_a_workdir_that_is_forbidden(run, tmp_path):
    tmp_path.chmod(0o500)
    # Root may write everywhere but where the kernel itself says no.
    folder = Path("/sys/cvjax") if os.geteuid() == 0 else tmp_path / "run"
    done = run("train.py", VAE, f"--workdir={folder}")
    assert_explained(done, [f"--workdir={folder} cannot be written to:"])
    assert re.search("not permitted|denied|Read-only", done.said)


def test_a_run_with_another_config_is_left_as_it_is(run, trained):
    before = contents(trained)
    done = run("train.py", VAE, f"--workdir={trained}", "--config.data.batch=32", "--config.recipe.latent=4")
    differing = ["data.batch: 16 in the run, 32 asked for", "recipe.latent: 8 in the run, 4 asked for"]
    assert_explained(done, [f"{trained} holds a run with a different config", *differing, "Give another --workdir"])
    assert done.said.count("asked for") == 2
    done = run("train.py", VAE, f"--workdir={trained}", "--config.steps=2")
    assert_explained(done, [f"{trained} is at step 4 already, past config.steps=2"])
    assert contents(trained) == before


def test_what_cannot_be_read_is_skipped_counted_and_named(run, pictures, tmp_path):
    skip = [argument.format(pictures=pictures) for argument in folder("all")]
    done = run("train.py", VAE, *skip, "--config.data.on_corrupt=skip", f"--workdir={tmp_path}")
    assert done.code == 0, done.said
    assert "Traceback" not in done.said and "Mend" not in done.said and done.memory < BOMB**2
    first, second = re.findall("^Skipping .*", done.said, re.MULTILINE)
    assert first.startswith("Skipping 3 of 21 examples") and second.startswith("Skipping 1 of 7 examples")
    faults = {"truncated": "truncated", "text": "no known image format", "bomb": "decompression bomb"}
    for name, reason in faults.items():
        assert re.search(rf"{pictures}/all/train/b/{name}\.png cannot be read as an image: [^;]*{reason}", first)
    assert f"{pictures}/all/test/c/text.png" in second
    assert [row["step"] for row in read_metrics(tmp_path) if row["split"] == "train"] == [1, 2, 3, 4]
    assert f"done: {tmp_path}" in done.said


def test_a_loss_that_turns_nan_leaves_the_last_finite_checkpoint(run, tmp_path):
    schedule = "dict(name='piecewise_constant_schedule', boundaries_and_scales={4: 1e35})"
    recipe = f"dict(shape=(8, 8, 1), hidden=(16,), optimiser=dict(name='sgd', learning_rate=1e-3, schedule={schedule}))"
    rest = f"recipe={recipe}, data=dict(name='digits', batch=16), steps=8, log_every=1, checkpoint_every=2"
    (tmp_path / "explodes.py").write_text(BROKEN_CONFIG.format(system="generative.autoencoders.vae", rest=rest))
    workdir = tmp_path / "run"
    done = run("train.py", f"--config={tmp_path / 'explodes.py'}", f"--workdir={workdir}")
    kept = f"The last finite checkpoint is step 4 in {workdir}"
    assert_explained(done, ["error: step 6: ", "loss/total is ", kept, "a lower learning rate"])
    _, _, state = runs.load(workdir)
    assert state.step == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    broken = read_metrics(workdir)[-1]
    assert broken["step"] == 6 and not np.isfinite(broken["loss/total"])
    assert (workdir / "report.html").exists()


# What apply is told: (arguments, what it has to say). It reads {run}, and would write to {output}.
APPLIED = {
    "no run": (["--run={pictures}/good", "--count=2"], ["{pictures}/good is not the folder of a run", "train.py"]),
    "missing run": (["--run={run}s", "--count=2"], ["{run}s is not the folder of a run", "Did you mean 'run'?"]),
    "run without a checkpoint": (["--run={fresh}", "--count=2"], ["{fresh} has no checkpoint yet", "train.py"]),
    "config.json of something else": (["--run={foreign}", "--count=2"], ["{foreign} is not the folder of a run"]),
    "missing checkpoint": (["--run={run}", "--count=2", "--step=9"], ["no checkpoint 9; it has [4]"]),
    "missing input": (
        ["--run={run}", "--input={pictures}/god"],
        ["--input={pictures}/god: No such file or directory", "Did you mean 'good'?"],
    ),
    "empty input": (["--run={run}", "--input={pictures}/empty"], ["--input={pictures}/empty holds no images"]),
    "images to nowhere": (
        ["--run={run}", "--input={pictures}/good", "--output={pictures}/file/out"],
        ["--output={pictures}/file/out cannot be written to: {pictures}/file is a file"],
    ),
    "samples to nowhere": (
        ["--run={run}", "--count=2", "--output={pictures}/file"],
        ["--output={pictures}/file cannot be written to: {pictures}/file is a file"],
    ),
    "video to nowhere": (
        ["--run={run}", "--input={video}", "--output={pictures}/file/x.mp4"],
        ["--output={pictures}/file cannot be written to: {pictures}/file is a file"],
    ),
    "no video": (
        ["--run={run}", "--input={video}", "--output={output}/x.mp4"],
        ["--input={video} cannot be read as a video"],
    ),
}


@pytest.mark.parametrize("name", APPLIED)
def test_what_apply_cannot_do_is_explained(run, pictures, trained, tmp_path, name):
    names = dict(pictures=pictures, run=trained, output=tmp_path / "output", video=tmp_path / "x.mp4")
    names["video"].write_text("not a video")
    for kind, content in {
        "fresh": (trained / "config.json").read_text(),
        "foreign": '{"config": {"hidden_size": 768}}',
    }.items():
        names[kind] = tmp_path / kind
        names[kind].mkdir()
        (names[kind] / "config.json").write_text(content)
    arguments, words = ([text.format(**names) for text in texts] for texts in APPLIED[name])
    if not any(argument.startswith("--output=") for argument in arguments):
        arguments = [*arguments, f"--output={tmp_path / 'output'}"]
    before = contents(pictures), contents(trained)
    assert_explained(run("cvjax.apply", *arguments), words)
    assert not contents(tmp_path / "output")
    assert (contents(pictures), contents(trained)) == before


def test_apply_names_what_it_cannot_read_and_does_the_rest(run, pictures, trained, tmp_path):
    done = run("cvjax.apply", f"--run={trained}", f"--input={pictures / 'all'}", f"--output={tmp_path}")
    unread = [f"{pictures}/all/train/b/{name}.png cannot be read" for name in ("bomb", "text", "truncated")]
    assert_explained(done, ["Skipped 4 of 28 images", *unread, f"{pictures}/all/test/c/text.png"])
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")}
    assert written == {path.relative_to(pictures / "good") for path in (pictures / "good").rglob("*.png")}


def test_a_mistake_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "train.py", VAE, "--config.step=3"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: --config.step=3") and "Did you mean 'steps'?" in done.stderr


def test_the_readmes_command_trains_on_a_folder_of_images(tmp_path):
    text = (ROOT / "README.md").read_text().split("**Your own images**")[1]
    command = re.search(r"python train\.py.*", text).group(0)
    pictures = tmp_path / "pictures"
    for index in range(24):
        (pictures / f"class{index % 2}").mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 255, (40, 50 + index, 3), dtype=np.uint8)
        Image.fromarray(noise).save(pictures / f"class{index % 2}" / f"{index}.jpg")
    for old, new in {
        "=pictures": f"={pictures}",
        "runs/mine": str(tmp_path / "run"),
    }.items():
        assert old in command
        command = command.replace(old, new)
    small = {"steps": 2, "data.batch": 8, "data.eval_batch": 8, "recipe.hidden": (4, 4, 4, 4), "log_every": 1}
    small |= {"recipe.importance_samples": 2, "recipe.latent": 4}
    arguments = [sys.executable, *shlex.split(command)[1:], *(f"--config.{key}={small[key]}" for key in small)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["batch"]["image"][0] == [8, 64, 64, 3]


def test_help_lists_the_flags_and_a_configs_keys():
    def ask(*words):
        return subprocess.run([sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)

    plain, full = ask("train.py").stdout, ask("train.py", VAE).stdout
    assert "Trains one experiment" in plain and "--workdir" in plain and "--config.steps" not in plain
    assert "--workdir" in full and "--config.recipe.latent=" in full and "--config.steps=" in full
    assert "Clusters anchors" in ask("-m", "cvjax.programs.anchors").stdout


def test_anchors_are_clustered_for_systems_that_have_them(run):
    wrong = run("cvjax.programs.anchors", "--config=configs/yolo_scenes.py:smoke")
    assert wrong.code == 1 and wrong.said == (
        "error: config.system='detection.yolo' has no anchors to cluster; "
        "detection.yolov2 and detection.yolo9000 have.\n"
    )
