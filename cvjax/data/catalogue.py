"""TFDS datasets by name, our own builders first, read as ArrayRecord without TensorFlow."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32
from tensorflow_datasets.core import read_only_builder

from cvjax.data import builders, features, objects
from cvjax.data.annotations import NONE, Annotations
from cvjax.data.features import Columns
from cvjax.data.sources import CorruptExample, check_utf8
from cvjax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class CatalogueSplit:
    """One split, or a slice of one, of a TFDS dataset, whose files are in `directory`.

    Two are equal if they read the same features of the same files. `records` is TFDS's random access.
    """

    name: str
    split: str
    directory: str
    count: int
    classes: tuple[str, ...]
    columns: Columns
    records: Any = dataclasses.field(compare=False, repr=False)

    def __len__(self) -> int:
        """Returns the number of examples."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        one_based = self.name.partition("/")[0] in objects.ONE_BASED
        with self._explain(index):
            return self.columns.read(self.records[index], one_based)

    @contextlib.contextmanager
    def _explain(self, index: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # decoders raise anything on damaged bytes
            raise CorruptExample(f"{self.describe(index)} cannot be read: {error}") from error

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples; images are not decoded."""
        return np.array([example["label"] for example in self._without_images()], np.int32)

    def read_texts(self, name: str) -> list[tuple[str, ...]]:
        """Returns the texts of all examples; images are not decoded."""
        texts = (features.read_text(example[name]) for example in self._without_images())
        return [tuple(np.atleast_1d(text).tolist()) for text in texts]

    def _without_images(self) -> Iterator[dict[str, Any]]:
        there = self.records.dataset_info.features.items()
        skipped = {key: tfds.decode.SkipDecoding() for key, kind in there if isinstance(kind, tfds.features.Image)}
        records = dataclasses.replace(self.records, decoders=skipped)
        for index in range(len(self)):
            with self._explain(index):
                example = records[index]
            yield example

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return f"example {index} of {self.name} ({self.split})"


def find_builder(name: str, data_dir: str | Path | None = None) -> tfds.core.DatasetBuilder:
    """Finds a dataset's builder without preparing the dataset.

    Raises a UserError if TFDS does not know the name, or needs TensorFlow to load its builder.
    """
    check_utf8(data_dir or "", "data.data_dir", "TFDS")
    base, _, config = name.partition("/")
    if base in builders.OURS:
        return builders.OURS[base].of(config or None, data_dir)
    try:
        # The files suffice without the builder's code, which may need TensorFlow.
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except Exception:  # not prepared, or not a name
        pass
    known = [*builders.OURS, *tfds.list_builders(with_community_datasets=False)]
    if re.split("[/:]", name)[0] not in known:
        nearest = suggest(base, known).partition("Known:")[0]  # there are over a thousand
        raise UserError(
            f"data.name={name!r}: there is no such dataset. {nearest}Ours: {', '.join(builders.OURS)}; "
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
    """Refuses a dataset or split that cannot be read, naming `setting`, without preparing our own datasets."""
    builder = find_builder(name, data_dir)
    if isinstance(builder, builders.Embedded) and not builder.data_path.exists():
        builder.read_sources()
        bases = [re.match(r"\s*\w*", part).group().strip() for part in split.split("+")]
        for base in bases:
            if base not in builder.splits:
                raise UserError(f"{setting}={split!r}: {name} has no such split. {suggest(base, builder.splits)}")
    else:
        _records(builder, name, split, data_dir, setting)


def open_split(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    setting: str = "split",
    annotations: Annotations = NONE,
    boxes: bool = False,
) -> CatalogueSplit:
    """Opens one split of a dataset, such as "test" or "train[:10%]", prepared first if it is one of our own.

    With `boxes`, objects are read if the dataset has them, even if `annotations` leaves them out. Raises a UserError,
    which names `setting`, if the dataset cannot be read, or lacks the split or a feature.
    """
    builder = find_builder(name, data_dir)
    columns = features.select(name, builder.info.features, annotations, boxes)
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
    return CatalogueSplit(
        name=name,
        split=split,
        directory=str(builder.data_dir),
        count=len(records),
        classes=columns.classes or _classes(builder.info.features),
        columns=columns,
        records=records,
    )


def check_annotations(name: str, data_dir: str | Path | None, annotations: Annotations) -> tuple[int, tuple[str, ...]]:
    """Raises a UserError if a dataset lacks one of the annotations that a config asks for.

    Returns the most boxes of any example, 0 if unknown, and which of `annotations.keep` are texts.
    """
    builder = find_builder(name, data_dir)
    texts = features.select(name, builder.info.features, annotations).texts
    return builder.most_boxes if isinstance(builder, builders.Embedded) else 0, texts


def image_channels(name: str, data_dir: str | Path | None, images: Mapping[str, str]) -> dict[str, int]:
    """Returns the number of channels that a dataset declares for each of `images`, as `data.images` names them."""
    there = find_builder(name, data_dir).info.features
    return {key: there[source].shape[-1] for key, source in images.items()}


def image_shape(name: str, data_dir: str | Path | None = None) -> tuple[int, int, int] | None:
    """Returns the shape that a dataset declares for its images, None if it varies."""
    there = find_builder(name, data_dir).info.features
    shape = there[features.first_image(there)].shape
    return None if None in shape else tuple(shape)


def classes(name: str, data_dir: str | Path | None = None, annotations: Annotations = NONE) -> tuple[str, ...]:
    """Returns the names of the classes of a dataset's first map, of its labels, or of its objects' labels, or ()."""
    there = find_builder(name, data_dir).info.features
    return features.select(name, there, annotations).classes or _classes(there)


def labelled(name: str, data_dir: str | Path | None = None) -> bool:
    """Returns whether each example of a dataset has a label."""
    label = dict(find_builder(name, data_dir).info.features.items()).get("label")
    return label is not None and label.shape == () and np.dtype(label.np_dtype).kind in "iu"


def _classes(there: tfds.features.FeaturesDict) -> tuple[str, ...]:
    label = {**objects.annotated(there), **dict(there.items())}.get("label")
    return tuple(label.names or ()) if isinstance(label, tfds.features.ClassLabel) else ()


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
    if features.first_image(builder.info.features) is None:
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
