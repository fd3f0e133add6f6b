"""TFDS datasets by name, our own builders first, read as ArrayRecord with TensorFlow never imported."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from cvjax.data import builders
from cvjax.data.sources import CorruptExample
from cvjax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class CatalogueSplit:
    """One split of a TFDS dataset. Two are equal when they read the same files."""

    name: str
    split: str
    directory: str
    count: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    records: Any = dataclasses.field(compare=False, repr=False)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        try:
            example = self.records[index]
        except Exception as error:  # whatever a decoder makes of bytes that it cannot read
            raise CorruptExample(f"{self.describe(index)} cannot be read: {error}") from error
        return {key: _narrow(example[key]) for key in self.features}

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return f"example {index} of {self.name} ({self.split})"


def find_builder(name: str, data_dir: str | Path | None = None) -> tfds.core.DatasetBuilder:
    """Finds a dataset's builder. Nothing is prepared.

    Args:
      name: "digits", "photos/128", or any of TFDS: "mnist", "coco/2017".
      data_dir: TFDS's folder; None: TFDS's own choice.

    Raises:
      UserError: TFDS does not know the name, or needs TensorFlow to tell about it.
    """
    base, _, config = name.partition("/")
    if base in builders.EMBEDDED:
        configs = builders.EMBEDDED[base].builder_configs
        if config and config not in configs:
            raise UserError(f"data.name={name!r}: {base} has no variant {config!r}. {suggest(config, configs)}")
        return builders.EMBEDDED[base](config=config or None, data_dir=data_dir)
    try:
        # The files tell all without the builder's code, which may need TensorFlow.
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except Exception:  # not prepared, or not a name
        pass
    known = [*builders.EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
    if re.split("[/:]", name)[0] not in known:
        nearest = suggest(base, known).partition("Known:")[0]  # there are over a thousand
        raise UserError(
            f"data.name={name!r}: there is no such dataset. {nearest}Ours: {', '.join(builders.EMBEDDED)}; "
            "TFDS's: https://www.tensorflow.org/datasets/catalog"
        )
    try:
        with builders.silenced():
            return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise UserError(_unprepared(name, data_dir)) from error
    except Exception as error:  # an unknown variant or version
        configs = tfds.builder_cls(base.partition(":")[0]).builder_configs
        if config and config.partition(":")[0] not in configs:
            raise UserError(f"data.name={name!r}: {base} has no such variant. {suggest(config, configs)}") from error
        raise UserError(f"data.name={name!r}: {str(error).splitlines()[0]}") from error


def check_split(name: str, split: str, data_dir: str | Path | None, setting: str) -> None:
    """Refuses a dataset or split that cannot be read. Our own builders are not prepared for it.

    Args:
      name: the dataset.
      split: its split.
      data_dir: TFDS's folder; None: TFDS's own choice.
      setting: the setting to name in the message.

    Raises:
      UserError: what is wrong and what would be right.
    """
    builder = find_builder(name, data_dir)
    if isinstance(builder, builders.Embedded) and not builder.data_path.exists():
        bases = [re.match(r"\s*\w*", part).group().strip() for part in split.split("+")]
        for base in bases:
            if base not in ("train", "test"):
                raise UserError(f"{setting}={split!r}: {name} has no such split. {suggest(base, ('train', 'test'))}")
    else:
        _records(builder, name, split, data_dir, setting)


def open_split(name: str, split: str, data_dir: str | Path | None = None, setting: str = "split") -> CatalogueSplit:
    """Opens one split of a dataset; one of our own is prepared first where need be.

    Args:
      name: as for `find_builder`.
      split: "train", "test", ... or a slice such as "train[:10%]".
      data_dir: TFDS's folder; None: TFDS's own choice.
      setting: the setting to name in a message.

    Raises:
      UserError: what is wrong and what would be right.
    """
    builder = find_builder(name, data_dir)
    if isinstance(builder, builders.Embedded):
        config = builder.builder_config.name if builder.builder_config else None
        try:
            builder = type(builder).prepared(config, data_dir)
        except OSError as error:
            raise UserError(
                f"{name} cannot be prepared in {builder.data_dir}: {error}. Set data.data_dir or the "
                "environment's TFDS_DATA_DIR to a folder that can be written."
            ) from error
    records = _records(builder, name, split, data_dir, setting)
    features = builder.info.features
    label = dict(features.items()).get("label")
    return CatalogueSplit(
        name=name,
        split=split,
        directory=str(builder.data_dir),
        count=len(records),
        classes=tuple(label.names or ()) if isinstance(label, tfds.features.ClassLabel) else (),
        features=tuple(sorted(_static(features))),
        records=records,
    )


def image_shape(name: str, data_dir: str | Path | None = None) -> tuple[int, int, int] | None:
    """Returns the shape that a dataset declares for its images, None where they may differ.

    Args:
      name: as for `find_builder`.
      data_dir: TFDS's folder; None: TFDS's own choice.
    """
    shape = find_builder(name, data_dir).info.features["image"].shape
    return None if None in shape else tuple(shape)


def _static(features: tfds.features.FeaturesDict) -> list[str]:
    """Names the features that stack into arrays: the image, and numbers of a shape that is known."""
    names = []
    for name, feature in features.items():
        info = feature.get_tensor_info()
        if name == "image" or (
            isinstance(info, tfds.features.TensorInfo)
            and None not in info.shape
            and np.dtype(info.np_dtype).kind in "biuf"
        ):
            names.append(name)
    return names


def _records(
    builder: tfds.core.DatasetBuilder, name: str, split: str, data_dir: str | Path | None, setting: str
) -> Any:
    """Returns TFDS's random access to a split's examples."""
    splits = builder.info.splits
    if splits:  # else the dataset is not prepared, or is mocked
        try:
            empty = splits[split].num_examples == 0
        except Exception as error:  # TFDS has an error for each way to misspell one
            raise UserError(f"{setting}={split!r}: {name} has no such split. {suggest(split, splits)}") from error
        if empty:
            raise UserError(f"{setting}={split!r}: there are no examples in it")
    if "image" not in builder.info.features:
        raise UserError(f"data.name={name!r} has no feature `image`, only {', '.join(sorted(builder.info.features))}")
    try:
        records = builder.as_data_source(split)
        len(records)
    except Exception as error:
        fault = _unprepared(name, data_dir)
        if builder.data_path.exists():
            fault += f". Move {builder.data_dir} away first: it holds the dataset in a format without random access"
        raise UserError(fault) from error
    return records


def _unprepared(name: str, data_dir: str | Path | None) -> str:
    where = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"data.name={name!r} has to be prepared once, which needs TensorFlow: pip install 'cvjax[prepare]' && "
        f"tfds build {name} --file_format=array_record{where}"
    )


def _narrow(value: Any) -> np.ndarray:
    """Makes 64-bit numbers 32-bit, as JAX would."""
    value = np.asarray(value)
    narrow = {np.int64: np.int32, np.uint64: np.uint32, np.float64: np.float32}.get(value.dtype.type)
    return value.astype(narrow) if narrow else value
