"""The small VGG of photographs that comes with the package: a network to look into that needs no download.

    python train.py --config=configs/vgg_photos.py --workdir=runs/vgg_photos
    python -m cvjax.programs.freeze_vgg --run=runs/vgg_photos

trains it to tell crops of fifteen photographs and textures apart, and writes its weights, as float16, to
`vgg_photos.safetensors`. The SHA-256 of that file, which the second command prints, goes into `PACKAGED` of
`cvjax.weights.packages`. `config.borrow = {network: "package:cvjax/vgg_photos"}` uses it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Shaped

from cvjax.core import Variables
from cvjax.nets.vgg import VGG

FILE = Path(__file__).with_suffix(".safetensors")
# As in `cvjax.data.builders.photo_crops`, which loads TensorFlow Datasets.
SHAPE = (64, 64, 3)
CLASSES = (
    *("cell", "coffee", "coins", "grass", "gravel", "hubble_deep_field", "ihc", "moon", "motorcycle_left", "page"),
    *("retina", "rocket", "text", "china", "flower"),
)
NET = VGG(11, batch_norm=True, head="mean", classes=len(CLASSES), width=16, dropout=0.2)


def convert(tensors: Mapping[str, Shaped[np.ndarray, "..."]]) -> Variables:
    """Returns the tensors of the file as variables of `NET`, in float32."""
    arrays = {name: np.asarray(tensor, jnp.float32) for name, tensor in tensors.items()}
    return flax.traverse_util.unflatten_dict(arrays, sep="/")


def metadata() -> dict[str, Any]:
    """Returns where the weights come from: data, command, config, seed, versions, and figures on the test split."""
    with safetensors.safe_open(FILE, "numpy") as file:
        return json.loads(file.metadata()["origin"])
