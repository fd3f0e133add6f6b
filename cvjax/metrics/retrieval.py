"""Retrieval by embeddings: do the nearest others belong to the class of the query?

R-precision: Musgrave, Belongie & Lim, A Metric Learning Reality Check, 2020 (arXiv:2003.08505), section 3.1.
"""

import numpy as np
from jaxtyping import Float, Integer

from cvjax.errors import UserError
from cvjax.metrics.neighbours import distance_tables

QUERIES = 2000  # at most, drawn once


def figures(
    embeddings: Float[np.ndarray, "pictures features"], labels: Integer[np.ndarray, " pictures"], seed: int = 0
) -> dict[str, float]:
    """Measures a search of each picture among all others, by Euclidean distances.

    Returns `recall_at_1`, the share of the queries whose nearest is of their class, and `r_precision`: of a query whose
    class has R others, the share of its R nearest that are of the class, averaged over queries. Equal distances count
    against the query. A picture alone in its class is no query. Raises a UserError if every picture is, or all are of
    one class, where nothing could be wrong.
    """
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        raise UserError(f"all {len(labels)} pictures are of one class: whatever is found is right.")
    others = counts[numbers] - 1
    queries = np.flatnonzero(others)
    if not len(queries):
        raise UserError(f"every one of the {len(labels)} pictures is alone in its class: there is nothing to find.")
    if len(queries) > QUERIES:
        queries = np.sort(np.random.default_rng(seed).choice(queries, QUERIES, replace=False))
    first, precision, start = [], [], 0
    for table in distance_tables(embeddings[queries], embeddings):
        for query, distances in zip(queries[start : start + len(table)], table, strict=True):
            right = numbers == numbers[query]
            order = np.lexsort((right, distances))
            found = right[order[order != query]][: others[query]]
            first.append(found[0])
            precision.append(found.mean())
        start += len(table)
    return {"recall_at_1": float(np.mean(first)), "r_precision": float(np.mean(precision))}
