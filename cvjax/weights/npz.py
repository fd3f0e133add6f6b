"""Arrays of a NumPy archive, `.npz`."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cvjax.errors import UserError


def read_npz(path: Path, content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns all arrays in the content of an archive, {name: array}; messages name `path`.

    Raises a UserError if the archive is damaged, or holds more than arrays of numbers; pickled objects are refused.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            # Python's zipfile does not notice an entry that a wrong length in the directory hides.
            end = content.rindex(b"PK\5\6")
            if len(archive.files) != (count := int.from_bytes(content[end + 10 : end + 12], "little")) != 0xFFFF:
                raise ValueError(f"{len(archive.files)} arrays of {count}")
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{path} is no .npz of arrays of numbers, or a damaged one: {error}") from error
