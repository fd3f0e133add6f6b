"""How well region proposals cover objects: Hosang et al., What Makes for Effective Detection Proposals?, 2016.

All start from the best overlap of each object with the first n proposals of its image. One proposal may cover several
objects, as there and as in COCO's boxes alone.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from cvjax.metrics.pairs import areas, overlaps

Best = Float[np.ndarray, "objects counts"]
Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]

COUNTS = (10, 20, 50, 100, 200, 500, 1000)
IOUS = np.linspace(0.5, 1.0, 51)


def best_overlaps(
    batches: Iterable[Mapping[str, Shaped[np.ndarray, "batch ..."]]],
    counts: Sequence[int] = COUNTS,
    feature: str = "proposals",
) -> Best:
    """Returns the greatest IoU of each object with the first proposals, for each number of them; 0 without any.

    Objects that are difficult or a crowd, and empty boxes, do not count. Counts beyond the number of proposals are that
    number.

    Args:
      batches: `boxes`, `mask` and optionally `difficult` and `crowd`; `{feature}` [batch, proposals, 4] and
        `{feature}_mask`, the best proposals first. Padding of batches has been removed.
    """
    found = [np.zeros((0, len(counts)))]
    for batch in batches:
        none = np.zeros_like(batch["mask"], bool)
        left_out = np.asarray(batch.get("difficult", none), bool) | np.asarray(batch.get("crowd", none), bool)
        for row, mask in enumerate(batch["mask"] & ~left_out):
            objects = batch["boxes"][row][mask].astype(np.float64)
            objects = objects[areas(objects) > 0]
            boxes = batch[feature][row][batch[f"{feature}_mask"][row]].astype(np.float64)
            pairs = (np.repeat(objects, len(boxes), axis=0), np.tile(boxes, (len(objects), 1)))
            iou = overlaps(*pairs)[0].reshape(len(objects), len(boxes))
            running = np.maximum.accumulate(np.pad(iou, ((0, 0), (1, 0))), axis=1)
            found.append(running[:, np.minimum(counts, len(boxes))])
    return np.concatenate(found)


def recall(best: Best, iou: float = 0.5) -> Float[np.ndarray, " counts"]:
    """Returns the share of objects that a proposal overlaps by `iou` or more, for each number; NaN without objects."""
    return (best >= iou).mean(axis=0) if len(best) else np.full(best.shape[1], np.nan)


def average_recall(best: Best) -> Float[np.ndarray, " counts"]:
    """Returns twice the area below the recall from an IoU of 0.5 to 1, for each number (section 4.2).

    It is the mean over objects of 2 max(IoU - 0.5, 0). NaN without objects.
    """
    return 2 * np.maximum(best - 0.5, 0).mean(axis=0) if len(best) else np.full(best.shape[1], np.nan)


def curves_by_number(best: Best, counts: Sequence[int] = COUNTS) -> dict[str, Curve]:
    """Returns name -> (numbers of proposals, recall) at IoUs of 0.5 and 0.7, and the average recall."""
    numbers = np.asarray(counts, float)
    named = {"IoU 0.5": recall(best, 0.5), "IoU 0.7": recall(best, 0.7), "average": average_recall(best)}
    return {name: (numbers, values) for name, values in named.items()}


def curve_by_iou(best: Best, place: int) -> Curve:
    """Returns (IoUs from 0.5 to 1, recall) of the number of proposals at `place` in the counts."""
    return IOUS, np.array([recall(best[:, [place]], iou)[0] for iou in IOUS])
