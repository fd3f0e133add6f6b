"""A folder of IDX files divided by class, read back by the data of a run."""

import numpy as np
import pytest

from cvjax import data
from cvjax.errors import UserError
from cvjax.programs import hold_out


@pytest.fixture
def folder(tmp_path):
    """Forty images to train on and twenty to test on, of five classes, whose pixels say their number."""
    for prefix, count in (("train", 40), ("t10k", 20)):
        labels = (np.arange(count) % 5).astype(np.uint8)
        images = np.broadcast_to(labels[:, None, None] * 50, (count, 8, 8)).astype(np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(hold_out.as_idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(hold_out.as_idx(labels))
    return tmp_path


def test_training_lacks_the_classes_and_the_test_has_no_others(folder, capsys):
    hold_out.main([f"--folder={folder}", "--classes=1,4", f"--output={folder / 'unseen'}"])
    assert "24 images to learn from and 8 images of held-out classes" in capsys.readouterr().out
    settings = dict(folder=str(folder / "unseen"), batch=6, per_class=2, eval_batch=8, unseen_classes=True)
    loaded = data.load(settings, seed=0)
    train, test = next(loaded.train()), next(loaded.evaluate())
    assert sorted(train["label"]) == [0, 0, 2, 2, 3, 3] and sorted(set(test["label"].tolist())) == [1, 4]
    for batch in (train, test):
        np.testing.assert_allclose(batch["image"][:, 0, 0, 0] * 255, batch["label"] * 50, rtol=1e-6)


def test_what_cannot_be_divided_is_explained(folder):
    for classes, message in (
        ("7", "no class 7"),
        ("0,1,2,3,4", "all 5 classes"),
        ("1,b", "--classes=1,b: expected numbers"),
    ):
        with pytest.raises(UserError, match=message):
            hold_out.main([f"--folder={folder}", f"--classes={classes}", f"--output={folder / 'unseen'}"])
    with pytest.raises(UserError, match="has IDX files already"):
        hold_out.divide(folder, [1], folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="no IDX files of labelled images for test"):
        hold_out.divide(folder, [1], folder / "unseen")
