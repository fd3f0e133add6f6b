"""Exports a trained digit classifier as the frozen judge of generated digits.

python -m cvjax.programs.freeze_judge --run=runs/classifier_digits
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from cvjax import checkpoint, command
from cvjax.errors import UserError
from cvjax.rundir import read_config, read_metrics, write_atomically
from cvjax.weights import digit_classifier


def export(run: str | Path, file: str | Path = digit_classifier.FILE) -> dict[str, Any]:
    """Writes the weights of a finished run of `recognition.classifier` on digits to an .npz file.

    Returns the metadata about their origin, which is in the file too.
    """
    run = Path(run)
    description = read_config(run)
    like = jax.eval_shape(digit_classifier.NET.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    params = checkpoint.read_tree(run / "checkpoints")["params"].get("classifier")
    if params is None or jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, like):
        raise UserError(f"{run} has no network `classifier` with the shapes of cvjax.weights.digit_classifier.NET.")
    figures = [row for row in read_metrics(run) if row["split"] == "eval"][-1]
    about = {
        "source": "scikit-learn's load_digits (UCI, Optical Recognition of Handwritten Digits, 1998), training split",
        "command": description["command"],
        "commit": description["commit"],
        "seed": description["seed"],
        "step": figures["step"],
        "test_accuracy": figures["accuracy"],
        "test_nll": figures["nll"],
        "config": description["config"],
        "versions": description["versions"],
        "devices": description["devices"],
    }
    _write(Path(file), params, about)
    return about


def _write(file: Path, params: PyTree, about: Mapping[str, Any]) -> None:
    arrays = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    content = io.BytesIO()
    np.savez_compressed(content, metadata=json.dumps(about), **arrays)
    write_atomically(file, content.getvalue())


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(prog="python -m cvjax.programs.freeze_judge", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the finished run")
    parser.add_argument("--output", type=Path, default=digit_classifier.FILE, help="the .npz to write")
    arguments = parser.parse_args(argv)
    about = export(arguments.run, arguments.output)
    print(f"{arguments.output}: test accuracy {about['test_accuracy']:.3f}, {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    command.run_main(main)
