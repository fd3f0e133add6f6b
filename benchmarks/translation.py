"""Training steps of CycleGAN, pix2pix and EDSR, and EDSR without gradients, beside the same in torch; films by `apply`.

    python -m benchmarks.translation [--rounds=7] [--only=SUBSTRING]

Needs the extra `parity`. Pictures and weights are random. Contestants take turns in each round, each in a process of
its own. Writes the section `translation` of BENCHMARKS.md, with peak memory, and exits with 1 if a bar is missed;
--only writes no file.
"""

import contextlib
import io
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app

from benchmarks import report, segmentation, steps, torch_translation
from benchmarks.detectors import ONLY, ROUNDS
from cvjax import config as experiments
from cvjax.core import variables
from cvjax.ops.tiling import map_tiles
from cvjax.predictor import Predictor
from cvjax.programs import apply, video

BAR = 1.2  # our time by torch's
MARGIN = 12  # pixels around a tile: what the small EDSR sees
Case = Mapping[str, Any]

CYCLEGAN = dict(config="cyclegan_horse2zebra", pictures=("image", "also_image"), size=(256, 256), batch=1)
PIX2PIX = {"recipe.depth": 8, "recipe.width": 64, "recipe.field": 70, "recipe.discriminator_width": 64}
EDSR = dict(config="edsr_div2k", pictures=("image",), changes={})
SMALL = dict(config="edsr_photos", pictures=("image",), changes={})
# name: the config, changes to it, the names and sizes of a batch's pictures, and what is timed
CASES = {
    "CycleGAN with 9 blocks, 256 px, batch 1, training step": CYCLEGAN | dict(changes={}),
    "CycleGAN with 6 blocks, 256 px, batch 1, training step": CYCLEGAN | dict(changes={"recipe.blocks": 6}),
    "pix2pix, 256 px, batch 1, training step": dict(
        config="pix2pix_shapes", pictures=("image", "target"), size=(256, 256), batch=1, changes=PIX2PIX
    ),
    "EDSR baseline, 96 px from 48, batch 16, training step": EDSR | dict(size=(96, 96), batch=16),
    "EDSR baseline, 512 px from 256, no gradients": EDSR | dict(size=(256, 256), batch=1, tile=None),
    "Small EDSR, 12 megapixels from 3, tiles of 256 px, no gradients": SMALL
    | dict(size=(1500, 2000), batch=1, tile=256),
}

# The same of films, which `apply` reads, translates and writes; size is that of a frame.
FILMS = {
    "pix2pix, 8 levels of width 64, 256 px": dict(config="own_pairs", size=(256, 256), changes={}),
    "CycleGAN with 6 blocks, 256 px": dict(
        config="cyclegan_horse2zebra", size=(256, 256), changes={"recipe.blocks": 6}
    ),
    "Small EDSR, 512 px from 256": dict(config="edsr_photos", size=(256, 256), changes={}),
}
FRAMES = 16
FILMED = f"""
Films of {FRAMES} frames, through all of `python -m cvjax.apply`: decoding, our network, encoding; beside the jitted
network on frames in memory, one at a time.
"""


def experiment(case: Case) -> dict[str, Any]:
    """The experiment of a row."""
    return steps.experiment(case["config"], case["changes"])


def system(config: Mapping[str, Any]) -> str:
    """The last part of a system's name."""
    return config["system"].rpartition(".")[2]


def batches(case: Case) -> list[dict[str, np.ndarray]]:
    """Two batches of random pictures."""
    generator = np.random.default_rng(0)
    shape = (case["batch"], *case["size"], 3)
    return [{name: generator.random(shape, np.float32) for name in case["pictures"]} for _ in range(2)]


def described(case: Case) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch."""
    return {name: jax.ShapeDtypeStruct((case["batch"], *case["size"], 3), jnp.float32) for name in case["pictures"]}


# --- training steps -----------------------------------------------------------------------------------------------


def our_step(case: Case) -> Callable[[], None]:
    """A function that takes one training step of the recipe, jitted, with a donated state."""
    placed = [jax.device_put(batch) for batch in batches(case)]
    (step, state), turn = steps.begin(experiment(case), placed[0]), itertools.cycle(placed)

    def work():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, next(turn)))

    return work


def torch_step(case: Case) -> Callable[[], None]:
    """The same in torch."""
    torch.set_num_threads(steps.THREADS)
    torch.manual_seed(0)
    config = experiment(case)
    name, recipe = system(config), config["recipe"]
    step = torch_translation.STEPS[name](recipe, torch_translation.networks(name, recipe))
    placed = [[to_torch(picture) for picture in batch.values()] for batch in batches(case)]
    turn = itertools.cycle(placed)
    return lambda: step(*next(turn))


def to_torch(pictures: np.ndarray) -> torch.Tensor:
    """NHWC -> NCHW."""
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


# --- EDSR without gradients ---------------------------------------------------------------------------------------


def enlarge(function: Callable[[np.ndarray], np.ndarray], case: Case, scale: int) -> Callable[[], None]:
    """A function that enlarges a picture, whole or in tiles.

    Args:
      function: pictures of NHWC -> the pictures enlarged, their margins too.
    """
    (picture,) = batches(case)[0]["image"]
    if case["tile"] is None:
        return lambda: function(picture[None])
    inside = slice(scale * MARGIN, -scale * MARGIN)
    return lambda: map_tiles(lambda x: function(x)[:, inside, inside], picture, case["tile"], MARGIN, scale)


def our_inference(case: Case) -> Callable[[], None]:
    """A function that enlarges a picture by our network, jitted."""
    config = experiment(case)
    (net,) = experiments.build(config).networks.values()
    held, apply = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3))), jax.jit(net.apply)
    return enlarge(lambda x: np.asarray(apply(held, jnp.asarray(x))), case, config["recipe"]["scale"])


def torch_inference(case: Case) -> Callable[[], None]:
    """The same in torch."""
    torch.set_num_threads(steps.THREADS)
    config = experiment(case)
    net = torch_translation.EDSR(config["recipe"]).eval()

    def function(pictures):
        with torch.inference_mode():
            return net(to_torch(pictures)).permute(0, 2, 3, 1).numpy()

    return enlarge(function, case, config["recipe"]["scale"])


# --- films --------------------------------------------------------------------------------------------------------


def frames(case: Case) -> np.ndarray:
    """Smooth random frames that move, in 8 bits: noise would be all that codecs work on."""
    height, width = case["size"]
    rows, columns = np.mgrid[:height, :width]
    shifts = np.arange(FRAMES)[:, None, None]
    waves = [np.sin((rows + k * columns) / 17 + shifts / (k + 2)) for k in range(3)]
    return np.round(127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)


def initialised(case: Case) -> tuple[dict[str, Any], Any, Any]:
    """A case's experiment, recipe and first state."""
    config = experiment(case)
    recipe = experiments.build(config)
    shape = jnp.zeros((1, *case["size"], 3))
    batch = dict.fromkeys(("image", "also_image", "target"), shape)
    return config, recipe, jax.jit(recipe.init)(jax.random.key(0), batch)


def applied_film(case: Case) -> Callable[[], None]:
    """A function that reads a film, translates its frames and writes them, as `apply` does, in a folder of its own."""
    config, recipe, state = initialised(case)
    description = {"config": config, "batch": {"image": [[1, *case["size"], 3], "float32"]}}
    predictor, scratch = Predictor(description, recipe, state, 16), tempfile.TemporaryDirectory()
    folder = Path(scratch.name)
    video.write_video(folder / "in.mp4", frames(case), 25.0)

    def work():
        folder = Path(scratch.name)  # removed with this function, which alone holds it
        with contextlib.redirect_stdout(io.StringIO()):
            apply.apply_to_video(predictor, folder / "in.mp4", folder / "out.mp4")

    return work


def plain_film(case: Case) -> Callable[[], None]:
    """A function that translates the same frames, which are in memory, by the jitted network alone."""
    _, recipe, state = initialised(case)
    name, net = next(iter(recipe.networks.items()))
    held, translate = variables(state, name), jax.jit(net.apply)
    placed = [jax.device_put(frame[None] / np.float32(255)) for frame in frames(case)]

    def work():
        for frame in placed:
            jax.block_until_ready(translate(held, frame))

    return work


def film_row(name: str, times: Mapping[str, list[float]]) -> str:
    """A line of the table of films."""
    rates = {way: FRAMES / statistics.median(values) * 1000 for way, values in times.items()}
    share = statistics.median(plain / ours for ours, plain in zip(times["apply"], times["network"], strict=True))
    return f"| {name} | {rates['apply']:.1f} | {rates['network']:.1f} | {share:.2f} |"


# --- the table ----------------------------------------------------------------------------------------------------


def makers(case: Case) -> dict[str, Callable]:
    """What makes our contestant of a row and torch's."""
    ours, theirs = (our_inference, torch_inference) if "tile" in case else (our_step, torch_step)
    return {"ours": partial(ours, case), "torch": partial(theirs, case)}


def main(_) -> None:
    lines, missed = (
        ["| work | bar | ours / torch | ours, ms | torch, ms | memory, ours / torch |", "|" + "---|" * 6],
        [],
    )
    for name in (name for name in CASES if ONLY.value in name):
        measured = report.measure(makers(CASES[name]), ROUNDS.value, finish=segmentation.peak_memory)
        line, met = segmentation.row(name, *measured)
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
    films = ["| film | frames/s of `apply` | frames/s of the network alone | share |", "|" + "---|" * 4]
    for name in (name for name in FILMS if ONLY.value in name):
        contestants = {"apply": partial(applied_film, FILMS[name]), "network": partial(plain_film, FILMS[name])}
        films.append(film_row(name, report.measure(contestants, ROUNDS.value)[0]))
        print(films[-1], flush=True)
    header = f"""## Translation and super-resolution

`python -m benchmarks.translation`: CPU, {steps.THREADS} threads each, float32, random pictures and weights; torch in
its default layout, Adam fused. A step is a whole one: both of CycleGAN's generators and discriminators and its pools;
pix2pix's generator and discriminator; EDSR's pictures made smaller by the antialiased bicubic kernel. Times are medians
over rounds in which both are timed in turn, ratios medians of the rounds' ratios, with their quartiles; memory is the
most that each process held.
{report.machine(["jax", "flax", "torch"])}.
"""
    if not ONLY.value:
        report.write_section("translation", "\n".join([header, *lines, FILMED, *films]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
