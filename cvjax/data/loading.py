"""Iterators over the data that a config names: in memory if it is small, else streamed by Grain."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from cvjax.data import balanced, catalogue, layouts, pipeline, settings, sources
from cvjax.data.annotations import Annotations
from cvjax.data.batches import Batches, Example, stacked, to_float, transformed
from cvjax.data.cached import Refreshed, WithDerived
from cvjax.data.iteration import TrainIterator, iterate
from cvjax.data.joint import Joint, second_seed
from cvjax.data.vocabulary import EMPTY, Vocabulary, build_vocabulary
from cvjax.errors import UserError, number_of

MEMORY_LIMIT = 2**30  # bytes up to which a decoded split is held in memory by default
KEPT = 10_000  # most examples of a split that stays decoded for later calls
KINDS = ("train", "eval")  # of splits
SAMPLED = 8  # examples from which the size of a split is estimated


@dataclasses.dataclass(frozen=True)
class Data:
    """An opened dataset.

    Attributes:
      train: () -> an endless iterator over this process's part of each training batch, a dict of NumPy arrays.
        The keys of the second source, `data.also`, start with `also_`.
      evaluate: () -> an iterator over this process's part of one exact pass. The last batch is padded with copies of
        the last example; `valid` [batch] is False there, as `also_valid` is for the second source.
      info: `name`, `classes` (names of the training classes, or ()), `examples` {split: count}, `shape` of an image,
        and `also`, the same for a second source.
      vocabulary: the vocabulary of texts that are tokenised, if any.
    """

    train: Callable[[], TrainIterator]
    evaluate: Callable[[], Iterator[dict[str, np.ndarray]]]
    info: dict[str, Any]
    vocabulary: Vocabulary | None = None


def load(
    config_data: Mapping[str, Any],
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    vocabulary: Vocabulary | None = None,
) -> Data:
    """Opens a dataset for training and evaluation.

    Every batch depends only on the settings, the seed and its number, not on streaming, processes, workers or
    interruptions. Row r of the global batch belongs to process r // (batch // process_count). Missing settings have
    their `DEFAULTS`. A resumed run gives its vocabulary; None: it is built from the training split. Raises a UserError
    if the settings are wrong, or an example cannot be decoded.
    """
    settings.check(config_data)
    if seed < 0:
        raise UserError(f"seed={seed} must not be negative")
    chosen = settings.complete(config_data)
    processes = dict(process_index=process_index, process_count=process_count)
    every = [chosen, settings.second(chosen)] if chosen["also"] else [chosen]
    opened = [{kind: _readable(_open(each, f"{kind}_split"), each["on_corrupt"]) for kind in KINDS} for each in every]
    vocabulary = vocabulary or _build_vocabulary(every, opened)
    train, evaluation = _splits(chosen, opened[0], vocabulary, seed, **processes)
    info = _info(chosen, train, evaluation)
    if chosen["also"]:
        parts = _splits(every[1], opened[1], vocabulary, second_seed(seed), **processes)
        info["also"] = _info(every[1], *parts)
        train, evaluation = Joint(train, parts[0]), Joint(evaluation, parts[1])
    return Data(
        train=lambda: TrainIterator(train, chosen["workers"]),
        evaluate=lambda: iterate(evaluation, workers=chosen["workers"]),
        info=info,
        vocabulary=vocabulary,
    )


def _splits(
    chosen: Mapping[str, Any],
    opened: Mapping[str, sources.Source],
    vocabulary: Vocabulary | None,
    seed: int,
    process_index: int,
    process_count: int,
) -> tuple[Batches, Batches]:
    """Makes batches of the training and the evaluation split of one source."""
    parts = []
    for kind in KINDS:
        batch = chosen["batch"] if kind == "train" else chosen["eval_batch"] or chosen["batch"]
        if batch % process_count:
            raise UserError(f"a batch of {batch} (data.{kind}) cannot be divided among {process_count} processes")
        key = "data.transforms" if kind == "train" else "data.eval_transforms"
        local = batch // process_count
        part = _batches(
            _with_derived(opened[kind], chosen),
            pipeline.build(chosen[key.removeprefix("data.")], key, Annotations.of(chosen), vocabulary),
            chosen["in_memory"],
            seed=seed,
            batch=batch,
            rows=(process_index * local, (process_index + 1) * local),
            endless=kind == "train",
            per_class=chosen["per_class"] if kind == "train" else None,
        )
        parts.append(part)
    return tuple(parts)


def _info(chosen: Mapping[str, Any], train: Batches, evaluation: Batches) -> dict[str, Any]:
    return {
        "name": train.source.name,
        "classes": train.source.classes,
        "examples": {chosen["train_split"]: len(train.source), chosen["eval_split"]: len(evaluation.source)},
        "shape": _shape(train),
    }


def refresh_derived(config_data: Mapping[str, Any]) -> dict[str, Refreshed]:
    """Computes the derived features that images lack, in both splits, ahead of training.

    Returns counts by split. Raises a UserError if the settings are wrong or have none, or an example cannot be decoded.
    """
    settings.check(config_data)
    chosen = settings.complete(config_data)
    if not Annotations.of(chosen).derive:
        raise UserError("config.data.derive is empty: there is nothing to compute.")
    done = {}
    for kind in KINDS:
        source = _readable(_open(chosen, f"{kind}_split"), chosen["on_corrupt"])
        done[chosen[f"{kind}_split"]] = _with_derived(source, chosen).refresh()
    return done


def arrays(name: str, split: str, data_dir: str | None = None, keep: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Returns a whole decoded split in the dataset's order; the arrays are cached and read-only.

    They are `image` float32 [examples, height, width, channels], `label` int32 [examples], the dataset's other numbers,
    the maps and texts in `keep`, such as "class_map" and "caption", and the rows of its objects as in a batch, padded
    to the most of any example.
    """
    return _arrays(catalogue.open_split(name, split, data_dir, annotations=Annotations(keep=keep), boxes=True))


@functools.lru_cache(maxsize=4)
def _arrays(source: catalogue.CatalogueSplit) -> Example:
    decoded = _decoded(source)
    rows = {"boxes": max(len(example["boxes"]) for example in decoded)} if source.columns.boxes else {}
    examples = stacked(decoded, source, range(len(source)), rows)
    examples["image"] = to_float(examples["image"])
    for array in examples.values():
        array.flags.writeable = False
    return examples


def _open(chosen: Mapping[str, Any], setting: str) -> sources.Source:
    """Opens one split of the dataset that the settings name, prepared first if it is one of our own."""
    annotations = Annotations.of(chosen)
    if chosen["folder"] is not None:
        held_out = settings.held_out(chosen)
        return layouts.open_split(chosen["folder"], chosen[setting], f"data.{setting}", annotations, held_out)
    return catalogue.open_split(chosen["name"], chosen[setting], chosen["data_dir"], f"data.{setting}", annotations)


def _with_derived(source: sources.Source, chosen: Mapping[str, Any]) -> sources.Source:
    """Adds the derived features, whose results are stored beside the dataset unless `data.derive_dir` is set."""
    derived = Annotations.of(chosen).derive
    if not derived:
        return source
    if chosen["derive_dir"] is not None:
        root = chosen["derive_dir"]
    elif chosen["folder"] is not None:
        root = Path(chosen["folder"]) / ".derived"  # hidden, so that it is not searched for images
    else:
        root = catalogue.find_builder(chosen["name"], chosen["data_dir"]).data_path / "derived"
    return WithDerived(source, derived, Path(root).expanduser())


def _build_vocabulary(
    every: Sequence[Mapping[str, Any]], opened: Sequence[Mapping[str, sources.Source]]
) -> Vocabulary | None:
    """Builds the vocabulary of all training texts that are tokenised; None if there are no such texts."""
    read = []
    for chosen, splits in zip(every, opened, strict=True):
        built = pipeline.build(chosen["transforms"], annotations=Annotations.of(chosen), vocabulary=EMPTY)
        read += [sources.read_texts(splits["train"], name) for name in built.tokenised]
    texts = (text for examples in read for several in examples for text in several)
    return build_vocabulary(texts, every[0]["vocabulary"]) if read else None


def _decoded(source: sources.Source) -> Sequence[Example]:
    """Decodes all examples; those of a small TFDS dataset, whose files do not change, are cached."""
    small = isinstance(source, catalogue.CatalogueSplit) and len(source) <= KEPT
    return _kept(source) if small else _all(source.__getitem__, source)


@functools.lru_cache(maxsize=4)
def _kept(source: catalogue.CatalogueSplit) -> Sequence[Example]:
    return _all(source.__getitem__, source)


def _all(function: Callable[[int], Any], source: sources.Source) -> list[Any]:
    """Maps a function over the indices of all examples, in threads: decoders release Python's lock."""
    with futures.ThreadPoolExecutor() as pool:
        return list(pool.map(function, range(len(source))))


def _batches(source: sources.Source, transforms: pipeline.Pipeline, in_memory: bool | None, **options: Any) -> Batches:
    """Holds the examples in memory or not; in memory, what precedes the first random transform is done once."""
    if options["per_class"] is not None:
        options["classes"] = _classes(source, options["per_class"], options["batch"])
    once, then = transforms.split()
    if in_memory is None:
        in_memory = _estimate(source, once) < MEMORY_LIMIT
    if not in_memory:
        return Batches(source=source, pipeline=transforms, **options)
    # Transformed one by one: photographs may be many times larger than their transformed versions.
    examples = _all(lambda index: transformed(source, index, once), source) if once.ops else _decoded(source)
    for feature in then.rows:
        counts = [len(example[feature]) for example in examples]
        then.check_room(max(counts), source.describe(int(np.argmax(counts))), feature)
    held = None if then.ops else stacked(examples, source, range(len(source)), then.rows)
    return Batches(source=sources.Decoded(source, examples), pipeline=then, arrays=held, in_memory=True, **options)


def _classes(source: sources.Source, per_class: int, batch: int) -> tuple[np.ndarray, ...]:
    """Groups the examples by class; raises if there are too few classes for a batch."""
    classes = balanced.members(sources.read_labels(source))
    if len(classes) < batch // per_class:
        raise UserError(settings.too_few_classes(per_class, batch, source.name, len(classes)))
    return classes


def _estimate(source: sources.Source, once: pipeline.Pipeline) -> float:
    """Estimates the bytes of a split from a few examples."""
    chosen = np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).astype(int).tolist()
    sizes = []
    for index in chosen:
        example = transformed(source, index, once) if once.ops else source[index]
        sizes.append(sum(value.nbytes for value in example.values()))
    return float(np.mean(sizes)) * len(source)


def _readable(source: sources.Source, on_corrupt: str) -> sources.Source:
    """Leaves out examples that cannot be decoded, if `on_corrupt` is "skip"; found up front, so epochs stay exact."""
    if on_corrupt == "raise":
        return source

    def corrupt(index: int) -> str | None:
        try:
            source[index]
        except sources.CorruptExample as error:
            return error.fault
        return None

    faults = _all(corrupt, source)
    kept = [index for index, fault in enumerate(faults) if fault is None]
    if not kept:
        raise UserError(f"none of the {len(faults)} examples of {source.name} can be read: {faults[0]}")
    if len(kept) == len(faults):
        return source
    first = [fault for fault in faults if fault][:3]
    report = "; ".join(first) + ("; ..." if len(faults) - len(kept) > 3 else "")
    print(
        f"Skipping {len(faults) - len(kept)} of {number_of(len(faults), 'example')}: {report}",
        file=sys.stderr,
        flush=True,
    )
    return sources.Subset(source, kept)


def _shape(batches: Batches) -> tuple[int, ...]:
    if batches.arrays is not None:
        return batches.arrays["image"].shape[1:]
    return transformed(batches.source, 0, batches.pipeline, batches.seed)["image"].shape
