"""Mistakes in `config.data`: each ends in one message that names the key and what would be right."""

from pathlib import Path

import pytest

from cvjax import data
from cvjax.errors import UserError


def refused(message, devices=1, **settings):
    data.refuse_workdir({"name": "digits", **settings}, Path("run"))  # which comes first when a run starts
    with pytest.raises(UserError, match=message) as caught:
        data.check({"name": "digits", **settings}, devices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"also": "photos"}, "config.data.also='photos': expected"),
        ({"batchh": 3}, "config.data.batchh: there is no such key. Did you mean 'batch'"),
        ({"batch": "64"}, "config.data.batch='64': expected int at least 1"),
        ({"batch": 64.0}, "data.batch=64.0: expected int"),
        ({"batch": True}, "data.batch=True: expected int"),
        ({"batch": 0}, "data.batch=0: expected int at least 1"),
        ({"eval_batch": -1}, "data.eval_batch=-1"),
        ({"workers": -1}, "data.workers=-1"),
        ({"in_memory": 1}, "data.in_memory=1: expected bool"),
        ({"on_corrupt": "skp"}, "expected one of raise, skip"),
        ({"name": None}, "neither is set"),
        ({"folder": "x"}, "both are set"),
        ({"name": "digit"}, "no such dataset. Did you mean 'digits'"),
        ({"name": "mnst"}, "no such dataset. Did you mean 'mnist'"),
        ({"name": "no such"}, "no such dataset"),
        ({"name": "coco/2018"}, "no such variant. Did you mean '2017'"),
        ({"name": "mnist:9.9.9"}, "only: 3.0.1"),
        ({"train_split": "trian"}, "data.train_split='trian'.*Did you mean 'train'"),
        ({"eval_split": "validation"}, "data.eval_split='validation'.*Known: test, train"),
        ({"transforms": dict(op="flip")}, "data.transforms=.*expected tuple"),
        ({"transforms": ["flip"]}, r"data.transforms\[0\] must be a dict"),
        ({"transforms": [dict(size=3)]}, r"data.transforms\[0\] must be a dict such as dict\(op="),
        ({"transforms": [dict(op="flip"), dict(op="random_crp")]}, r"\[1\]: .*Did you mean 'random_crop'"),
        ({"eval_transforms": [dict(op="resiz")]}, r"data.eval_transforms\[0\].*Did you mean 'resize'"),
        ({"transforms": [dict(op="resize", siz=4)]}, "no argument 'siz'. Did you mean 'size'"),
        ({"transforms": [dict(op="resize", generator=4, size=4)]}, "no argument 'generator'"),
        ({"transforms": [dict(op="resize")]}, "resize needs a value for 'size'"),
        ({"transforms": [dict(op="resize", size="4")]}, r"resize: size='4': expected int \| Sequence\[int\]"),
        ({"transforms": [dict(op="resize", size=4, method="cubic")]}, "expected one of nearest, bilinear, bicubic"),
        ({"transforms": [dict(op="flip", p=True)]}, "flip: p=True: expected float"),
        ({"transforms": [dict(op="crop", size=9, top=0, left=0)]}, r"crop\(.*\) fails on an image of digits \(8x8x1\)"),
        ({"transforms": [dict(op="adjust_hue", delta=0.1)]}, "needs an image of three channels, not 1"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(settings, message):
    refused(message, **settings)


def test_a_batch_must_be_divisible_among_devices():
    refused("data.batch=20 cannot be divided among 8 devices; the next that can is 24", devices=8, batch=20)
    refused("data.eval_batch=9 .* is 16", devices=8, eval_batch=9)
    data.check({"name": "digits", "batch": 24}, 8)


def test_what_is_right_passes():
    data.check({"name": "digits"})
    data.check(
        {
            "name": "digits",
            "train_split": "train[:50%]+test[:10]",
            "eval_split": "test[10:]",
            "transforms": [dict(op="flip"), dict(op="rotate", degrees=[-5, 5.0]), dict(op="resize", size=[16, 16])],
        }
    )


def test_checking_prepares_and_decodes_nothing(tmp_path):
    data.check({"name": "digits", "data_dir": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="Did you mean 'train'"):
        data.check({"name": "digits", "data_dir": str(tmp_path), "train_split": "trian"})


@pytest.mark.parametrize("name", ["mnist", "coco/2017"])
def test_a_dataset_that_needs_tensorflow_to_be_prepared_says_how(tmp_path, capfd, name):
    with pytest.raises(UserError) as caught:
        data.check({"name": name, "data_dir": str(tmp_path)})
    assert "pip install 'cvjax[prepare]'" in str(caught.value)
    assert f"tfds build {name} --file_format=array_record --data_dir={tmp_path}" in str(caught.value)
    assert capfd.readouterr() == ("", "")  # TFDS prints a banner when TensorFlow is missing


def test_a_dataset_without_images_says_what_it_has():
    refused("has no feature `image`, only features, species", name="penguins")


def test_every_default_is_of_its_type():
    data.check({**data.DEFAULTS, "name": "digits"})
