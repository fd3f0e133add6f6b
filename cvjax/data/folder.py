"""A user's folder of images."""

from cvjax.data.sources import Source
from cvjax.errors import UserError


def open_split(folder: str, split: str) -> Source:
    """Opens one split of a folder of images."""
    raise UserError(f"data.folder={folder!r}: folders are not read yet ({split})")
