"""Deep-learning systems for computer vision in JAX: each in one file, tested, and trained to a measured bar."""

__version__ = "0.1.0"
