"""Archives of arrays in which any byte has changed: read as they were, or refused."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.weights.npz import read_npz

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_one_changed_byte_is_right_or_refused(save):
    buffer, outcomes = io.BytesIO(), Counter()
    save(buffer, **ARRAYS)
    content = buffer.getvalue()
    for place in range(len(content)):
        for flip in (0x01, 0xFF):
            changed = bytearray(content)
            changed[place] ^= flip
            try:
                found = read_npz(Path("x.npz"), bytes(changed))
            except UserError as error:
                assert "x.npz" in str(error)
                outcomes["refused"] += 1
                continue
            outcomes["read"] += 1
            assert found.keys() == ARRAYS.keys(), place
            for name, right in ARRAYS.items():
                assert found[name].dtype == right.dtype
                np.testing.assert_array_equal(found[name], right)
    assert len(outcomes) == 2
