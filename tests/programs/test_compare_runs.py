"""Runs side by side: seeds are folded, everything else that differs is named."""

import json
import re

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.programs import compare_runs
from cvjax.record import Record

CONFIG = {"system": "generative.gans.gan", "recipe": {"latent": 32}, "data": {"name": "digits"}, "steps": 40}


def make_run(folder, seed, latent=32, fid=1.0):
    record = Record(folder, steps=40)
    record.start({**CONFIG, "recipe": {"latent": latent}, "seed": seed}, {})
    for step in (10, 20, 30, 40):
        record.scalars(step, "train", {"loss/generator": fid / step})
    for step in (20, 40):
        record.scalars(step, "eval", {"fid": fid * 20 / step})
        record.figure(step, "samples", np.full((4, 8, 8, 1), fid / 4))
    record.scalars(40, "eval", {"fid": fid / 2})  # a finished run that was started again
    record.verdict({"fid": fid / 2})
    record.close()
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    runs = [make_run(root / f"gan-seed{seed}", seed, fid=fid) for seed, fid in enumerate((1.0, 2.0, 3.0))]
    runs.append(make_run(root / "<wide>", 0, latent=64, fid=4.0))
    compare_runs.main([*map(str, runs), f"--output={root / 'compared.html'}"])
    return (root / "compared.html").read_text()


def test_figures_are_means_and_spreads_over_seeds(page):
    text = re.sub(r"<[^>]*>", " ", page)
    assert "gan (3 seeds)" in text and "&lt;wide&gt;" in text and "<wide>" not in page
    # Mean and standard deviation of .5, 1 and 1.5.
    assert re.search(r"fid\s.*?1 ± 0\.5\s+2\s", text, re.DOTALL)
    assert re.search(r"recipe\.latent\s+32\s+64", text) and "seed " not in text.split("What differs")[1]


def test_curves_have_a_line_for_each_group_with_the_spread(page):
    charts = json.loads(re.search('id="curves">(.*?)</script>', page, re.DOTALL)[1])["charts"]
    fid, loss = ({line["label"]: line for line in chart["series"]} for chart in charts)
    assert loss["gan (3 seeds)"]["values"] == pytest.approx([2 / step for step in (10, 20, 30, 40)])
    folded = fid["gan (3 seeds)"]
    assert folded["steps"] == [20, 40] and folded["low"] == [1, 0.5] and folded["high"] == [3, 1.5]
    assert "low" not in fid["<wide>"] and fid["<wide>"]["values"] == [4, 2]


def test_pictures_are_beside_each_other(page):
    pictures = re.findall(r'alt="(.*?)"', page.split("<h2>Figures")[0])
    assert pictures == ["samples of gan-seed0, step 40", "samples of &lt;wide&gt;, step 40"]


def test_one_run_is_not_a_comparison(tmp_path):
    run = str(make_run(tmp_path / "run", 0))
    with pytest.raises(UserError, match="two or more"):
        compare_runs.main([run, run])
    with pytest.raises(UserError, match="not the folder of a run"):
        compare_runs.main([run, str(tmp_path)])
