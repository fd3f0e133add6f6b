"""Principal components as a rival of autoencoders: their reconstructions, codes and subspace, by scikit-learn."""

import numpy as np
import scipy.linalg
from jaxtyping import Float
from sklearn.decomposition import PCA

Images = Float[np.ndarray, "batch height width channels"]


def fit(images: Images, components: int) -> PCA:
    """Fits principal components.

    Args:
      images: of the training set.
      components: number of components.

    Returns:
      scikit-learn's PCA of the flat images, by the exact singular value decomposition.
    """
    return PCA(components, svd_solver="full").fit(images.reshape(len(images), -1).astype(np.float64))


def reconstruct(pca: PCA, images: Images) -> Images:
    """Projects images onto the principal subspace.

    Args:
      pca: as `fit` returns it.
      images: any.

    Returns:
      The projections, not clipped.
    """
    return pca.inverse_transform(codes(pca, images)).reshape(images.shape)


def codes(pca: PCA, images: Images) -> Float[np.ndarray, "batch components"]:
    """Computes the coordinates of images along the components.

    Args:
      pca: as `fit` returns it.
      images: any.

    Returns:
      One row an image.
    """
    return pca.transform(images.reshape(len(images), -1).astype(np.float64))


def subspace_angle(pca: PCA, reconstructions: Images) -> float:
    """Computes the largest principal angle between the principal subspace and that of reconstructions.

    Args:
      pca: as `fit` returns it.
      reconstructions: by a linear decoder of the same number of codes, not clipped; more images than codes.

    Returns:
      The angle in radians, 0 to pi / 2; 0 for equal subspaces.
    """
    flat = reconstructions.reshape(len(reconstructions), -1).astype(np.float64)
    _, _, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    return float(scipy.linalg.subspace_angles(directions[: pca.n_components_].T, pca.components_.T).max())
