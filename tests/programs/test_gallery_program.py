"""From folders of people to names on new pictures, by the command line, with a network of one random layer."""

import dataclasses
import json
import re
import shutil

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import run_as_main
from PIL import Image

from cvjax import runs
from cvjax.core import Recipe, State
from cvjax.errors import UserError
from cvjax.programs import apply, gallery, naming
from cvjax.recognition.gallery import load

SIDE = 8
NET = nn.Dense(12)
FACES = np.random.default_rng(0).integers(40, 216, (9, SIDE, SIDE, 3))  # of nine people


def made(seed, outputs="embedding", eval_transforms=()):
    """What `runs.load` returns of a run whose network embeds pictures by random weights."""
    data = {"eval_transforms": list(eval_transforms)}
    description = {"config": {"system": "recognition.random", "recipe": {}, "data": data}}
    description["batch"] = {"image": [[4, SIDE, SIDE, 3], "float32"]}
    held = NET.init(jax.random.key(seed), jnp.zeros((1, SIDE * SIDE * 3)))
    state = State(jnp.int32(0), {}, {}, frozen={"embedder": held})

    @jax.jit
    def predict(state, inputs, key):
        pixels = inputs["image"].reshape(len(inputs["image"]), -1) - 0.5
        found = NET.apply(state.frozen["embedder"], pixels)
        black = (inputs["image"] == 0).all(axis=(1, 2, 3))  # for which this network has no answer
        return {outputs: jnp.where(black[:, None], jnp.nan, found)}

    return description, Recipe({"embedder": NET}, *[print] * 5, predict=predict), state


@pytest.fixture(autouse=True, scope="module")
def loaded():
    known = {"run": made(0), "other": made(1), "classifier": made(0, "probability")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "load", lambda run, step=None: known[run.name])
        yield


def photograph(path, person, seed=0):
    """Writes a picture of a person, noisy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([person, seed]).integers(-15, 16, (SIDE, SIDE, 3))
    Image.fromarray((FACES[person] + noise).astype(np.uint8)).save(path)


NAMES = {"Anna": 0, "Ben": 1, "\u732b": 2}


@pytest.fixture(scope="module")
def prepared(loaded, tmp_path_factory):
    """Folders of three people, of others to choose the threshold by, and new pictures; a gallery of the three."""
    tmp_path = tmp_path_factory.mktemp("prepared")
    for name, person in NAMES.items():
        for index in range(3):
            photograph(tmp_path / "people" / name / f"{index}.png", person, index)
    for person in range(4, 9):
        for index in range(6):
            photograph(tmp_path / "others" / f"p{person}" / f"{index}.png", person, 10 + index)
    for name, person in {"a": 0, "sub/b": 1, "stranger": 3}.items():
        photograph(tmp_path / "new" / f"{name}.png", person, 99)
    run("enrol", tmp_path, "--run=run", f"--input={tmp_path / 'people'}")
    run("threshold", tmp_path, "--run=run", f"--input={tmp_path / 'others'}", "--rate=0.01")
    return tmp_path


@pytest.fixture
def place(prepared, tmp_path):
    """A copy of what is prepared."""
    return shutil.copytree(prepared, tmp_path / "place")


def run(action, folder, *flags):
    gallery.main([action, f"--gallery={folder / 'people.npz'}", *flags])


def name(folder, source, run="run", output="named"):
    flags = [f"--run={run}", f"--gallery={folder / 'people.npz'}", f"--input={folder / source}"]
    apply.main([*flags, f"--output={folder / output}"])


def test_new_pictures_get_names(place, capsys):
    name(place, "new")
    found = json.loads((place / "named" / "predictions.json").read_text())
    assert {picture: answer["name"] for picture, answer in found.items()} == {
        "a": "Anna",
        "sub/b": "Ben",
        "stranger": None,
    }
    threshold = load(place / "people.npz").threshold
    assert found["a"]["distance"] < threshold < found["stranger"]["distance"]
    picture = np.asarray(Image.open(place / "named" / "sub" / "b.png"))
    assert picture.shape == (256 + 24, 256, 3)
    assert (picture[24:] != 255).any(axis=-1).all() and (picture[:24] != 255).any()  # the name is above the picture
    capsys.readouterr()
    run("verify", place, "--run=run", f"--input={place / 'new'}", "--name=Anna")
    lines = [line for line in capsys.readouterr().out.splitlines() if " is at " in line]
    assert [line.split(":")[0] for line in lines] == ["yes", "no", "no"] and "new/a.png is at" in lines[0]


def test_a_picture_without_an_embedding_has_no_name_and_the_others_have_theirs(place, capsys):
    Image.new("RGB", (SIDE, SIDE)).save(place / "new" / "black.png")
    name(place, "new")
    found = json.loads((place / "named" / "predictions.json").read_text())
    assert found["black"] == {"name": None, "nearest": None, "distance": None}
    assert found["a"]["name"] == "Anna" and (place / "named" / "black.png").exists()
    assert "lacks letters of \u732b" in capsys.readouterr().out


def test_a_threshold_says_doubts_alarms_and_shared_names(place, capsys):
    photograph(place / "wrong.png", 8, 1)
    run("enrol", place, "--run=run", f"--input={place / 'wrong.png'}", "--name=Anna", "--more")
    photograph(place / "others" / "Ben" / "1.png", 8, 2)
    photograph(place / "others" / "p4" / "0.png", 4, 10)
    capsys.readouterr()
    run("threshold", place, "--run=run", f"--input={place / 'others'}", "--rate=0.01")
    said = capsys.readouterr().out
    assert "Is picture 4 of Anna?" in said and "Is picture 1 of Ben?" not in said
    assert "in about 0.03 of all cases" in said and "others, Ben have the names of people enrolled" in said
    found = load(place / "people.npz")
    nearest = dataclasses.replace(found, compare="nearest")  # 4, 3 and 3 pictures
    assert "in at most 0.04 of all cases" in gallery.expect_alarms(nearest, 0.01)


def test_people_are_added_and_removed_without_training(place, capsys):
    run("enrol", place, "--run=run", f"--input={place / 'new' / 'stranger.png'}", "--name=Dora")
    name(place, "new/stranger.png", output="named.png")
    assert json.loads((place / "predictions.json").read_text())["named"]["name"] == "Dora"
    run("remove", place, "--name=Anna")
    name(place, "new")
    answers = json.loads((place / "named" / "predictions.json").read_text())
    assert answers["a"]["name"] is None and answers["stranger"]["name"] == "Dora"
    capsys.readouterr()
    run("list", place)
    assert capsys.readouterr().out.startswith(
        "Ben: 3 pictures\n\u732b: 3 pictures\nDora: 1 picture\n3 names, threshold"
    )
    photograph(place / "more.png", 3, 5)
    run("enrol", place, "--run=run", f"--input={place / 'more.png'}", "--name=Dora", "--more")
    assert (load(place / "people.npz").people == 2).sum() == 2


def test_frames_of_a_video_get_names(place):
    frame = cv2.resize(cv2.imread(str(place / "new" / "a.png")), (64, 64), interpolation=cv2.INTER_NEAREST)
    writer = cv2.VideoWriter(str(place / "film.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 64))
    for _ in range(3):
        writer.write(frame)
    writer.release()
    name(place, "film.mp4", output="named.mp4")
    capture = cv2.VideoCapture(str(place / "named.mp4"))
    assert capture.read()[1].shape == (256 + 24, 256, 3)


def test_what_cannot_be_used_is_left_out_and_named(place, capsys):
    people = place / "mixed"
    photograph(people / "Dora" / "1.png", 3)
    (people / "Dora" / "broken.png").write_bytes(b"no picture")
    (people / "Emil").mkdir()
    (people / "Emil" / "1.png").write_bytes(b"")
    Image.new("RGB", (SIDE, SIDE)).save(people / "Dora" / "black.png")
    photograph(people / "loose.png", 4)
    with pytest.raises(gallery.LeftOut) as error:
        run("enrol", place, "--run=run", f"--input={people}")
    for fault in (
        "loose.png is in no folder",
        "broken.png cannot be read",
        "black.png has no finite",
        "Emil has no pic",
    ):
        assert fault in str(error.value)
    assert load(place / "people.npz").names == (*NAMES, "Dora")  # the rest went on
    assert "1 name with 1 picture enrolled" in capsys.readouterr().out


def test_doubtful_pictures_are_said(place, capsys):
    for index, person in enumerate((3, 3, 3, 8)):
        photograph(place / "mixed" / "Dora" / f"{index}.png", person, index)
    photograph(place / "mixed" / "Annie" / "1.png", 0, 50)
    run("enrol", place, "--run=run", f"--input={place / 'mixed'}")
    said = capsys.readouterr().out
    assert "Dora/3.png of Dora?" in said and "Dora/1.png" not in said
    assert "Annie and Anna look alike" in said and "Ben" not in said


def test_fingerprints_are_of_weights_and_of_how_pictures_are_prepared():
    first = naming.fingerprint_of(*made(0))
    assert first == naming.fingerprint_of(*made(0)) and first.startswith("recognition.random ")
    assert first != naming.fingerprint_of(*made(1))
    assert first != naming.fingerprint_of(*made(0, eval_transforms=[{"op": "center_crop", "size": 8}]))


@pytest.mark.parametrize(
    "action, flags, message",
    [
        ("enrol", "--run=other --input=people --name=New", "embeddings are of recognition.random .*, these of"),
        ("verify", "--run=other --input=new --name=Anna", "Distances between embeddings of two networks mean nothing"),
        ("threshold", "--run=other --input=others", "these of recognition.random"),
        ("enrol", "--run=classifier --input=new --name=New", "recognition.random makes no embeddings, but probability"),
        ("enrol", "--run=run --input=people", "two people under one name, 'Anna'"),
        ("enrol", "--run=run --input=new/a.png", "who is this"),
        ("enrol", "--run=run --input=new/sub", "has no folder of a person"),
        ("enrol", "--run=run --input=empty", "holds no images"),
        ("enrol", "--run=run --input=peeple", "No such file.*Did you mean 'people'"),
        ("enrol", "--run=run --input=split", "has the splits test, train, not people.*split/test"),
        ("enrol", "--run=run --input=spoilt --name=New", "No picture could be read. .*1.png cannot be read"),
        ("enrol", "--run=run --input=new --name=New --compare=nearest", "is for a new gallery.*'mean'"),
        ("enrol", "--run=run", "enrol needs --input"),
        ("list", "--run=run", "--run is not for list, which takes only --gallery"),
        ("verify", "--run=run --input=new --name=Any", "nobody of the name 'Any'.*Did you mean 'Anna'"),
        ("remove", "--name=Any", "nobody of the name"),
        ("threshold", "--run=run --input=others --rate=0.0001", "takes 10,000 examples"),
        ("threshold", "--run=run --input=others/p5", "has no folder of a person"),
        ("threshold", "--threshold=3", "from 0 to 2"),
        ("threshold", "--run=run --input=others --rate=1", "--rate=1: the share .* below 1"),
        (
            "enrol",
            "--run=run --input=new --name=New --gallery=new/a.png/p.npz",
            "cannot be written to: .*a.png is a file",
        ),
        ("list", "--gallery=new", "Is a directory"),
        ("threshold", "--threshold=1 --rate=0.1", "leave out what chooses another"),
        ("verify", "--run=run --input=new --name=Anna --batch=0", "--batch=0: must be at least 1"),
        ("found", "", "invalid choice"),
    ],
)
def test_mistakes_are_said(place, action, flags, message):
    (place / "empty").mkdir()
    (place / "spoilt").mkdir()
    (place / "spoilt" / "1.png").write_bytes(b"no picture")
    for split in ("train", "test"):
        photograph(place / "split" / split / "Anna" / "1.png", 0)
    before = (place / "people.npz").read_bytes()
    flags = [re.sub("--(input|gallery)=", rf"--\1={place}/", flag) for flag in flags.split()]
    with pytest.raises(UserError, match=message):
        run(action, place, *flags)
    assert (place / "people.npz").read_bytes() == before


def test_apply_takes_a_gallery_of_its_run_with_people_and_a_threshold(place):
    with pytest.raises(UserError, match="these of recognition"):
        name(place, "new", run="other")
    with pytest.raises(UserError, match="give --input"):
        apply.main(["--run=run", f"--gallery={place}/people.npz", "--count=3", f"--output={place}/out"])
    flags = ["--run=run", f"--gallery={place}/people.npz", f"--input={place}/new", f"--output={place}/out"]
    with pytest.raises(UserError, match=r"--threshold=0.5 is of detections' scores"):
        apply.main([*flags, "--threshold=0.5"])
    with pytest.raises(UserError, match="No such file"):
        apply.main(["--run=run", f"--gallery={place}/absent.npz", f"--input={place}/new", f"--output={place}/out"])
    for person in NAMES:
        run("remove", place, f"--name={person}")
    with pytest.raises(UserError, match="Nobody is enrolled"):
        name(place, "new")
    (place / "people.npz").unlink()
    run("enrol", place, "--run=run", f"--input={place / 'people'}", "--compare=nearest")
    with pytest.raises(UserError, match="no threshold yet"):
        name(place, "new")
    with pytest.raises(UserError, match="no threshold yet"):
        run("verify", place, "--run=run", f"--input={place / 'new'}", "--name=Anna")
    assert load(place / "people.npz").compare == "nearest"


def test_the_short_command_is_the_program(place, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gallery", "list", f"--gallery={place / 'people.npz'}"])
    with pytest.raises(SystemExit) as exit:
        run_as_main("cvjax.recognition.gallery")
    assert not exit.value.code and "Anna: 3 pictures" in capsys.readouterr().out
