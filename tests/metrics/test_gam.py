"""The verdict on two GANs: its arithmetic, its errors counted by hand, and the command on two trained runs."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import run_as_main

from cvjax import data, runs
from cvjax.core import Recipe, State
from cvjax.errors import UserError
from cvjax.metrics.gam import CHUNK, Errors, battle, gam, report

NOTHING = State(step=jnp.int32(0), params={}, opt={})


@pytest.mark.parametrize(
    ("a", "b", "r_test", "r_samples", "winner"),
    [
        ((0.30, 0.20), (0.30, 0.40), 1.0, 0.5, "a"),  # A's discriminator is deceived less often than B's
        ((0.33, 0.40), (0.30, 0.20), 1.1, 2.0, "b"),
        ((0.30, 0.20), (0.33, 0.40), 1 / 1.1, 0.5, "a"),
        ((0.40, 0.20), (0.30, 0.40), 4 / 3, 0.5, "none"),  # a discriminator that is worse to begin with
        ((0.30, 0.20), (0.40, 0.40), 0.75, 0.5, "none"),
        ((0.30, 0.25), (0.30, 0.25), 1.0, 1.0, "none"),
        ((0.0, 0.0), (0.0, 0.5), 1.0, 0.0, "a"),
        ((0.0, 0.5), (0.0, 0.0), 1.0, np.inf, "b"),
        ((0.0, 0.5), (0.1, 0.4), 0.0, 1.25, "none"),
        ((0.1, 0.4), (0.0, 0.5), np.inf, 0.8, "none"),
    ],
)
def test_verdict(a, b, r_test, r_samples, winner):
    verdict = gam(Errors(*a), Errors(*b))
    assert (verdict.r_test, verdict.r_samples) == (pytest.approx(r_test), pytest.approx(r_samples))
    assert verdict.winner == winner
    swapped = gam(Errors(*b), Errors(*a)).winner
    assert swapped == {"a": "b", "b": "a", "none": "none"}[winner]


def test_the_tolerance_says_how_far_from_1_the_test_errors_may_be():
    a, b = Errors(0.4, 0.2), Errors(0.3, 0.4)
    assert gam(a, b, tolerance=0.3).winner == gam(b, a, tolerance=0.3).winner == "none"
    assert (gam(a, b, tolerance=0.34).winner, gam(b, a, tolerance=0.34).winner) == ("a", "b")


def grey(low, high, threshold, shape=(1, 1, 1)):
    """A GAN of plain images, evenly from `low` to `high`, which takes for real what is above the threshold."""

    def sample(state, key, inputs):
        count = inputs["count"]
        return {"image": jnp.broadcast_to(jnp.linspace(low, high, count).reshape(count, 1, 1, 1), (count, *shape))}

    def predict(state, inputs, key):
        assert len(inputs["image"]) == CHUNK  # one compilation
        return {"logit": inputs["image"].mean(axis=(1, 2, 3)) - threshold}

    return Recipe({}, *[print] * 5, predict=predict, sample=sample), NOTHING


def test_each_discriminator_judges_the_test_images_and_the_other_ones_samples():
    images = np.linspace(0, 1, 600, dtype=np.float32).reshape(600, 1, 1, 1)
    a, b = battle(grey(0.0, 0.5, threshold=0.25), grey(0.2, 0.6, threshold=0.4), images, count=500)
    # A takes a quarter of the test images for generated ones, and 7/8 of B's samples for real: those above 1/4.
    assert a == pytest.approx((0.25, 0.875), abs=1 / 500) and b == pytest.approx((0.4, 0.2), abs=1 / 500)


def test_a_discriminator_that_has_diverged_is_always_wrong():
    images = np.zeros((600, 1, 1, 1), np.float32)
    a, b = battle(grey(0.0, 0.5, threshold=np.nan), grey(0.2, 0.6, threshold=-1.0), images, count=10)
    assert a == (1.0, 1.0) and b == (0.0, 1.0)


def test_what_does_not_sample_or_judge_is_no_gan():
    gan, state = grey(0.0, 1.0, 0.5)
    broken = [
        Recipe(**{**vars(gan), "sample": None}),
        Recipe(**{**vars(gan), "predict": None}),
        Recipe(**{**vars(gan), "predict": lambda state, inputs, key: {"image": inputs["image"]}}),
    ]
    images = np.zeros((600, 1, 1, 1), np.float32)
    for recipe in broken:
        with pytest.raises(UserError, match=r"--run_b is no GAN"):
            battle((gan, state), (recipe, state), images)
        with pytest.raises(UserError, match=r"--run_a is no GAN"):
            battle((recipe, state), (gan, state), images)


@pytest.fixture(scope="module")
def trained(trained_run):
    """The folder of a GAN trained for four steps."""
    return trained_run("configs/dcgan_digits.py:smoke")


def run(monkeypatch, *arguments):
    """Runs the command in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["gam", *map(str, arguments)])
    monkeypatch.delitem(sys.modules, "cvjax.programs.gam", raising=False)
    with pytest.raises(SystemExit) as exit:
        run_as_main("cvjax.programs.gam")
    return exit.value.code


@pytest.fixture
def pretended(trained, monkeypatch):
    """Loads that are made up: {folder's name: (recipe, state)}, with the config of the trained run."""
    folders, load = {}, runs.load

    def pretend(folder):
        description, recipe, state = load(trained)
        description["config"]["data"]["name"] = "mnist" if folder.name == "elsewhere" else "digits"
        return description, *folders.get(folder.name, (recipe, state))

    monkeypatch.setattr(runs, "load", pretend)
    return folders


def test_command_compares_a_trained_run_with_another(trained, pretended, monkeypatch, capsys):
    pretended["other"] = other = grey(0.2, 0.6, threshold=0.3, shape=(8, 8, 1))
    _, recipe, state = runs.load(trained)
    images = data.arrays("digits", "test")["image"]

    def judge(state, inputs):
        return recipe.predict(state, inputs, jax.random.key(0))

    def share(condition):
        return float(np.mean(condition))

    drawn, generated = (
        gan.sample(s, jax.random.key(5), {"count": 300})["image"] for gan, s in (other, (recipe, state))
    )
    a = Errors(share(judge(state, {"image": images})["logit"] <= 0), share(judge(state, {"image": drawn})["logit"] > 0))
    b = Errors(share(images.mean(axis=(1, 2, 3)) <= 0.3), share(generated.mean(axis=(1, 2, 3)) > 0.3))
    assert not run(monkeypatch, "--run_a=x/a", "--run_b=x/other", "--count=300", "--seed=5", "--tolerance=1e9")
    assert capsys.readouterr().out.strip() == report({"a": "x/a", "b": "x/other"}, (a, b), gam(a, b, 1e9))


def test_command_explains_mistakes(pretended, monkeypatch, capsys):
    pretended["vae"] = Recipe({}, *[print] * 5, sample=print), NOTHING
    for arguments, words in [
        (["--run_a=x/a", "--run_b=x/vae"], "--run_b is no GAN whose discriminator"),
        (["--run_a=x/a", "--run_b=x/elsewhere"], "data.name='digits', --run_b 'mnist'"),
        (["--run_a=x/a"], "--run_b"),
        (["--run_a=x/a", "--run_b=x/a", "--count=0"], "--count=0"),
        (["--run_a=x/a", "--run_b=x/a", "--tolerance=nan"], "--tolerance=nan"),
    ]:
        assert run(monkeypatch, *arguments) == 1
        assert words in capsys.readouterr().err


def test_table():
    errors = Errors(0.25, 0.5), Errors(0.5, 0.125)
    names = {"a": "runs/a", "b": "runs/longer than that"}
    lines = report(names, errors, gam(*errors)).splitlines()
    assert [line.split()[-2:] for line in lines[1:3]] == [["0.2500", "0.5000"], ["0.5000", "0.1250"]]
    assert "r_test 0.500, r_samples 4.000: no verdict" in lines[3]
    assert "runs/longer than that wins" in report(names, errors, gam(*errors, tolerance=1.0))
    assert report(names, (errors[0], errors[0]), gam(errors[0], errors[0])).endswith("a draw")
    undeceived = Errors(1.0, 0.0), Errors(0.6, 0.0)
    assert "no verdict" in report(names, undeceived, gam(*undeceived))
