"""Every key of every config is described where `--help` looks."""

import house
import pytest

from cvjax import command, config, explain
from cvjax.errors import UserError

VAE = "--config=configs/vae_digits.py:smoke"
BORROWED = ("config.borrow", "config.expect")  # by names of networks and of figures


def parse(*arguments):
    return command.parse_flags(["train.py", *arguments])


@pytest.mark.parametrize("path", house.sources("configs/*.py"))
def test_every_key_of_the_top_level_and_of_recipes_is_described(path):
    keys = explain.list_keys(config.load(path))
    nested = ("config.data.", "config.mesh.", "config.expect.", "config.borrow.")
    bare = [key for key, (_, text) in keys.items() if not text and not key.startswith(nested)]
    # An optimiser is of optim.build's keys, and a search for regions is an entry of config.data.derive.
    assert not [key for key in bare if "optimiser" not in key and not key.startswith("config.recipe.search.")]
    assert keys["config.seed"][1].startswith("seed of")


def test_descriptions_are_read_from_comments_and_docstrings():
    keys = explain.list_keys(config.load("configs/dcgan_digits.py"))
    assert keys["config.data.batch"] == (64, "size of a training batch, over all devices and hosts")
    assert keys["config.data.eval_split"] == ("test", "")  # the next line's comment is not its
    assert "label" in keys["config.recipe.training.real_label"][1]


def test_help_for_a_key_or_a_group_explains_it_alone(capsys):
    for arguments in (["--config.steps", "--help"], ["--help", "--config.steps=3"]):
        with pytest.raises(SystemExit):
            parse(VAE, *arguments)
        assert capsys.readouterr().out.startswith("  --config.steps=4\n      total training steps")
    with pytest.raises(SystemExit):
        parse("--config", VAE.partition("=")[2], "--config.data", "--help")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  --config.data.batch=16") for line in lines) and "--workdir" not in "".join(lines)
    with pytest.raises(UserError, match=r"--config\.step: there is no such key\. Did you mean 'config.steps'"):
        parse(VAE, "--config.step", "--help")


def test_values_may_follow_after_a_space():
    joined = command._join_values(
        ["train.py", "--config", "x.py", "--config.steps", "4", "--config.seed=3", "--workdir"]
    )
    assert joined == ["train.py", "--config=x.py", "--config.steps=4", "--config.seed=3", "--workdir"]
    with pytest.raises(UserError, match=r"--config\.steps: expected --config\.steps=VALUE"):
        parse(VAE, "--config.steps", "--config.seed=3")
