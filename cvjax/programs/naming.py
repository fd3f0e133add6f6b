"""Names of the people in pictures, by the embeddings of a run and a gallery."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cvjax import runs
from cvjax.core import Recipe, State, variables
from cvjax.data import folder
from cvjax.data.sources import CorruptExample, readable
from cvjax.display import doing
from cvjax.errors import UserError
from cvjax.ops.drawing import draw_boxes, label_text
from cvjax.predictor import Predictor, Prepared
from cvjax.programs.images import LEGIBLE
from cvjax.recognition.gallery import Embeddings, Gallery

UNKNOWN = "unknown"  # what is written on pictures of people who are not enrolled


def fingerprint_of(description: Mapping[str, Any], recipe: Recipe, state: State) -> str:
    """Returns the system, and a hash of its arguments, its weights and how images are prepared, all of which count.

    `description` is the run's config.json.
    """
    digest = hashlib.sha256()
    config = description["config"]
    about = [config["recipe"], config["data"]["eval_transforms"], description["batch"]["image"][0][1:]]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for name in sorted(recipe.networks):
        for leaf in jax.tree.leaves(jax.device_get(variables(state, name))):
            leaf = np.ascontiguousarray(leaf)
            digest.update(f"{leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return f"{config['system']} {digest.hexdigest()[:16]}"


class Embedder:
    """The embeddings of a run's network, of pictures in files."""

    def __init__(self, run: Path, step: int | None = None, batch: int = 16):
        """Loads a run, by default at its latest step; raises a UserError if its system makes no embeddings."""
        with doing(f"loading {run}"):
            description, recipe, state = runs.load(run, step)
        self.system = description["config"]["system"]
        if recipe.predict is None:
            raise UserError(f"--run={readable(run)}: {self.system} takes no images, so it makes no embeddings.")
        self.fingerprint = fingerprint_of(description, recipe, state)
        self.predictor = Predictor(description, recipe, state, batch)

    def read(self, files: Sequence[Path]) -> tuple[list[Path], Embeddings, list[str]]:
        """Returns (the files that could be read, their embeddings, what is wrong with the others)."""
        read, vectors, faults = [], [], []

        def images() -> Iterator[Prepared]:
            for file in files:
                try:
                    image = self.predictor.prepare(folder.decode(file, channels=3).astype(np.float32) / 255)
                except CorruptExample as error:
                    faults.append(error.fault)
                except UserError as error:  # too small for a transform
                    faults.append(f"{readable(file)}: {error}")
                else:
                    read.append(file)
                    yield image

        kept = []
        for index, (_, outputs) in enumerate(self.predictor(images())):
            vector = np.asarray(take_embedding(outputs, self.system), np.float32)
            if np.isfinite(vector).all() and vector.any():
                kept.append(read[index])
                vectors.append(vector)
            else:
                faults.append(f"{readable(read[index])} has no finite embedding")
        stacked = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        return kept, Embeddings(stacked, self.fingerprint), faults


def take_embedding(outputs: Mapping[str, np.ndarray], system: str) -> Float[np.ndarray, " features"]:
    """Returns the embedding among a system's outputs for a picture; raises a UserError if there is none."""
    if "embedding" not in outputs:
        raise UserError(
            f"{system} makes no embeddings, but {', '.join(outputs)}: a gallery takes a run of a system that does, "
            "such as one with triplet loss."
        )
    return outputs["embedding"]


def any_embedding(gallery: Gallery) -> Embeddings:
    """Returns an embedding as a gallery's, to find out before anything compiles whether it can be asked."""
    return Embeddings(np.ones((1, gallery.vectors.shape[1]), np.float32), gallery.fingerprint)


class Namer(Predictor):
    """A predictor whose outputs are names: of the nearest person, with the distance, or None for nobody enrolled."""

    def __init__(self, description: Mapping[str, Any], recipe: Recipe, state: State, batch: int, gallery: Gallery):
        """Checks that the gallery is of this run, and has people and a threshold, before anything compiles."""
        self.fingerprint, self.system = fingerprint_of(description, recipe, state), description["config"]["system"]
        gallery.check(self.fingerprint)
        gallery.identify(any_embedding(gallery))
        super().__init__(description, recipe, state, batch)
        self.gallery, self.classes = gallery, (*gallery.names, UNKNOWN)
        strange = [name for place, name in enumerate(gallery.names) if label_text(place, gallery.names) != name]
        if strange:
            print(f"The font of the pictures lacks letters of {folder.listed(strange)}: above pictures are numbers.")

    def __call__(self, images: Iterable[Prepared]) -> Iterator[tuple[Prepared, dict[str, np.ndarray]]]:
        """Yields each picture with `name`, `nearest`, `distance`, and itself with the name above it as `image`.

        All three are None for a picture of which the network has no embedding, such as a black one.
        """
        for prepared, outputs in super().__call__(images):
            vector = np.asarray(take_embedding(outputs, self.system), np.float32)
            if not (np.isfinite(vector).all() and vector.any()):
                image = self._write(prepared.original, len(self.gallery.names))
                yield prepared, {"image": image} | dict.fromkeys(("name", "nearest", "distance"), np.asarray(None))
                continue
            found = self.gallery.identify(Embeddings(vector[None], self.fingerprint))
            place, known = int(found.people[0, 0]), bool(found.known[0])
            named = {
                "image": self._write(prepared.original, place if known else len(self.gallery.names)),
                "name": np.asarray(self.gallery.names[place] if known else None),
                "nearest": np.asarray(self.gallery.names[place]),
                "distance": np.round(found.distances[0, 0], 4),
            }
            yield prepared, named

    def _write(self, picture: np.ndarray, label: int) -> np.ndarray:
        """A picture, enlarged if it is small, below a strip of room for the name."""
        scale = max(1, LEGIBLE // min(picture.shape[:2]))
        picture = picture.repeat(scale, 0).repeat(scale, 1)
        height, width = picture.shape[:2]
        room = 16 + min(height, width) // 30
        picture = np.pad(picture, ((room, 0), (0, 0), (0, 0)), constant_values=1)
        box = np.float32([[0, room, width, room + height]])
        return draw_boxes(picture, box, np.array([label]), self.classes)
