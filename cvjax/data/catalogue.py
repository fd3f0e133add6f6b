"""TFDS datasets by name, our own builders first, read as ArrayRecord with TensorFlow never imported."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from cvjax.data import builders, objects
from cvjax.data.sources import CorruptExample
from cvjax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class CatalogueSplit:
    """One split of a TFDS dataset. Two are equal when they read the same of the same files.

    Attributes:
      name: of the dataset.
      split: which split.
      directory: where its files are.
      count: of examples.
      classes: names of the labels.
      features: that stack, and are read as they are.
      records: TFDS's random access.
      boxes: whether objects are read, as `cvjax.data.objects.read` gives them.
      maps: features that give each pixel a number, read as int32 [height, width].
      texts: features that are text.
    """

    name: str
    split: str
    directory: str
    count: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    records: Any = dataclasses.field(compare=False, repr=False)
    boxes: bool = False
    maps: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        try:
            example = self.records[index]
        except Exception as error:  # whatever a decoder makes of bytes that it cannot read
            raise CorruptExample(f"{self.describe(index)} cannot be read: {error}") from error
        read = {key: _narrow(example[key]) for key in self.features}
        if self.boxes:
            one_based = self.name.partition("/")[0] in objects.ONE_BASED
            read |= objects.read(example["objects"], *read["image"].shape[:2], one_based)
        read |= {key: example[key][..., 0].astype(np.int32) for key in self.maps}
        return read | {key: np.array(example[key].decode()) for key in self.texts}

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


def open_split(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    setting: str = "split",
    boxes: bool | None = False,
    keep: Sequence[str] = (),
) -> CatalogueSplit:
    """Opens one split of a dataset; one of our own is prepared first where need be.

    Args:
      name: as for `find_builder`.
      split: "train", "test", ... or a slice such as "train[:10%]".
      data_dir: TFDS's folder; None: TFDS's own choice.
      setting: the setting to name in a message.
      boxes: whether to read the objects; None: where there are any.
      keep: names of maps and texts to be read beside what stacks.

    Raises:
      UserError: what is wrong and what would be right.
    """
    builder = find_builder(name, data_dir)
    maps, texts = _kept(builder, name, keep)
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
    return CatalogueSplit(
        name=name,
        split=split,
        directory=str(builder.data_dir),
        count=len(records),
        classes=_classes(features),
        features=tuple(sorted(_static(features))),
        boxes=bool(objects.annotated(features)) if boxes is None else boxes,
        maps=maps,
        texts=texts,
        records=records,
    )


def check_annotations(name: str, data_dir: str | Path | None, max_boxes: int | None, keep: Sequence[str]) -> int:
    """Refuses annotations that a dataset does not have.

    Args:
      name: the dataset.
      data_dir: TFDS's folder; None: TFDS's own choice.
      max_boxes: as `data.max_boxes`.
      keep: as `data.keep`.

    Returns:
      The most boxes that an example has, where that is known; else 0.

    Raises:
      UserError: what is wrong and what would be right.
    """
    builder = find_builder(name, data_dir)
    _, texts = _kept(builder, name, keep)
    if texts:
        raise UserError(f"data.keep: {texts[0]!r} is text, which `cvjax.data.arrays` reads, but no batch holds")
    if max_boxes is not None and not objects.annotated(builder.info.features):
        raise UserError(f"data.max_boxes={max_boxes}: {name} has no objects with boxes and labels; leave it None")
    return builder.most_boxes if isinstance(builder, builders.Embedded) else 0


def _kept(builder: tfds.core.DatasetBuilder, name: str, keep: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sorts the features to be kept into maps and texts."""
    features = dict(builder.info.features.items())
    maps = [key for key, feature in features.items() if _is_map(key, feature)]
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    for key in keep:
        if key not in (*maps, *texts):
            raise UserError(f"data.keep: {name} has no map or text {key!r}. {suggest(key, (*maps, *texts))}")
    return tuple(key for key in maps if key in keep), tuple(key for key in texts if key in keep)


def _is_map(name: str, feature: Any) -> bool:
    """Whether a feature is an image that gives each pixel a number. It is read only where that is asked for."""
    return isinstance(feature, tfds.features.Image) and name != "image" and feature.shape[-1] == 1


def image_shape(name: str, data_dir: str | Path | None = None) -> tuple[int, int, int] | None:
    """Returns the shape that a dataset declares for its images, None where they may differ.

    Args:
      name: as for `find_builder`.
      data_dir: TFDS's folder; None: TFDS's own choice.
    """
    shape = find_builder(name, data_dir).info.features["image"].shape
    return None if None in shape else tuple(shape)


def classes(name: str, data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Returns the names that a dataset declares for its labels, or for those of its objects; or ().

    Args:
      name: as for `find_builder`.
      data_dir: TFDS's folder; None: TFDS's own choice.
    """
    return _classes(find_builder(name, data_dir).info.features)


def _classes(features: tfds.features.FeaturesDict) -> tuple[str, ...]:
    label = {**objects.annotated(features), **dict(features.items())}.get("label")
    return tuple(label.names or ()) if isinstance(label, tfds.features.ClassLabel) else ()


def _static(features: tfds.features.FeaturesDict) -> list[str]:
    """Names the features that stack into arrays: the image, and numbers of a shape that is known."""
    names = []
    for name, feature in features.items():
        info = feature.get_tensor_info()
        if name == "image" or (
            isinstance(info, tfds.features.TensorInfo)
            and None not in info.shape
            and np.dtype(info.np_dtype).kind in "biuf"
            and not _is_map(name, feature)
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
