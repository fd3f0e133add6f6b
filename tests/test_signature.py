"""What may be given for which annotation, and what becomes of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest

from cvjax.signature import Count, Share, cast, describe_type


@pytest.mark.parametrize(
    "annotation, right, wrong",
    [
        (int, [3, -1], [2.5, "3", True, None, (3,)]),
        (float, [2.5, 3], ["fast", False, None]),
        (bool, [True], [1, "true"]),
        (str, ["a"], [1, None]),
        (int | None, [3, None], ["3", 2.5]),
        (Literal["a", "b"], ["a"], ["c", 1]),
        (tuple[int, int], [(1, 2), [1, 2]], [(1,), (1, 2, 3), (1, 2.5), 1, "12"]),
        (tuple[int, ...], [(), (1,), [1, 2, 3]], [("1",), 1]),
        (Sequence[float], [(1.0, 2), []], ["ab", ("a",)]),
        (float | Sequence[float], [0.5, [0.1, 0.2]], ["a"]),
        (Mapping[str, Any], [{}, {"a": 1}], [[], "a", None]),
        (Callable, [print], []),
        (Count, [1, 9], [0, -1, 1.5, "1"]),
        (Share, [0, 0.5, 1.0], [-0.1, 1.5, "a"]),
        (tuple[Count, ...], [(), (1, 2)], [(1, 0), 1]),
        (Count | None, [None, 2], [0]),
    ],
    ids=str,
)
def test_values_fit_their_annotations(annotation, right, wrong):
    for value in right:
        assert cast(value, annotation) == (tuple(value) if isinstance(value, list) else value)
    for value in wrong:
        with pytest.raises(TypeError):
            cast(value, annotation)


def test_what_json_made_of_a_config_becomes_what_it_was():
    given = {"shape": [8, 8, 1], "nested": {"sizes": [[1, 2], [3]]}, "rate": 1}
    assert cast(given, dict[str, Any]) == {"shape": (8, 8, 1), "nested": {"sizes": ((1, 2), (3,))}, "rate": 1}
    assert isinstance(cast(1, float), float) and isinstance(cast([1], tuple[float, ...])[0], float)


def test_types_are_written_for_people():
    assert describe_type(int) == "int"
    assert describe_type(Literal["a", "b"]) == "one of a, b"
    assert describe_type(int | None) == "int | None"
    assert describe_type(Count | tuple[str, ...]) == "int at least 1 | tuple[str, ...]"
    assert describe_type(Sequence[float]) == "Sequence[float]"
    assert describe_type(tuple[int, ...]) == "tuple[int, ...]"
