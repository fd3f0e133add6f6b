"""How robust a classifier is: accuracy over the size of a change, success and size of changes, success of patches.

Curves over epsilon: Carlini et al., On Evaluating Adversarial Robustness, 2019 (arXiv:1902.06705), section 4.8. RMS,
there "distortion": Szegedy et al., Intriguing Properties of Neural Networks, 2014 (arXiv:1312.6199), section 4.2.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float


def name_at(figure: str, value: float) -> str:
    """Returns the name of a figure at a value: "robust_accuracy_0_1" at 0.1, as keys of configs have no dots."""
    return f"{figure}_{value:.3g}".replace(".", "_")


def accuracies(
    figure: str, right: Bool[np.ndarray, "examples epsilons"], epsilons: Sequence[float]
) -> dict[str, float]:
    """Returns {name: share of the examples that are right} at each epsilon; the names are those of `name_at`."""
    return {name_at(figure, epsilon): float(share) for epsilon, share in zip(epsilons, right.mean(axis=0), strict=True)}


def accuracy_curve(
    distances: Float[np.ndarray, " examples"], epsilons: Float[np.ndarray, " epsilons"]
) -> Float[np.ndarray, " epsilons"]:
    """Returns the robust accuracy at each epsilon: the share of examples whose nearest adversarial one is further away.

    Args:
      distances: of each example's nearest adversarial one; 0 if it is misclassified as it is, infinite without one.
      epsilons: sizes of change.
    """
    return (distances[:, None] > epsilons).mean(axis=0)


def perturbation_figures(
    method: str, fooled: Bool[np.ndarray, " examples"], distances: Float[np.ndarray, " examples"], pixels: int
) -> dict[str, float]:
    """Measures perturbations that are meant to be as small as possible.

    Args:
      method: name of the attack, which ends the names of the figures.
      fooled: whether each reached its aim.
      distances: Euclidean norms of the changes.
      pixels: number of values of an image.

    Returns:
      success/<method>, a share; rms/<method>, the mean root mean square over the successful ones; norm/<method>, the
      median norm over all, -1 if most failed: a failure is infinitely far away.
    """
    found = {f"success/{method}": float(fooled.mean())}
    found[f"rms/{method}"] = float(distances[fooled].mean() / np.sqrt(pixels)) if fooled.any() else -1.0
    median = float(np.median(np.where(fooled, distances, np.inf)))
    found[f"norm/{method}"] = median if np.isfinite(median) else -1.0
    return found


def patch_figures(
    fooled: Mapping[str, Bool[np.ndarray, "examples areas angles"]],
    counted: Bool[np.ndarray, " examples"],
    areas: Sequence[float],
    angles: Sequence[float],
) -> dict[str, float]:
    """Measures patches over their size and their angle.

    Args:
      fooled: {patch: whether an image with it was taken for the target}.
      counted: images that count: those of other classes than the target.
      areas: shares of the image that a patch covers.
      angles: by which it is turned.

    Returns:
      For each patch <patch>_success_<area>, the mean over the angles, and <patch>_turned_<angle>, that over the areas.
    """
    figures = {}
    for patch, outcomes in fooled.items():
        shares = outcomes[counted].mean(axis=0) if counted.any() else np.zeros(outcomes.shape[1:])
        for area, share in zip(areas, shares.mean(axis=1), strict=True):
            figures[name_at(f"{patch}_success", area)] = float(share)
        for angle, share in zip(angles, shares.mean(axis=0), strict=True):
            figures[name_at(f"{patch}_turned", angle)] = float(share)
    return figures
