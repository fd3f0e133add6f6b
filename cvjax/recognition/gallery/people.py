"""People, each known by a few embeddings: who is this, and is it who they say?

Schroff et al., FaceNet, 2015 (arXiv:1503.03832): unit embeddings, of one person where their distance is at most tau.
Nothing is trained when somebody comes or goes.
"""

import dataclasses
import difflib
import functools
import os
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Integer

from cvjax.data.sources import readable
from cvjax.errors import UserError, number_of, suggest, suggest_beside
from cvjax.metrics import verification
from cvjax.metrics.neighbours import distance_tables
from cvjax.recognition.gallery.search import nearest
from cvjax.rundir import explain_write_errors
from cvjax.signature import Count
from cvjax.weights.npz import read_npz

VERSION = 1  # of the file
LONGEST = 200  # letters of a name: in a file all names take the room of the longest
LISTED, SEARCHED = 50, 10_000  # names that a message lists, and of which it looks for the nearest
PICTURES = 2000  # whose pairs choose a threshold: two million


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings of pictures, and the fingerprint of what made them; a gallery refuses those of another network.

    They are scaled to length 1. Raises a UserError if one is not finite or zero.
    """

    vectors: Float32[np.ndarray, "pictures features"]
    fingerprint: str

    def __post_init__(self):
        """Checks and scales the vectors."""
        lengths = np.linalg.norm(self.vectors.astype(np.float64), axis=1)
        broken = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(broken):
            what = "zero" if lengths[broken[0]] == 0 else "not finite"
            raise UserError(f"Embedding {broken[0]} of {len(lengths)} is {what}.")
        object.__setattr__(self, "vectors", np.float32(self.vectors / lengths[:, None]))


class Verified(NamedTuple):
    """For each picture its distance to a person, and whether it is at most the threshold."""

    distances: Float[np.ndarray, " pictures"]
    same: Bool[np.ndarray, " pictures"]


class Identified(NamedTuple):
    """The nearest people to each picture, nearest first; it is the first of them if `known`, else nobody enrolled.

    Attributes:
      people: their places in the gallery's `names`.
    """

    people: Int[np.ndarray, "pictures people"]
    distances: Float[np.ndarray, "pictures people"]
    known: Bool[np.ndarray, " pictures"]


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
    """People enrolled by embeddings of one network; methods return changed galleries, this one stays as it is.

    By default, a person is where the mean of their embeddings points to: the noise of single pictures averages out.
    With "nearest", the nearest of a person's pictures counts: right where they look different, such as with and without
    a beard, but every picture is a further chance for strangers, and a single wrong one lets somebody in. A mean of
    many pictures is nearer to strangers than one picture is, too, where embeddings keep to a few directions. So a
    threshold is chosen for a number of pictures, `usual_pictures`, compared as the gallery compares; for somebody of
    more pictures, more strangers are accepted. All embeddings are kept, so either can be had later, and pictures added.

    Attributes:
      fingerprint: of the network, or of what else makes the embeddings.
      names: of the people.
      vectors: embeddings of their pictures, of length 1.
      people: the place of each one's person in `names`.
      threshold: largest Euclidean distance, 0 to 2, of pictures of one person; NaN before it is chosen.
      compare: whether a person is the mean of their embeddings or the nearest.
    """

    fingerprint: str
    names: tuple[str, ...]
    vectors: Float32[np.ndarray, "pictures features"]
    people: Int32[np.ndarray, " pictures"]
    threshold: float = np.nan
    compare: Literal["mean", "nearest"] = "mean"

    @classmethod
    def empty(cls, fingerprint: str, features: int, compare: Literal["mean", "nearest"] = "mean") -> "Gallery":
        """Returns a gallery of nobody, for embeddings of `features` numbers."""
        return cls(fingerprint, (), np.zeros((0, features), np.float32), np.zeros(0, np.int32), compare=compare)

    def check(self, fingerprint: str, features: int | None = None) -> None:
        """Raises a UserError if embeddings of this fingerprint, of `features` numbers, are not the gallery's."""
        if fingerprint != self.fingerprint:
            raise UserError(
                f"The gallery's embeddings are of {self.fingerprint}, these of {fingerprint}. Distances between "
                "embeddings of two networks mean nothing: enrol the people again, into another file."
            )
        if features not in (None, self.vectors.shape[1]):
            raise UserError(f"The gallery's embeddings have {self.vectors.shape[1]} numbers, these {features}.")

    # --- who is in it -----------------------------------------------------------------------------------------------

    def enrol(self, people: Mapping[str, Embeddings], more: bool = False) -> "Gallery":
        """Adds people by the embeddings of their pictures, one or several each.

        Raises a UserError for a name that is enrolled already, unless these are `more` pictures of the same person, for
        a name that no picture belongs to, and as `check` does.
        """
        known, names = {name: place for place, name in enumerate(self.names)}, list(self.names)
        vectors, places = [self.vectors], [self.people]
        added = set()
        for given, embeddings in people.items():
            name = clean_name(given)
            self.check(embeddings.fingerprint, embeddings.vectors.shape[1])
            if not len(embeddings.vectors):
                raise UserError(f"There is no picture of {name!r}.")
            if name in added or (name in known and not more):
                raise UserError(
                    f"There are two people under one name, {name!r}: enrol one of them under another. Further pictures "
                    "of the same person are added as such (--more)."
                )
            if name not in known:
                known[name] = len(names)
                names.append(name)
            added.add(name)
            vectors.append(embeddings.vectors)
            places.append(np.full(len(embeddings.vectors), known[name], np.int32))
        changed = {"vectors": np.concatenate(vectors), "people": np.concatenate(places)}
        return dataclasses.replace(self, names=tuple(names), **changed)

    def remove(self, name: str) -> "Gallery":
        """Removes a person and all of their embeddings; raises a UserError if there is no such person."""
        place = self.find(name)
        kept = self.people != place
        people = self.people[kept] - (self.people[kept] > place)
        names = self.names[:place] + self.names[place + 1 :]
        return dataclasses.replace(self, names=names, vectors=self.vectors[kept], people=np.int32(people))

    def find(self, name: str) -> int:
        """Returns the place of a person in `names`; raises a UserError if there is no such person."""
        wanted = unicodedata.normalize("NFC", name).strip()
        if wanted not in self.names:
            raise UserError(f"There is nobody of the name {name!r} in the gallery. {_suggest(wanted, self.names)}")
        return self.names.index(wanted)

    # --- which threshold --------------------------------------------------------------------------------------------

    @property
    def usual_pictures(self) -> int:
        """The median number of pictures of those enrolled, 1 while there is nobody."""
        return max(1, int(np.median(np.bincount(self.people)))) if len(self.people) else 1

    def choose_threshold(
        self,
        embeddings: Embeddings,
        labels: Integer[np.ndarray, " pictures"],
        false_accept_rate: float,
        enrolled: Count | None = None,
    ) -> tuple["Gallery", float]:
        """Chooses the threshold by pictures of people who are not enrolled, the validation set.

        Groups of pictures of one of them stand for a person enrolled, and all pictures outside a group are compared
        with it as this gallery compares. The threshold is the largest at which at most this share of the pictures of
        others are accepted. Whoever is unknown is compared with everybody: among n people about n times the share,
        while that is small, get a name. It holds for people with that many pictures: enrol first, then choose.

        Returns (the gallery with it, the share of pictures that it accepts as their own person). Raises a UserError for
        too few comparisons to measure the rate by, and if no threshold has it.

        Args:
          labels: number of the person in each picture. Of more than 2,000 pictures, only that number is used.
          enrolled: pictures of a group, by default `usual_pictures`; of people with fewer pictures, all but one.
        """
        self.check(embeddings.fingerprint, embeddings.vectors.shape[1])
        distances, same = self._compare_others(embeddings.vectors, np.asarray(labels), enrolled or self.usual_pictures)
        rates = verification.roc(distances, same)
        threshold = verification.threshold_at(rates, false_accept_rate)
        if threshold == -np.inf:
            raise UserError(
                f"No threshold accepts at most {false_accept_rate:g} of the pairs of two people: "
                f"more of them are at the smallest distance of all, {distances.min():.3g}."
            )
        return self.with_threshold(threshold), verification.true_rate_at(rates, false_accept_rate)

    def _compare_others(self, vectors: np.ndarray, labels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pictures to groups of `size` pictures that they are not in, and whether both are of a person."""
        order = np.random.default_rng(0).permutation(len(labels))
        people, first = np.unique(labels[order], return_index=True)
        place = _places(labels[order])
        chance = first[np.searchsorted(people, labels[order])]  # people come in random order, two groups of each first
        order = order[np.lexsort((place, chance, place // (2 * size)))][:PICTURES]
        order = order[np.argsort(labels[order], kind="stable")]
        vectors, labels = vectors[order], labels[order]
        _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
        sizes = np.minimum(size, np.maximum(1, counts - 1))[numbers]
        inside = np.flatnonzero(_places(labels) < counts[numbers] // sizes * sizes)  # the others are only compared
        first = np.flatnonzero(_places(labels)[inside] % sizes[inside] == 0)
        group = np.full(len(labels), -1)
        group[inside] = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(inside))))
        if self.compare == "mean":
            means = Embeddings(np.add.reduceat(vectors[inside], first, axis=0), self.fingerprint).vectors
            table = np.concatenate(list(distance_tables(vectors, means)))
        else:
            table = np.concatenate(list(distance_tables(vectors, vectors[inside])))
            table = np.minimum.reduceat(table, first, axis=1)
        compared = group[:, None] != np.arange(len(first))
        if sizes.max() == 1:  # of two single pictures, each is compared with the other once
            compared = np.triu(compared)
        return table[compared], (labels[:, None] == labels[inside[first]])[compared]

    def with_threshold(self, threshold: float) -> "Gallery":
        """Returns the gallery with a threshold of one's own; raises a UserError if it is not from 0 to 2."""
        if not 0 <= threshold <= 2:
            raise UserError(f"The threshold {threshold:g} is no distance between vectors of length 1: from 0 to 2.")
        return dataclasses.replace(self, threshold=float(threshold))

    # --- who is this ------------------------------------------------------------------------------------------------

    def verify(self, embeddings: Embeddings, name: str) -> Verified:
        """Compares pictures with the person that they are said to be of.

        Raises a UserError if there is no such person, no threshold, and as `check` does.
        """
        place, threshold = self.find(name), self._threshold(embeddings)
        _, entries, people = self._entries
        gaps = embeddings.vectors[:, None].astype(np.float64) - entries[people == place]
        distances = np.sqrt(np.square(gaps).sum(axis=-1)).min(axis=1)
        return Verified(distances, distances <= threshold)

    def identify(
        self, embeddings: Embeddings, count: int = 1, search: Callable[..., tuple[Any, Any]] = nearest
    ) -> Identified:
        """Finds the `count` people nearest to each picture, or everybody if there are fewer.

        Raises a UserError if nobody is enrolled, there is no threshold, and as `check` does.

        Args:
          search: (queries, entries, count) -> (indices, distances) as `search.nearest`, such as an approximate index.
        """
        if not self.names:
            raise UserError("Nobody is enrolled in the gallery.")
        threshold, count = self._threshold(embeddings), min(count, len(self.names))
        most, entries, people = self._entries
        rows, distances = search(embeddings.vectors, entries, (count - 1) * most + 1)
        found = people[rows]
        if most > 1:  # a person may be there several times: the first one counts
            again = np.zeros(found.shape, bool)
            for column in range(1, found.shape[1]):
                again[:, column] = (found[:, :column] == found[:, column : column + 1]).any(axis=1)
            order = np.argsort(again, axis=1, kind="stable")[:, :count]
            found, distances = (np.take_along_axis(table, order, axis=1) for table in (found, distances))
        return Identified(found.astype(np.int64), distances, distances[:, 0] <= threshold)

    def name_pictures(self, embeddings: Embeddings) -> list[str | None]:
        """Returns the name of the person in each picture, None of somebody who is not enrolled; see `identify`."""
        found = self.identify(embeddings)
        return [
            self.names[first] if known else None for (first, *_), known in zip(found.people, found.known, strict=True)
        ]

    def _threshold(self, embeddings: Embeddings) -> float:
        self.check(embeddings.fingerprint, embeddings.vectors.shape[1])
        if np.isnan(self.threshold):
            raise UserError("The gallery has no threshold yet: choose it by pictures of people who are not enrolled.")
        return self.threshold

    @functools.cached_property
    def _entries(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Most entries of a person, the vectors that pictures are compared with, and the person of each."""
        counts = np.bincount(self.people, minlength=1)
        if self.compare == "nearest" or counts.max() <= 1:
            return int(counts.max()), self.vectors, self.people
        order = np.argsort(self.people, kind="stable")
        sums = np.add.reduceat(self.vectors[order], np.append(0, np.cumsum(counts)[:-1]), axis=0)
        means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12))
        return 1, means, np.arange(len(self.names), dtype=np.int32)

    # --- one file ---------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes the gallery to one file, which `numpy.load` reads: arrays of numbers and letters, no pickle.

        Either all of it is written, or what was there stays. Raises a UserError if it cannot be written.
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays |= {"version": VERSION, "names": np.array(self.names, dtype=np.str_)}
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(path.name + ".part")
            with open(draft, "wb") as file:
                np.savez(file, **arrays)
            os.replace(draft, path)


KINDS = {  # axes of an array, and the kinds of its dtype
    "version": (0, "iu"),
    "fingerprint": (0, "U"),
    "names": (1, "U"),
    "vectors": (2, "f"),
    "people": (1, "iu"),
    "threshold": (0, "f"),
    "compare": (0, "U"),
}
FIELDS = set(KINDS)


def load(path: Path) -> Gallery:
    """Reads a gallery that was saved; raises a UserError if the file is absent, damaged, or not a gallery's."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{readable(path)}: {error.strerror}. {suggest_beside(path)}".rstrip()) from error
    if not zipfile.is_zipfile(path):
        raise UserError(f"{readable(path)} is not a gallery, or a damaged one.")
    arrays = read_npz(path, content)
    if "version" in arrays and arrays["version"].ndim == 0 and (version := arrays["version"].item()) != VERSION:
        raise UserError(f"{readable(path)} is of version {version}; this cvjax reads version {VERSION} of galleries.")
    if arrays.keys() != FIELDS:
        raise UserError(f"{readable(path)} is not a gallery: it has {', '.join(sorted(arrays)) or 'nothing'}.")
    kinds = {name: (array.ndim, array.dtype.kind) for name, array in arrays.items()}
    vectors, people, names = arrays["vectors"], arrays["people"], arrays["names"]
    whole = (
        all(kinds[name][0] == axes and kinds[name][1] in letters for name, (axes, letters) in KINDS.items())
        and people.shape == vectors.shape[:1]
        and len(set(names)) == names.size
        and np.isclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-3).all()
        and set(np.unique(people)) == set(range(len(names)))
        and not (arrays["threshold"] < 0 or arrays["threshold"] > 2)
        and arrays["compare"].item() in ("mean", "nearest")
    )
    if not whole:
        raise UserError(f"{readable(path)} contradicts itself: its arrays do not belong together.")
    return Gallery(
        fingerprint=str(arrays["fingerprint"]),
        names=tuple(names.tolist()),
        vectors=np.float32(vectors),
        people=np.int32(people),
        threshold=float(arrays["threshold"]),
        compare=arrays["compare"].item(),
    )


def clean_name(name: str) -> str:
    """Returns a name in Unicode's composed form, without space around it; raises a UserError if it is no name."""
    cleaned = unicodedata.normalize("NFC", name).strip()
    if not cleaned or not cleaned.isprintable() or len(cleaned) > LONGEST:
        raise UserError(f"{name[:LONGEST]!r} is no name: 1 to {LONGEST} letters that can be printed.")
    return cleaned


def _places(labels: np.ndarray) -> np.ndarray:
    """The place of each picture among those of its person."""
    order = np.argsort(labels, kind="stable")
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return places


def _suggest(name: str, names: Sequence[str]) -> str:
    """The nearest name, without a list of thousands."""
    if len(names) <= LISTED:
        return suggest(name, names)
    nearest_name = difflib.get_close_matches(name, names[:SEARCHED], n=1)
    return f"{f'Did you mean {nearest_name[0]!r}? ' if nearest_name else ''}It has {number_of(len(names), 'name')}."
