"""Figures and pictures of embeddings of classes that training never had.

The plane of the map: van der Maaten & Hinton, Visualizing Data using t-SNE, 2008.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float, Integer, Shaped
from sklearn.manifold import TSNE

from cvjax.core import Pictures
from cvjax.errors import number_of
from cvjax.metrics import plots, retrieval, verification

PEOPLE = 2 * verification.FOLDS  # from which on there are ten folds that share nobody
SHOWN = 16  # pairs that are drawn of each kind
MAPPED = 10  # people on the map
FEWEST = 6  # pictures of which there is a map

Embeddings = Float[np.ndarray, "pictures features"]
Labels = Integer[np.ndarray, " pictures"]


def columns(rows: Iterable[tuple[Mapping, Mapping]]) -> tuple[Labels, dict[str, Shaped[np.ndarray, "pictures ..."]]]:
    """Returns the labels of all batches of an evaluation, and their outputs, joined by name."""
    labels, outputs = zip(*((batch["label"], row) for batch, row in rows), strict=True)
    return np.concatenate(labels), {name: np.concatenate([row[name] for row in outputs]) for name in outputs[0]}


def figures(embeddings: Embeddings, labels: Labels) -> dict[str, float]:
    """Returns the figures of `cvjax.metrics.retrieval` and, of twenty people or more, `cvjax.metrics.verification`."""
    found = retrieval.figures(embeddings, labels)
    _, counts = np.unique(labels, return_counts=True)
    return found | (verification.figures(embeddings, labels) if (counts > 1).sum() >= PEOPLE else {})


def pictures(images: Float[np.ndarray, "pictures _ _ _"], embeddings: Embeddings, labels: Labels) -> Pictures:
    """Draws the pairs of a batch.

    Returns `hardest_pairs`, the nearest of two people and the furthest of one; `distances`, a histogram of each kind;
    `roc`; and `embedding_map`, ten people on a plane. What a batch has no pairs for is left out.
    """
    left, right = np.triu_indices(len(images), k=1)
    distances, same = verification.pair_distances(embeddings, left, right), labels[left] == labels[right]
    shown = embedding_map(embeddings, labels)
    if not same.any() or same.all():
        return shown
    nearest, furthest = (
        np.flatnonzero(kind)[np.argsort(sign * distances[kind], kind="stable")[:SHOWN]]
        for kind, sign in ((~same, 1), (same, -1))
    )
    chosen = np.concatenate([nearest, furthest])
    gap = np.ones((len(chosen), images.shape[1], max(1, images.shape[2] // 16), images.shape[3]), np.float32)
    joined = np.concatenate([images[left[chosen]], gap, images[right[chosen]]], axis=2)
    captions = [f"{'one' if same[pair] else 'two'}, {distances[pair]:.2f}" for pair in chosen]
    rates = verification.roc(distances, same)
    title = f"{number_of(len(images), 'picture')}, equal error rate {verification.equal_error_rate(rates):.3f}"
    return shown | {
        "hardest_pairs": plots.draw_gallery(joined, captions, columns=8, marked=~same[chosen]),
        "distances": plots.draw_distances(distances, same, verification.best_threshold(distances, same), title),
        "roc": plots.draw_rates({"pairs of the batch": (rates.false, rates.true)}, title),
    }


def embedding_map(embeddings: Embeddings, labels: Labels) -> Pictures:
    """Returns `embedding_map`, the pictures of the first ten people on a plane; nothing for a few pictures."""
    chosen = np.isin(labels, np.unique(labels)[:MAPPED])
    points = embeddings[chosen]
    if len(points) < FEWEST:
        return {}
    perplexity = min(15, (len(points) - 1) / 3)
    points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(points.astype(np.float64))
    return {"embedding_map": plots.draw_map(points, labels[chosen], "t-SNE of embeddings")}
