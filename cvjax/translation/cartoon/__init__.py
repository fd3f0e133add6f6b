"""Photographs as cartoons: filters that paint them, and `python -m cvjax.translation.cartoon`, which makes pairs."""

from cvjax.translation.cartoon.styles import STYLES, ink, pencil, watercolour

__all__ = ["STYLES", "ink", "pencil", "watercolour"]
