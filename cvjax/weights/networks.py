"""Files of a whole network's weights: written as safetensors under our own names, read back, or read as published.

A network's own file names each array by its path in the variables, `params/conv1/kernel`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree

from cvjax.errors import UserError
from cvjax.nets.inception import InceptionV3
from cvjax.rundir import write_atomically
from cvjax.weights import inception
from cvjax.weights.files import read_tensors

SUFFIXES = (".safetensors", ".pth", ".pt")


def load(path: str | Path, module: nn.Module, like: PyTree) -> Mapping[str, Any]:
    """Reads the variables of a network.

    Args:
      path: a file that `save` wrote, or published weights where they are known (Inception v3).
      module: the network.
      like: its variables, or their shapes.

    Returns:
      The variables.

    Raises:
      UserError: the file cannot be read, or holds other weights.
    """
    if isinstance(module, InceptionV3):
        return inception.load(path, module.variant)
    tensors = read_tensors(Path(path).expanduser())
    wanted = flax.traverse_util.flatten_dict(like, sep="/")
    strange = sorted(tensors.keys() - wanted.keys())
    absent = sorted(wanted.keys() - tensors.keys())
    if strange or absent:
        counts = f"{len(absent)} of {len(wanted)} arrays are missing, {len(strange)} are not of this network"
        names = ", ".join([*absent[:2], *strange[:2]])
        raise UserError(f"{path} does not hold the weights of {type(module).__name__}: {counts} ({names}, ...).")
    return flax.traverse_util.unflatten_dict(tensors, sep="/")


def save(path: str | Path, variables: PyTree) -> None:
    """Writes a network's variables, or several by their names, as safetensors.

    Raises:
      UserError: the file cannot be written.
    """
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    # safetensors 0.8.0 writes arrays that are not C-contiguous in the order of their memory. np.ascontiguousarray would
    # give a scalar an axis.
    arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
    write_atomically(Path(path), safetensors.numpy.save(arrays))
