"""Principal components as a rival of autoencoders: their reconstructions, codes and subspace, by scikit-learn."""

import numpy as np
import scipy.linalg
from jaxtyping import Float
from sklearn.decomposition import PCA

Images = Float[np.ndarray, "batch height width channels"]


def fit(images: Images, components: int) -> PCA:
    """Returns scikit-learn's principal components of flat images, by the exact singular value decomposition."""
    return PCA(components, svd_solver="full").fit(images.reshape(len(images), -1).astype(np.float64))


def reconstruct(pca: PCA, images: Images) -> Images:
    """Returns images projected onto the principal subspace, not clipped."""
    return pca.inverse_transform(codes(pca, images)).reshape(images.shape)


def codes(pca: PCA, images: Images) -> Float[np.ndarray, "batch components"]:
    """Returns the coordinates of images along the components."""
    return pca.transform(images.reshape(len(images), -1).astype(np.float64))


def subspace_angle(pca: PCA, reconstructions: Images) -> float:
    """Returns the largest angle in radians between the principal subspace and that of linear reconstructions."""
    flat = reconstructions.reshape(len(reconstructions), -1).astype(np.float64)
    _, _, directions = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    return float(scipy.linalg.subspace_angles(directions[: pca.n_components_].T, pca.components_.T).max())
