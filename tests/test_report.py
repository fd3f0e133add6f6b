"""The report page: what it says in each state of a run, and that it works in a browser from disk, with no network."""

import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import run_as_main

from cvjax import report
from cvjax.errors import UserError
from cvjax.record import Record
from cvjax.rundir import read_config, write_atomically

HOSTILE = "<script>alert('&')</script>"
CONFIG = {
    "system": "generative.gans.gan",
    "recipe": {"latent": 32, "note": HOSTILE},
    "data": {"name": "digits", "batch": 64, "transforms": [{"op": "crop", "size": 8}], "folder": None},
    "steps": 100,
    "expect": {"fid": ["<=", 0.9], "smallest_class": [">=", 0.05]},
}


def make_run(folder, last=100):
    """A run with two groups of losses, two figures of evaluation, two names of pictures and its speed."""
    record = Record(folder, steps=100, expect=CONFIG["expect"])
    command = "python train.py --config=x.py --workdir=runs/x"
    facts = {"seed": 3, "commit": "abcdef0123456789", "devices": ["cpu", "cpu"], "versions": {"jax": "1.2"}}
    record.start(CONFIG, {**facts, "command": command})
    record.parameters({"generator": {"Dense_0": {"kernel": np.zeros((32, 64)), "bias": np.zeros(64)}}})
    for step in range(10, last + 1, 10):
        record.scalars(step, "train", {"loss/generator": 1 / step, "loss/discriminator": math.nan if step == 30 else 1})
        record.scalars(step, "train", {f"norm/{HOSTILE}": -step})
        record.scalars(step, "speed", {"steps_per_second": 20.0, "flops_per_second": 2.5e12, "data_wait": 0.015})
        if step % 20 == 0:
            record.scalars(step, "eval", {"fid": 20 / step, "smallest_class": 0.04, "loss/generator": 2 / step})
            record.figure(step, "samples/ema", np.full((4, 8, 8, 1), step / 100))
            record.figure(step, "photo", np.full((64, 64, 3), step / 100))
    return record


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    record = make_run(tmp_path_factory.mktemp("runs") / "gan <digits>")
    record.verdict({"fid": 0.2, "smallest_class": 0.04})
    record.close()
    return record.workdir / "report.html"


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Opens a page in headless Chromium; returns its DOM after the scripts ran, and what they said to the console."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        assert "CI" not in os.environ, "the page is tested in a browser: apt-get install chromium"
        pytest.skip("no Chromium on this machine: apt-get install chromium")

    def open_page(path, extra_script=""):
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(
            path.read_text().replace("</body>", f"<script>{extra_script}</script></body>")
        )
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        flags += "--disable-component-update --disable-sync --enable-logging=stderr --window-size=1100,900 --dump-dom"
        command = [browser, *flags.split(), f"--user-data-dir={folder / 'profile'}", f"file://{folder / 'page.html'}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    return open_page


def test_page_in_a_browser(page, browse):
    loaded = "document.body.dataset.broken = [...document.images].filter(image => !image.naturalWidth).length"
    dom, console = browse(page, f"addEventListener('load', () => {{ {loaded} }})")
    assert console == []
    headings = re.findall(r"<h2>(.*?)</h2>", dom)
    assert headings == [
        *["Pictures", "1 of 2 bars met", "Curves", "Speed", "Configuration", "Parameters", "Go on, or repeat"],
        "Made with",
    ]
    # Charts: loss, norm, fid, smallest_class; steps_per_second, data_wait. Curves: loss has three of them.
    assert dom.count('role="img"') == 6 and len(re.findall('<path class="series', dom)) == 8
    # Two figures, each large and five times in the strip.
    assert len(re.findall("<img ", dom)) == 12 and 'data-broken="0"' in dom
    first, second = re.findall('<img [^>]*class="large"[^>]*>', dom)
    assert 'alt="samples/ema at step 100"' in first and 'alt="photo at step 100"' in second
    assert "<figcaption>Samples of the model" in dom and "Fréchet distance between" in dom
    assert all("alt=" in image for image in re.findall("<img [^>]*>", dom))
    broken = re.search(r'<path class="series" d="([^"]*)" stroke="var\(--c1\)"', dom)[1]
    assert broken.count("M") == 2  # the curve is interrupted where the loss was NaN


def test_pointer_slider_and_log_scale(page, browse):
    dom, console = browse(
        page,
        """
        const chart = document.querySelector("[data-chart]"), svg = chart.querySelector("svg[role=img]");
        const before = svg.querySelector("path").getAttribute("d");
        chart.querySelector("button").click();
        const box = svg.getBoundingClientRect();
        const x = box.left + 46 + (box.width - 56) * .38, y = box.top + 50;  // nearest to step 40 of 100
        svg.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y}));
        const told = chart.querySelector(".legend").textContent + " " + chart.querySelector(".at").textContent;
        const slider = document.querySelector("input[type=range]");
        slider.value = 1;
        slider.dispatchEvent(new Event("input"));
        const large = document.querySelector(".large");
        const found = [told, before !== svg.querySelector("path").getAttribute("d"), large.alt, slider.max];
        document.querySelectorAll(".strip button")[4].click();
        document.body.dataset.found = JSON.stringify([...found, large.alt, slider.value]);
        """,
    )
    assert console == []
    found = json.loads(re.search('data-found="([^"]*)"', dom)[1].replace("&quot;", '"'))
    told, logarithmic, alt, top, clicked, value = found
    assert told == "generator 0.025discriminator 1generator (eval) 0.05 at step 40"
    assert logarithmic and alt == "samples/ema at step 40" and top == "4"
    assert clicked == "samples/ema at step 100" and value == "4"


def test_browser_test_sees_errors(page, browse):
    _, console = browse(page, "missing()")
    assert len(console) == 1 and "missing is not defined" in console[0]


def test_page_needs_nothing_from_elsewhere(page):
    text = page.read_text()
    outside = re.findall(
        r"""(?:src|href)=["'](?!data:)[^"']*|url\([^)]*\)|@import|fetch\(|<link (?!rel="icon")""", text
    )
    assert outside == []
    assert "default-src 'none'" in text


def test_names_cannot_inject_markup(page):
    text = page.read_text()
    assert HOSTILE not in text and text.count("&lt;script&gt;alert") == 1  # the config's note
    curves = json.loads(re.search('id="curves">(.*?)</script>', text, re.DOTALL)[1])
    assert curves["charts"][1]["series"][0]["label"] == HOSTILE.removeprefix("norm/")
    assert "<h1>gan &lt;digits&gt;</h1>" in text


def test_what_the_page_says(page):
    text = re.sub(r"<[^>]*>", " ", page.read_text())
    for expected in ("done, 100 steps", "generative.gans.gan on digits", "2 × cpu", "abcdef012345", "crop(size=8)"):
        assert expected in text
    assert re.search(r"fid\s+Fréchet [^<]*; 0 is equal\s+0\.2\s+bar ≤ 0\.9\s+✓ met", text)
    assert re.search(r"smallest_class\s+share of the class [a-z ]*\s+0\.04\s+bar ≥ 0\.05\s+✗ not met", text)
    assert re.search(r"Steps a second\s+20\s", text) and "2.5 TFLOP/s" in text and "1.5 %" in text
    assert re.search(r"Total\s+2,112", text)
    assert "git checkout abcdef0123456789\npython train.py --config=x.py --workdir=ANOTHER_FOLDER" in text


def test_running_stopped_and_resumed(tmp_path):
    record = make_run(tmp_path, last=60)
    running = record.report().read_text()
    assert "running, step 60 of 100" in running and "So far: 1 of 2 bars met" in running
    record.close()
    assert "stopped at step 60 of 100" in (tmp_path / "report.html").read_text()
    # A run that was over and goes on has no final verdict any more.
    record = Record(tmp_path, steps=100, expect=CONFIG["expect"])
    record.verdict({"fid": 0.1, "smallest_class": 1.0})
    assert "<h2>Every bar is met</h2>" in record.report().read_text()
    record.rewind(40)
    assert "So far: 1 of 2 bars met" in record.report().read_text()


def test_run_that_has_just_begun(tmp_path):
    record = Record(tmp_path, steps=100)
    record.start({"system": "generative.autoencoders.vae", "steps": 100}, {})
    text = record.report().read_text()
    assert "running, step 0 of 100" in text and "<h2>Curves</h2>" not in text


def test_long_curves_keep_their_spikes():
    values = [math.sin(i / 500) for i in range(20_000)]
    values[7001], values[9002] = 9.0, math.nan
    steps, kept = report.thin(list(enumerate(values)))
    assert len(steps) <= report._POINTS + 1 and steps == sorted(set(steps)) and steps[-1] == 19_999
    assert kept[steps.index(7001)] == 9.0 and kept[steps.index(9002)] is None
    assert max(np.diff(steps)) < 200


def test_size_with_many_photographs(tmp_path):
    record = Record(tmp_path, steps=30)
    record.start({"system": "x", "steps": 30}, {})
    noise = np.random.default_rng(0).uniform(size=(16, 64, 64, 3)).astype(np.float32)  # nothing compresses worse
    first = record.figure(1, "samples", noise)
    for name in ("samples", "raw", "reconstruction"):
        for step in range(1, 15):
            path = tmp_path / "figures" / name / f"{step:08d}.png"
            if path != first:
                path.parent.mkdir(exist_ok=True)
                os.link(first, path)
    text = record.report().read_text()
    assert text.count("<img ") == 3 * 13 and len(text) < 2_000_000


def test_both_palettes_define_the_same_colours():
    style = report.resources.files("cvjax").joinpath("report.html").read_text()
    light, dark = (set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL))
    used = set(re.findall(r"var\((--[\w-]+)\)", style))
    assert light == dark and used <= light


def test_command_line(tmp_path, monkeypatch, capsys):
    make_run(tmp_path / "run", last=20)
    write_atomically(tmp_path / "run" / "report.html", "old")
    for run, code in (("run", 0), ("none", 1)):
        monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / run)])
        monkeypatch.delitem(sys.modules, "cvjax.report", raising=False)  # or runpy warns
        with pytest.raises(SystemExit) as exit_:
            run_as_main("cvjax.report")
        assert (exit_.value.code or 0) == code
    out, err = capsys.readouterr()
    assert out.endswith(f"{tmp_path / 'run' / 'report.html'}\n")
    assert f"{tmp_path / 'none'} is not the folder of a run" in err and "Traceback" not in err
    assert "stopped at step 20" in (tmp_path / "run" / "report.html").read_text()


def test_another_programs_config_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(UserError, match="is not the folder of a run"):
        read_config(tmp_path)
