"""The overview lists each config with its variants, as their files say."""

from pathlib import Path

import house
import pytest

from cvjax import config
from cvjax.errors import UserError
from cvjax.programs import overview


@pytest.mark.parametrize("path", house.sources("configs/*.py"))
def test_a_config_is_listed_with_its_system_variants_and_result(path):
    entry = overview.read_config(Path(path))
    assert entry.system in config.systems() and overview.title_of(entry.system)
    assert "smoke" in entry.variants and entry.title and entry.result and entry.time
    with pytest.raises(UserError) as caught:
        config.load(f"{path}:none")
    assert sorted(entry.variants) == str(caught.value).partition("Known: ")[2].rstrip(".").split(", ")


def test_words_choose(capsys):
    overview.main(["yolov2"])
    shown = capsys.readouterr().out
    assert "configs/yolov2_scenes.py: YOLOv2 on scenes of real digits" in shown and "no_passthrough" in shown
    assert "reached: VOC07 mAP 0.951" in shown and "dcgan" not in shown
    assert max(map(len, shown.splitlines())) <= 120
    with pytest.raises(UserError, match="no config has one of the words sift"):
        overview.main(["sift"])
    overview.main([])
    everything = capsys.readouterr().out
    assert all(f"{system}: " in everything for system in config.systems())


def test_a_config_is_found_by_its_name_and_among_those_of_the_package(tmp_path, monkeypatch):
    assert config.find_file("vae_digits:smoke") == "configs/vae_digits.py:smoke"
    monkeypatch.chdir(tmp_path)
    for given in ("vae_digits", "vae_digits.py", "configs/vae_digits.py"):
        assert config.find_file(given) == str(config.SHIPPED / "vae_digits.py")
    assert config.load("vae_digits:smoke").steps == 4
    assert {path.name for path in config.list_configs()} == {Path(path).name for path in house.sources("configs/*.py")}
    with pytest.raises(UserError, match=r"--config=other/vae_digits\.py: there is no file"):
        config.load("other/vae_digits.py")
