"""Exports a trained VGG of photographs as the one that comes with the package.

python -m cvjax.programs.freeze_vgg --run=runs/vgg_photos

The SHA-256 that it prints goes into the entry "cvjax/vgg_photos" of `PACKAGED` in cvjax/weights/packages.py.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from cvjax import checkpoint, command
from cvjax.borrow import as_state
from cvjax.core import variables
from cvjax.errors import UserError
from cvjax.rundir import read_config, read_metrics, write_atomically
from cvjax.weights import vgg_photos

SYSTEM, DATA = "recognition.vgg_classifier", "photo_crops"


def export(run: str | Path, file: str | Path = vgg_photos.FILE) -> dict[str, Any]:
    """Writes the weights of a finished run of `recognition.vgg_classifier` on `photo_crops`, as float16.

    Returns the metadata about their origin, which is in the file too. Raises a UserError for a run of another system,
    of other data or of another network, and for a run that was never evaluated.
    """
    run = Path(run)
    description = read_config(run)
    made = description["config"]
    if (made["system"], made["data"]["name"]) != (SYSTEM, DATA):
        raise UserError(f"{run} is of {made['system']} on {made['data']['name']!r}, not of {SYSTEM} on {DATA!r}.")
    like = jax.eval_shape(vgg_photos.NET.init, jax.random.key(0), jnp.zeros((1, *vgg_photos.SHAPE)))
    state = as_state(checkpoint.read_tree(run / "checkpoints"))
    found = variables(state, "classifier") if "classifier" in state.params else {}
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, like):
        raise UserError(f"{run} has no network `classifier` with the shapes of cvjax.weights.vgg_photos.NET.")
    evaluated = [row for row in read_metrics(run) if row["split"] == "eval"]
    if not evaluated:
        raise UserError(f"{run} was never evaluated: its file would have no figures. Let it train to its end.")
    figures = evaluated[-1]
    about = {
        "source": "crops of the sample photographs of scikit-image and scikit-learn, training split of photo_crops",
        "command": re.sub(r" --workdir[= ]\S+", "", description["command"]),  # a folder of somebody's machine
        **{name: description[name] for name in ("commit", "seed", "config", "versions", "devices")},
        **{name: figures[name] for name in ("step", "top1", "nll")},
    }
    arrays = flax.traverse_util.flatten_dict(jax.tree.map(lambda leaf: np.asarray(leaf, np.float16), found), sep="/")
    content = safetensors.numpy.save(dict(arrays), {"origin": json.dumps(about)})
    write_atomically(Path(file), content)
    return about


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.programs.freeze_vgg", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the finished run")
    parser.add_argument("--output", type=Path, default=vgg_photos.FILE, help="the .safetensors to write")
    arguments = parser.parse_args(argv)
    about = export(arguments.run, arguments.output)
    content = arguments.output.read_bytes()
    print(f"{arguments.output}: top-1 {about['top1']:.3f}, {len(content):,} bytes")
    print(f"SHA-256: {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    command.run_main(main)
