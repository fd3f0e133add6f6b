"""Deep-learning systems of computer vision in JAX: each in one file, checked, and trained to a measured bar."""

__version__ = "0.1.0"
