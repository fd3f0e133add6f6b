"""A trained run, from its folder alone, applied to images, a folder and a video, and drawn from."""

import argparse
import json
import os
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cvjax import runs
from cvjax.core import Recipe, State
from cvjax.data import vocabulary
from cvjax.errors import UserError
from cvjax.programs import apply, outputs, video


@pytest.fixture(scope="module")
def vae(trained_run):
    """A trained run, moved away from where it was made."""
    return trained_run("configs/vae_digits.py:smoke")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, size in [("grey.png", (20, 30)), ("colour.jpg", (12, 9, 3)), ("below/third.png", (8, 8))]:
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    return folder


def test_a_folder_of_images_of_any_size(vae, pictures, tmp_path):
    output = tmp_path / "out"
    assert apply.main([f"--run={vae}", f"--input={pictures}", f"--output={output}", "--batch=2"]) == 0
    written = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert written == ["below/third.png", "colour.png", "grey.png"]
    exact = np.asarray(Image.open(pictures / "below/third.png"), np.float32)[None, ..., None] / 255
    _, recipe, state = runs.load(vae)
    expected = np.asarray(recipe.predict(state, {"image": exact}, jax.random.key(0))["image"])[0, ..., 0]
    ours = np.asarray(Image.open(output / "below/third.png"))[..., 0] / 255
    np.testing.assert_allclose(ours, expected, atol=1.1 / 255)  # a PNG's rounding


def test_names_stay_apart_and_inputs_are_not_overwritten(vae, pictures, tmp_path):
    Image.new("L", (8, 8)).save(pictures / "grey.jpg")
    apply.main([f"--run={vae}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])
    assert {path.name for path in (tmp_path / "out").glob("grey*")} == {"grey.jpg.png", "grey.png.png"}
    with pytest.raises(UserError, match="overwritten"):
        apply.main([f"--run={vae}", f"--input={pictures}", f"--output={pictures / 'below' / '..'}"])


def test_pictures_in_the_output_folder_are_no_inputs(vae, pictures):
    for _ in range(2):
        apply.main([f"--run={vae}", f"--input={pictures}", f"--output={pictures / 'out'}"])
    written = sorted(str(path.relative_to(pictures / "out")) for path in (pictures / "out").rglob("*.png"))
    assert written == ["below/third.png", "colour.png", "grey.png"]


@pytest.mark.parametrize(
    ("given", "place", "mine"),
    [
        ("--input=pictures", "pictures/below", "pictures/below/grey.png"),
        ("--input=pictures/grey.png", "elsewhere", "elsewhere/grey.png"),
        ("--count=2", "samples", "samples/image_00001.png"),
    ],
)
def test_only_what_apply_has_written_is_overwritten(vae, pictures, tmp_path, monkeypatch, given, place, mine):
    monkeypatch.chdir(tmp_path)
    command = [f"--run={vae}", given, f"--output={place}", "--batch=1"]
    Path(mine).parent.mkdir(exist_ok=True)
    Path(mine).write_text("mine")
    before = set(Path(place).iterdir())
    with pytest.raises(UserError, match=rf"--output={place}: {mine} would be overwritten.* Give a folder without it"):
        apply.main(command)
    assert Path(mine).read_text() == "mine" and set(Path(place).iterdir()) == before  # nothing was written
    Path(mine).unlink()
    for _ in range(2):
        apply.main(command)
        assert Path(mine).is_file()
    assert not (tmp_path / "pictures/below/below/grey.png").exists()  # outputs are no inputs, other pictures there are
    assert (tmp_path / "pictures/below/below/third.png").exists() == (place == "pictures/below")


def test_outputs_that_are_no_images_go_to_json(trained_run, pictures, tmp_path):
    run = trained_run("configs/classifier_digits.py:smoke")
    apply.main([f"--run={run}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sorted(written) == ["below/third", "colour", "grey"]
    _, recipe, state = runs.load(run)
    image = np.asarray(Image.open(pictures / "below/third.png"), np.float32)[None, ..., None] / 255
    for name, value in recipe.predict(state, {"image": jnp.asarray(image)}, jax.random.key(0)).items():
        np.testing.assert_allclose(written["below/third"][name], value[0], rtol=1e-4, atol=1e-5)
    assert written["below/third"]["class"] == str(written["below/third"]["label"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "predictions.json").write_text("mine")
    with pytest.raises(UserError, match=r"predictions\.json would be overwritten"):
        apply.main([f"--run={run}", f"--input={pictures}", f"--output={tmp_path / 'mine'}"])


def test_names_that_are_not_utf_8_are_written(trained_run, pictures, tmp_path):
    run, name = trained_run("configs/classifier_digits.py:smoke"), os.fsdecode(b"caf\xe9")
    (pictures / "below").rename(pictures / name)
    for _ in range(2):
        apply.main([f"--run={run}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])
    assert f"{name}/third" in json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_one_image(vae, pictures, tmp_path):
    apply.main([f"--run={vae}", f"--input={pictures / 'colour.jpg'}", f"--output={tmp_path / 'one'}"])
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"colour.png", outputs.LIST}
    for _ in range(2):  # beside the input, under a name of its own
        apply.main([f"--run={vae}", f"--input={pictures / 'colour.jpg'}", f"--output={pictures / 'made.png'}"])
    with Image.open(tmp_path / "one" / "colour.png") as one, Image.open(pictures / "made.png") as named:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(named))
    with pytest.raises(UserError, match=r"grey\.png would be overwritten"):
        apply.main([f"--run={vae}", f"--input={pictures / 'colour.jpg'}", f"--output={pictures / 'grey.png'}"])


@pytest.mark.parametrize("given", ["--input=pictures/colour.jpg", "--input=pictures", "--count=2"])
def test_a_folder_is_not_named_like_a_picture(vae, pictures, monkeypatch, given):
    monkeypatch.chdir(pictures.parent)
    name = "painted.jpg" if given.endswith("jpg") else "painted.png"
    with pytest.raises(UserError, match=rf"--output={name}: a picture is written as \.png, and of a single image"):
        apply.main([f"--run={vae}", given, f"--output={name}"])
    assert not Path(name).exists()


def test_a_video_keeps_its_frames_and_rate(vae, tmp_path, capsys):
    source, output = tmp_path / "in.avi", tmp_path / "out" / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (32, 24))
    for level in range(7):
        writer.write(np.full((24, 32, 3), level * 30, np.uint8))
    writer.release()
    for _ in range(2):
        apply.main([f"--run={vae}", f"--input={source}", f"--output={output}", "--batch=3"])
    capture = cv2.VideoCapture(str(output))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7 and capture.get(cv2.CAP_PROP_FPS) == 12
    assert "7 frames" in capsys.readouterr().out


def test_samples_depend_on_the_seed_alone(vae, tmp_path):
    for folder, seed in [("a", 3), ("b", 3), ("c", 4)]:
        apply.main([f"--run={vae}", "--count=5", f"--seed={seed}", f"--output={tmp_path / folder}"])
    a, b, c = ([p.read_bytes() for p in sorted((tmp_path / folder).glob("image_0*.png"))] for folder in "abc")
    assert len(a) == 5 and a == b and a != c
    assert (tmp_path / "a" / "image_grid.png").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--count=3"], "--run"),
        (["--run={run}"], "either --input"),
        (["--run={run}", "--count=3", "--input=x"], "either --input"),
        (["--run={run}", "--count=0"], "--count=0"),
        (["--run={run}", "--count=many"], "--count"),
        (["--run={run}", "--count=3", f"--seed={2**32}"], "4294967296: expected int from 0 to 4294967295"),
        (["--run={run}", "--count=3", "--seed=-1"], "-1: expected int from 0"),
        (["--run={empty}", "--count=3"], "not the folder of a run"),
        (["--run={run}", "--count=3", "--step=77"], "no checkpoint 77"),
        (["--run={run}", "--input={empty}"], "holds no images"),
        (["--run={run}", "--input={empty}/x.png"], "No such file"),
        (["--run={run}", "--input={empty}/y.mp4"], "No such file or directory. Did you mean 'x.mp4'"),
        (["--run={run}", "--input={empty}/x.mp4"], "must end in .mp4 or .avi"),
    ],
)
def test_mistakes_are_named(vae, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.mp4").write_text("no video")
    given = [text.format(run=vae, empty=tmp_path / "empty") for text in arguments]
    with pytest.raises(UserError, match=words):
        apply.main([*given, f"--output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_left_out_and_named_at_the_end(vae, pictures, tmp_path):
    (pictures / "c.png").write_text("no picture")  # in the middle
    with pytest.raises(UserError, match=r"Skipped 1 of 4 images. .*c\.png cannot be read as an image") as caught:
        apply.main([f"--run={vae}", f"--input={pictures}", f"--output={tmp_path / 'out'}", "--batch=1"])
    assert "on_corrupt" not in str(caught.value)  # a key of the config, which is past
    apply.main([f"--run={vae}", f"--input={pictures / 'colour.jpg'}", f"--output={tmp_path / 'one'}"])
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["below/third.png", "colour.png", "grey.png"]
    assert (tmp_path / "out" / "colour.png").read_bytes() == (tmp_path / "one" / "colour.png").read_bytes()


def test_an_image_that_a_transform_refuses_is_named(vae, pictures, tmp_path, monkeypatch):
    description, recipe, state = runs.load(vae)
    description["config"]["data"]["eval_transforms"] = [{"op": "center_crop", "size": [9, 9]}]
    monkeypatch.setattr(runs, "load", lambda run, step: (description, recipe, state))
    with pytest.raises(UserError, match=r"1 of 3 .*third\.png: .*8x8"):
        apply.main([f"--run={vae}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])


@pytest.mark.parametrize(
    "suffix", [*video.CODECS, ".m4v", ".MPG", ".mpeg", ".wmv", ".3gp", ".ts", ".mov", ".mkv", ".webm"]
)
def test_a_video_is_known_by_its_suffix(vae, tmp_path, monkeypatch, suffix):
    applied = []
    monkeypatch.setattr(apply, "apply_to_video", lambda *given: applied.append(given[1]))
    source = tmp_path / f"x{suffix}"
    source.touch()
    apply.main([f"--run={vae}", f"--input={source}", f"--output={tmp_path / 'out.mp4'}"])
    assert applied == [source]


def test_a_video_is_not_written_onto_itself(vae, tmp_path):
    source = tmp_path / "x.mp4"
    source.write_bytes(b"a video")
    with pytest.raises(UserError, match="would be overwritten"):
        apply.main([f"--run={vae}", f"--input={source}", f"--output={tmp_path / '.' / 'x.mp4'}"])
    (tmp_path / "other.mp4").write_bytes(b"another")
    with pytest.raises(UserError, match="video"):  # what is asked for by its name is replaced, but by a whole video
        apply.main([f"--run={vae}", f"--input={source}", f"--output={tmp_path / 'other.mp4'}"])
    assert source.read_bytes() == b"a video" and (tmp_path / "other.mp4").read_bytes() == b"another"


def test_a_system_that_only_samples_or_only_predicts_says_so(vae, tmp_path, monkeypatch):
    description, recipe, state = runs.load(vae)
    without = type(recipe)(**{**vars(recipe), "predict": None, "sample": None})
    monkeypatch.setattr(runs, "load", lambda run, step: (description, without, state))
    with pytest.raises(UserError, match="give --count"):
        apply.main([f"--run={vae}", f"--input={tmp_path}", f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="does not sample"):
        apply.main([f"--run={vae}", "--count=2", f"--output={tmp_path / 'out'}"])
    assert json.loads((vae / "config.json").read_text())["config"]["system"] == description["config"]["system"]


# Detection: a "detector" that knows the box of what is white finds rectangles in images of other sizes.

WHITE = (60, 30, 180, 90)  # in an image of 240 x 160


def white_box(state, inputs, key):
    def span(lit):
        """First and last index, exclusive, of what is lit."""
        return jnp.argmax(lit, 1), lit.shape[1] - jnp.argmax(lit[:, ::-1], 1)

    lit = (inputs["image"] > 0.9).all(axis=3)
    (top, bottom), (left, right) = span(lit.any(axis=2)), span(lit.any(axis=1))
    box = jnp.stack([left, top, right, bottom], axis=1).astype(jnp.float32)
    boxes = jnp.stack([box, jnp.zeros_like(box)], axis=1)
    count = len(box)
    scores, detected = jnp.tile(jnp.array([0.75, 0.0]), (count, 1)), jnp.tile(jnp.array([True, False]), (count, 1))
    return {"boxes": boxes, "scores": scores, "labels": jnp.ones((count, 2), jnp.int32), "detected": detected}


@pytest.fixture(params=["resize", "letterbox", "center_crop", None])
def detector(request):
    size = (160, 160) if request.param == "center_crop" else (80, 80)
    data = {"eval_transforms": [{"op": request.param, "size": size}] if request.param else [], "max_boxes": 4}
    description = {"config": {"data": data, "recipe": {"classes": ["box", "white"]}}}
    recipe = Recipe({}, *[print] * 5, predict=white_box)
    state = State(jnp.int32(0), {}, {})
    return apply.Predictor(description | {"batch": {"image": [[4, *size, 3], "float32"]}}, recipe, state, batch=2)


def white(path):
    image = np.full((160, 240, 3), 40, np.uint8)
    image[WHITE[1] : WHITE[3], WHITE[0] : WHITE[2]] = 255
    Image.fromarray(image).save(path)
    return image


def test_detections_are_drawn_and_written_in_pixels_of_the_original(detector, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        image = white(tmp_path / "in" / name)
    apply.apply_to_images(detector, tmp_path / "in", tmp_path / "out")
    coco = COCO(tmp_path / "out" / "detections.json")
    assert [image["file_name"] for image in coco.imgs.values()] == ["a.png", "b.png", "sub/c.png"]
    assert all((image["height"], image["width"]) == (160, 240) for image in coco.imgs.values())
    assert {category["id"]: category["name"] for category in coco.cats.values()} == {1: "box", 2: "white"}
    assert len(coco.anns) == 3
    for annotation in coco.anns.values():
        x, y, width, height = annotation["bbox"]
        # A pixel of the network is 3 x 2 of the original, and bilinear edges are white or not.
        np.testing.assert_allclose((x, y, x + width, y + height), WHITE, atol=3)
        assert annotation["category_id"] == 2 and annotation["score"] == 0.75
    drawn = np.asarray(Image.open(tmp_path / "out" / "sub" / "c.png"))
    assert drawn.shape[0] % 160 == 0 and drawn.shape[1] * 160 == drawn.shape[0] * 240
    small = drawn[:: drawn.shape[0] // 160, :: drawn.shape[0] // 160]
    changed = np.argwhere((small != image).any(axis=2))
    assert len(changed) and abs(changed[:, 0].max() - WHITE[3]) <= 3  # the box's lower edge, and the name is above


def test_what_no_transform_brings_to_the_networks_shape_keeps_its_proportions_for_a_detector(tmp_path):
    image = white(tmp_path / "a.png").astype(np.float32) / 255
    edges = {}
    for most in (4, None):
        description = {"config": {"data": {"eval_transforms": [], "max_boxes": most}, "recipe": {}}}
        description |= {"batch": {"image": [[4, 80, 80, 3], "float32"]}}
        recipe = Recipe({}, *[print] * 5, predict=white_box)
        prepared = apply.Predictor(description, recipe, State(jnp.int32(0), {}, {}), batch=2).prepare(image)
        edges[most] = prepared.scale.tolist()
        assert prepared.image.shape == (80, 80, 3)
    np.testing.assert_allclose(edges[4], [1 / 3] * 4, rtol=0.02)
    np.testing.assert_allclose(edges[None], [1 / 3, 1 / 2] * 2, rtol=0.02)


def test_detections_in_the_margins_of_a_letterbox_are_dropped():
    def predict(state, inputs, key):  # 32 x 64 pixels in 64 x 64: margins of 16 rows above and below
        boxes = jnp.float32([[10, 2, 30, 12], [10, 20, 30, 30], [10, 10, 30, 20]])
        row = {"boxes": boxes, "scores": jnp.float32([0.9, 0.8, 0.7]), "labels": jnp.arange(3)}
        return {name: value[None] for name, value in (row | {"detected": jnp.ones(3, bool)}).items()}

    description = {"config": {"data": {"eval_transforms": [], "max_boxes": 4}, "recipe": {"classes": None}}}
    description |= {"batch": {"image": [[1, 64, 64, 3], "float32"]}}
    predictor = apply.Predictor(description, Recipe({}, *[print] * 5, predict=predict), State(jnp.int32(0), {}, {}), 1)
    assert predictor.classes == ()
    ((_, found),) = predictor([predictor.prepare(np.zeros((32, 64, 3), np.float32))])
    np.testing.assert_allclose(found["boxes"], [[10, 4, 30, 14], [10, 0, 30, 4]], atol=1e-4)
    assert found["labels"].tolist() == [1, 2] and len(found["scores"]) == 2


def test_detections_below_the_threshold_are_not_drawn(detector, tmp_path):
    image = white(tmp_path / "a.png")
    apply.apply_to_images(detector, tmp_path / "a.png", tmp_path / "out", threshold=0.8)
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(drawn[:: drawn.shape[0] // 160, :: drawn.shape[0] // 160], image)
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["annotations"]) == 1


def test_detections_are_drawn_on_a_video(detector, tmp_path, capsys):
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (240, 160))
    for _ in range(5):
        writer.write(white(tmp_path / "a.png"))
    writer.release()
    apply.apply_to_video(detector, tmp_path / "in.avi", tmp_path / "out.mp4")
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and "5 frames" in capsys.readouterr().out
    frame = capture.read()[1]
    scale = frame.shape[0] // 160
    around = frame[(WHITE[3] - 4) * scale : (WHITE[3] + 4) * scale, (WHITE[0] + 5) * scale : (WHITE[2] - 5) * scale]
    assert np.ptp(around.astype(int), axis=2).max() > 60  # a coloured line where the picture is grey and white


# --- inputs beside images -----------------------------------------------------------------------------------------


@pytest.fixture
def described(tmp_path):
    """A run that takes a class, a style, a mask and a text, with its vocabulary."""
    vocabulary.write(tmp_path, vocabulary.build_vocabulary(["a red cat", "a dog"], size=20))
    batch = {"image": [[4, 6, 8, 3], "float32"], "tokens": [[4, 5], "int32"]}
    return {"config": {"system": "x.y", "recipe": {"classes": ["cat", "dog"]}}, "batch": batch}


def inputs(folder, described, taken=("label", "style", "weights", "mask", "tokens"), **given):
    absent = dict.fromkeys(("label", "style", "weights", "mask", "text", "guidance", "noise"))
    arguments = argparse.Namespace(**(dict(run=folder) | absent | given))
    return apply.read_inputs(arguments, described, taken)


def test_inputs_beside_images_are_read_at_the_networks_size(tmp_path, described):
    Image.fromarray(np.full((12, 16), 200, np.uint8)).save(tmp_path / "grey.png")
    read = inputs(
        tmp_path, described, label="dog", style=[tmp_path / "grey.png"], mask=tmp_path / "grey.png", text="A red fox"
    )
    assert read["label"] == 1 and inputs(tmp_path, described, label="0")["label"] == 0
    np.testing.assert_allclose(read["style"], np.full((6, 8, 3), 200 / 255), rtol=1e-6)
    np.testing.assert_array_equal(read["mask"], np.ones((6, 8, 1)))
    words = vocabulary.read(tmp_path)
    assert vocabulary.decode(read["tokens"], words) == "a red <unknown>" and read["tokens"].shape == (5,)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label": "dgo"}, r"--label=dgo: there is no such class. Did you mean 'dog'"),
        ({"label": "2"}, r"--label=2: there is no such class"),
        ({"mask": "nowhere.png"}, r"nowhere\.png"),
        ({"label": "dog", "weights": "1,2"}, r"--label=dog is a single style, --weights=1,2 a blend: give either"),
    ],
)
def test_inputs_that_cannot_be_are_named(tmp_path, described, given, words):
    given = {name: tmp_path / value if name == "mask" else value for name, value in given.items()}
    with pytest.raises(UserError, match=words):
        inputs(tmp_path, described, **given)


def test_an_input_that_a_system_does_not_take_is_refused(vae, tmp_path, described):
    with pytest.raises(UserError, match=r"--label=3: .*vae does not take it; beside images it takes nothing"):
        apply.main([f"--run={vae}", "--count=2", "--label=3", f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match=r"--text=a: x\.y does not take it; beside images it takes label, mask"):
        inputs(tmp_path, described, taken=("label", "mask"), text="a")
    (tmp_path / vocabulary.FILE).unlink()
    with pytest.raises(UserError, match=r"was trained without texts"):
        inputs(tmp_path, described, text="a")
