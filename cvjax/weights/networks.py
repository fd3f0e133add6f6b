"""Files of a whole network's weights: written as safetensors under our own names, read back, or read as published.

A network's own file names each array by its path in the variables, `params/conv1/kernel`. Published files are those of
torchvision and Keras that `cvjax.weights.torchvision` and `cvjax.weights.keras` know. Nothing is downloaded.
"""

from collections.abc import Mapping
from pathlib import Path

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import PyTree, Shaped

from cvjax.core import Variables
from cvjax.errors import UserError
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.vgg import VGG
from cvjax.rundir import write_atomically
from cvjax.weights import keras, layouts, torchvision
from cvjax.weights.files import read_tensors

SUFFIXES = (".safetensors", ".pth", ".pt", ".npz")
RECOGNISED = {"VGG": VGG, "AlexNet": AlexNet}  # networks whose attributes their published files tell
WRAPPERS = ("state_dict.", "model.", "module.")  # around the names of a whole file: of training scripts, DataParallel


def load(path: str | Path, module: nn.Module, like: PyTree | None = None) -> Variables:
    """Returns the variables of a network, for `module.apply(variables, images)`.

    Args:
      path: a file that `save` wrote, or published weights of a `VGG`, `AlexNet`, `ResNet`, `InceptionV3`,
        `ResNetSegmenter` or `Xception`.
      like: its variables, or their shapes; needed for networks that take anything but images.

    Raises:
      UserError: the file cannot be read, or does not hold exactly these weights.
    """
    tensors = read_tensors(path)
    like = _variables(module) if like is None else like
    try:
        return convert(tensors, like)
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of this {type(module).__name__}: {error}") from error


def convert(tensors: Mapping[str, Shaped[np.ndarray, "..."]], like: PyTree) -> Variables:
    """Returns the tensors of a file, whose layout is found by their names, as variables of the shapes of `like`.

    Published files give float32. Raises a UserError for tensors that are missing, left over or of another shape.
    """
    tensors = _unwrap(tensors)
    wanted = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(like).items()}
    if (layout := torchvision.find_layout(tensors)) is not None:
        return layouts.convert(tensors, wanted, layout, torchvision.describe(tensors))
    if keras.SIGN in (named := keras.normalise(tensors)):
        return layouts.convert(named, wanted, keras.XCEPTION)
    return layouts.convert(tensors, wanted, layouts.OWN)


def recognise(path: str | Path) -> nn.Module:
    """Returns the network whose weights a file holds: a VGG or an AlexNet of torchvision's names.

    Raises a UserError for other files, whose names and shapes do not tell the network.
    """
    tensors = _unwrap(read_tensors(path))
    found = torchvision.recognise(tensors)
    if found is None:
        held = describe(tensors)
        raise UserError(
            f"{path} does not tell its network{held and f', {held}'}: that is known of torchvision's VGG and AlexNet "
            "alone. Other networks are borrowed from a run or a package."
        )
    return found


def describe(tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """Returns whose layout a published file has and which network it holds, or "" if it is not known."""
    tensors = _unwrap(tensors)
    if (layout := torchvision.find_layout(tensors)) is not None:
        held = torchvision.describe(tensors)
        return f"{layout.owner}{held and f': {held}'}"
    return keras.XCEPTION.owner if keras.SIGN in keras.normalise(tensors) else ""


def _unwrap(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    for wrapper in WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def _variables(module: nn.Module) -> PyTree:
    """The shapes of a network's variables, if it takes images."""
    return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))


def save(path: str | Path, variables: PyTree) -> None:
    """Writes a network's variables, or several by their names, as safetensors; raises a UserError if that fails."""
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    # safetensors 0.8.0 writes arrays that are not C-contiguous in the order of their memory. np.ascontiguousarray would
    # give a scalar an axis.
    arrays = {name: np.asarray(value, order="C") for name, value in flat.items()}
    write_atomically(Path(path), safetensors.numpy.save(arrays))
