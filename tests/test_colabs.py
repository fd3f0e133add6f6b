"""Every notebook of colabs/ is clean and, at smoke size, runs from top to bottom in a kernel of its own."""

import ast
import contextlib
import json
import subprocess
import sys
import types
from unittest.mock import Mock

import house
import nbformat
import numpy as np
import processes
import pytest
from conftest import unit
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from PIL import Image
from sklearn.decomposition import PCA

from cvjax import data
from cvjax.errors import UserError
from cvjax.programs import cartoon

NOTEBOOKS = {path.stem: path for path in sorted((house.ROOT / "colabs").glob("*.ipynb"))}
# Figures drawn by each.
FIGURES = {
    "detection": 8,
    "diffusion": 13,
    "generative": 12,
    "recognition": 7,
    "regions": 11,
    "seeing": 7,
    "segmentation": 5,
    "translation": 9,
}
# What is asked of each kernel in the end: something that JSON can hold.
QUESTIONS = {
    "detection": """dict(
        final=figures, totals=totals, official=official, sweep=dict(zip(thresholds, voc07, strict=True)),
        clustered=[coverage(clustered[count]) for count in counts], picked=coverage(picked),
        anchors=json.loads((RUN / "config.json").read_text())["config"]["recipe"]["anchors"],
        steps=[row["step"] for row in history if row["split"] == "train"], same=all(jax.tree.leaves(same)),
        mistakes=total, objects=objects,
    )""",
    "diffusion": """dict(
        steps=steps, moments=moments, chain=chain.shape, last=bool((chain[-1] == drawn).all()), bits=terms.sum(),
        fids=fids, swept=swept, filled=[found.shape for found in filled], errors=errors, inverted=inverted,
        kept=all(bool((found[:, :4] == known[:, :4]).all()) for found in filled),
        ends=[mixed[0], mixed[-1], signals[:6]],
    )""",
    "generative": """dict(
        controls=controls, judged=judged, game=[collapsed_figures, cured_figures], errors=errors,
        errors_of_two={
            title: np.square(held_out["image"] - images).mean(dtype=float) for title, images in both.items()
        },
        told=told_figures["bits_per_dim"], vae=[bound, gain], same=np.array_equal(*same),
        fields={title: field[centre - 3:centre + 1, centre - 3:centre + 4] for title, field in fields.items()},
        ahead=[bool((field[centre:, centre + 1:] > 0.5).any() or (field[centre + 1:] > 0.5).any())
               for field in fields.values()],
        generator_steps=json.loads((RUNS / "collapsed" / "config.json").read_text())["config"]["recipe"]["training"],
    )""",
    "recognition": """dict(
        figures=figures, threshold=gallery.threshold, accepted=accepted, rates=[verification.area(curves["triplet"])],
        same=[list(set(who.name_pictures(mine))) for who in (gone, back)], names=back.names, answers=answers,
        shares=list(shares.values()), opened=opened["triplet"].true[-1],
    )""",
    "regions": """dict(
        final=figures, totals=totals, table=table, objects=len(best["grid"]), still=still, times=times, asked=asked,
        recalls={title: coverage.recall(overlaps) for title, overlaps in best.items()},
        vectors=vectors.shape, crops=crops.shape,
    )""",
    "seeing": """dict(
        completeness=completeness, cams=[cams.min(), cams.max()], energies=energies, losses=losses[jnp.array([0, -1])],
        accuracies=accuracies, change=jnp.abs(attacked - examples).max(), success=success, values=values,
    )""",
    "segmentation": """dict(
        final=figures, mean_iou=np.nanmean(ious), same=all(jax.tree.leaves(same)), table=table[1:],
        inside=(tiled == whole)[margin:-margin, margin:-margin].mean(),
    )""",
    "translation": """dict(
        colours=colours, splits=[[file.stem for file in (PAIRS / split).iterdir()] for split in ("train", "test")],
        same=[(pair == paint).all() for pair, paint in zip(batch["target"], batch["image"])],
        final=figures, frames=[len(frames) for frames in films.values()], shapes=[films["network"][0].shape],
        errors=found.errors, share=found.share, pairs=found.pairs,
        unpaired=[translated, there.shape, back.shape], enlarged=[gained, large.shape],
    )""",
}

DIGITS = {split: data.arrays("digits", split)["image"].reshape(-1, 64) for split in ("train", "test")}

# Before the first cell: shapes in signatures are checked as in the other tests, and two libraries are not to be found.
CONDITIONS = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
absent = ("tensorflow", "torch")
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name in absent else find(name, *rest))
sys.path.insert(0, {str(house.ROOT / "tests")!r})
import conftest
"""


def read(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def code(notebook):
    """All its code as Python: magics become calls."""
    cells = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    return "\n".join(map(TransformerManager().transform_cell, cells))


@pytest.fixture(scope="module", params=[unit(name) for name in NOTEBOOKS])
def run(request, tmp_path_factory):
    """(name, the executed notebook, the kernel's answers, folder) of each notebook, as a newcomer with one device."""
    name, notebook, folder = request.param, read(request.param), tmp_path_factory.mktemp("colab")
    (folder / "work").mkdir()
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "conditions.py").write_text(CONDITIONS)
    question = f"import json\nprint(json.dumps({QUESTIONS[name]}, default=lambda value: value.tolist()))"
    notebook.cells.append(nbformat.v4.new_code_cell(question))
    environment = {
        "CVJAX_SMOKE": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PIP_NO_INDEX": "1",  # nothing is to be installed
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))  # nothing of the user's is read or written
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))
        options = dict(timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder / "work")}})
        NotebookClient(notebook, **options).execute(env=processes.environment(devices=1) | environment)
    last = notebook.cells.pop()
    return name, notebook, json.loads(last.outputs[-1].text), folder / "work"


# --- as they lie in the repository --------------------------------------------------------------------------------


def test_there_are_notebooks():
    assert "detection" in NOTEBOOKS and set(FIGURES) == set(QUESTIONS) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None), cell.source
    assert [cell.cell_type for cell in notebook.cells].count("markdown") >= 5


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_keeps_the_rules(name):
    path, text = f"colabs/{name}.ipynb", code(read(name))
    ast.parse(text)
    assert house.foreign_imports(path, text) + house.nameless_names(path, text) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_installs_from_a_clone_below(name, tmp_path):
    """Where nothing is installed, the first cell finds the clone below, a folder that Python takes for a package."""
    (tmp_path / "cvjax").symlink_to(house.ROOT)
    first = next(cell for cell in read(name).cells if cell.cell_type == "code")
    program = f"""
import builtins, sys
class Shell:
    def run_line_magic(self, name, line): print(name, line.format(**globals()))
builtins.get_ipython = lambda: Shell()
sys.path.insert(0, "")
{TransformerManager().transform_cell(first.source)}
import cvjax
print(cvjax.__version__)
"""
    bare = [sys.executable, "-I", "-S", "-c", program]  # without installed packages
    printed = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.split("\n")[0].startswith(f"pip install --quiet --editable {tmp_path / 'cvjax'}")
    (tmp_path / "cvjax").unlink()
    lost = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "git clone" in lost.stderr and "pip" not in lost.stdout


def cell(notebook, text):
    return next(cell.source for cell in read(notebook).cells if cell.cell_type == "code" and text in cell.source)


def test_translation_goes_on_without_some_pictures_but_not_without_pairs(tmp_path, capsys):
    source = cell("translation", "cartoon.main").partition("crops = ")[0]
    program = types.SimpleNamespace(LeftOut=cartoon.LeftOut)
    names = {"RUNS": tmp_path, "STYLE": "ink", "PHOTOGRAPHS": "mine", "SIDE": 64, "SMOKE": False, "cartoon": program}
    for error, stops in ((cartoon.LeftOut("1 picture left out"), False), (UserError("holds no images"), True)):
        program.main = Mock(side_effect=error)
        with pytest.raises(UserError, match="holds no images") if stops else contextlib.nullcontext():
            exec(source, dict(names))
    assert "1 picture left out" in capsys.readouterr().out


def test_translation_shows_films_of_odd_sides(tmp_path):
    films = {"film": [np.zeros((31, 33, 3))] * 2, "network": [np.ones((32, 34, 3))] * 2}  # a codec's sides are even
    names = {"films": films, "RUNS": tmp_path, "np": np, "Image": Image, "Animation": Mock()}
    exec(cell("translation", "network.gif"), names)
    assert Image.open(tmp_path / "network.gif").size == (66, 31)


# --- as they run --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_cells_run(run):
    name, notebook, _, _ = run
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == FIGURES[name]
    text = "".join(output.get("text", "") for output in outputs)
    assert "Traceback" not in text and "Warning" not in text


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("detection")], indirect=True)  # not run twice
def test_detection_is_measured(run):
    _, notebook, found, folder = run
    assert 0 <= found["final"]["map_voc07"] <= 1
    # Reloaded from the folder, or put together from pure functions, it detects what it did at the end of the training.
    assert found["totals"]["map_voc07"] == pytest.approx(found["final"]["map_voc07"], abs=1e-6)
    assert found["sweep"]["0.5"] == pytest.approx(found["totals"]["map_voc07"], abs=1e-6)
    for figure, value in found["official"].items():
        assert found["totals"][figure] == pytest.approx(value, abs=1e-9), figure
    assert np.all(np.diff(found["clustered"]) > 0) and found["clustered"][-1] > found["picked"] + 0.05
    assert len(found["anchors"]) == 5 and found["anchors"][0][0] != 0.966  # of these scenes, not the config's
    assert found["same"] and found["steps"] == [2, 4, 6, 8]
    assert found["mistakes"]["missed"] + found["mistakes"]["correct"] <= found["objects"]
    data = [output.data for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    tables = [kinds["text/markdown"] for kinds in data if "text/markdown" in kinds]
    assert len(tables) == 1 and tables[0].count("\n") == 11
    assert (folder / "runs" / "colab_smoke" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("generative")], indirect=True)
def test_generative_is_measured(run):
    _, _, found, folder = run
    exemplars, training = (found["controls"][name] for name in ("one exemplar per class", "500 training digits"))
    assert exemplars["inception_score"] > training["inception_score"]  # as the text says
    assert exemplars["recall"] < training["recall"] and exemplars["fid"] > training["fid"]
    components = PCA(2).fit(DIGITS["train"])
    lost = np.square(components.inverse_transform(components.transform(DIGITS["test"])) - DIGITS["test"]).mean()
    assert found["errors_of_two"]["two principal components"] == pytest.approx(lost, rel=1e-4)
    assert found["generator_steps"]["generator_steps"] == 10
    assert all(0 <= error <= 1 for pair in found["errors"] for error in pair)
    assert len(found["judged"]) == 6 and all(figures["fid"] > 0 for figures in found["judged"].values())
    assert found["told"] == pytest.approx(np.log2(17), abs=1) and found["vae"][1] > 0
    assert found["same"]
    plain, gated = (np.array(found["fields"][name]) > 0.5 for name in ("PixelCNN", "Gated PixelCNN"))
    assert gated[:3].all() and gated[3, :4].all() and found["ahead"] == [False, False]
    assert not plain[2, 6] and plain[:3, :4].all()  # two to the right in the row above is in the blind spot
    for name in ("autoencoder", "vae", "collapsed", "cured", "dcgan", "pixelcnn"):
        assert (folder / "runs" / "generative_smoke" / name / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("regions")], indirect=True)
def test_regions_are_counted(run):
    _, _, found, folder = run
    assert found["totals"]["mask_ap"] == pytest.approx(found["final"]["mask_ap"], abs=1e-6)
    assert found["still"]["RoIPool"] > 0.5 and found["still"]["RoIAlign"] == 0  # as the text says
    systems, windows, times = zip(*found["table"], strict=True)
    assert systems == ("sliding windows", "R-CNN", "SPP-net", "Fast R-CNN", "Faster R-CNN", "Mask R-CNN")
    assert windows[1] == windows[2] == windows[3] <= 40 and 0 < windows[4] == windows[5] <= 64 < found["asked"]
    assert min(times) > 0 and min(found["times"].values()) > 0
    searched, grid = (found["recalls"][title][4] for title in ("selective search", "grid"))
    assert searched >= 0.95 and searched > grid  # of 200
    assert found["vectors"][0] == 1 and found["crops"] == [32, 16, 16, 3]
    assert (folder / "runs" / "regions_smoke" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("segmentation")], indirect=True)
def test_segmentation_is_measured(run):
    _, _, found, folder = run
    assert found["mean_iou"] == pytest.approx(found["final"]["mean_iou"], abs=1e-6)
    assert found["same"] and found["inside"] == 1  # the smoke's network sees less than the margin
    (_, accuracy, entropy, dice, lovasz), (_, *truth) = found["table"]
    assert float(accuracy) > 0.8 and float(entropy) < 2 < 4 * float(dice) and float(lovasz) > 0.8  # as the text says
    assert float(truth[0]) == 1 and all(float(loss) < 0.05 for loss in truth[1:])
    assert (folder / "runs" / "colab_smoke" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("seeing")], indirect=True)
def test_seeing_is_measured(run):
    _, _, found, _ = run
    assert max(found["completeness"]) < 0.25  # eight points of the integral
    assert found["cams"][0] >= 0 and found["cams"][1] > 0
    assert found["energies"][1] > found["energies"][0] and found["losses"][1] < found["losses"][0]
    assert found["accuracies"][0] > 0.95 > 0.8 > found["accuracies"][1]
    assert 0 < found["change"] <= np.float32(0.1)
    assert np.mean(found["values"][-10:]) < np.mean(found["values"][:10])


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("translation")], indirect=True)
def test_translation_paints_films_and_enlarges_at_the_sizes_it_says(run):
    _, _, found, folder = run
    assert found["colours"]["ink"] < 0.5 * found["colours"]["photograph"]
    assert set(found["splits"][1]) == {"astronaut", "brick", "camera", "chelsea"}  # as in the dataset `photos`
    assert len(found["splits"][0]) == 8 and not any(found["same"])
    assert {"psnr", "ssim_over_input"} <= found["final"].keys()
    assert found["frames"] == [5, 5] and found["shapes"] == [[64, 64, 3]] and found["pairs"] == 4
    assert 0.3 < found["share"] <= 1 and all(0 < error < 0.3 for error in found["errors"].values())
    (unpaired, *shapes), (enlarged, shape) = found["unpaired"], found["enlarged"]
    assert shapes == [[8, 32, 32, 3]] * 2 and shape == [128, 192, 3] and "cycle_psnr" in unpaired
    assert enlarged["psnr_y"] - enlarged["psnr_bicubic"] == pytest.approx(enlarged["psnr_over_bicubic"], abs=1e-4)
    for name in ("pix2pix", "cyclegan", "edsr"):
        assert (folder / "runs" / "translation_smoke" / name / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("diffusion")], indirect=True)
def test_diffusion_samples_guides_and_edits(run):
    _, _, found, folder = run
    assert found["steps"] == 8 and found["chain"] == [8, 32, 8, 8, 1] and found["last"]
    assert 2.27 < found["bits"] < 200 and set(found["fids"]) == {"ddpm", "ddim", "dpm_solver"}
    assert all(set(row) == {"2", "4"} for name, row in found["fids"].items() if name != "ddpm")
    assert len(found["swept"]) == 4 and all(0 <= row["class_accuracy"] <= 1 for row in found["swept"])
    assert found["filled"] == [[10, 8, 8, 1]] * 3 and found["kept"]
    assert found["errors"].keys() == {"noisy", "the mean", "a draw"}
    assert found["errors"]["the mean"] < found["errors"]["noisy"]  # clipping alone does that
    assert found["inverted"]["8"] < found["inverted"]["1"] + 1e-3  # more iterations are no less exact
    first, last, given = map(np.array, found["ends"])
    assert np.abs(first - given[:3]).mean() < 0.2 > np.abs(last - given[3:]).mean()
    assert (folder / "runs" / "diffusion_smoke" / "ddpm" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", [unit("recognition")], indirect=True)
def test_recognition_is_measured_and_names_people(run):
    _, _, found, folder = run
    assert found["figures"].keys() == {"pixels", "softmax", "siamese", "triplet"}
    assert all(0 <= figures[name] <= 1 for figures in found["figures"].values() for name in ("verification", "rank1"))
    # Embedded again from its folder, the run has the figures that its training ended with.
    assert found["rates"][0] == pytest.approx(found["figures"]["triplet"]["auc"], abs=1e-4)
    assert 0 < found["threshold"] < 2 and 0 < found["accepted"] < 1
    assert len(found["names"]) == 10 and found["names"][-1] == "somebody again" not in found["same"][0]
    assert {*found["same"][0], *found["same"][1]} <= {*found["names"], None}
    assert 0 <= found["opened"] <= 1 and len(found["shares"]) == 2
    assert len(found["answers"]) == 8 and {answer["name"] for answer in found["answers"].values()} - {None}
    for name in ("softmax", "siamese", "triplet"):
        assert (folder / "runs" / "recognition_smoke" / f"{name}_faces" / "report.html").exists()
