"""Words of messages: counts with their nouns."""

import pytest

from cvjax.errors import number_of


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2000, "training image", "2,000 training images"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
        (2, "box", "2 boxes"),
        (2, "patch", "2 patches"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
    ],
)
def test_a_count_has_its_noun_in_singular_or_plural(count, noun, words):
    assert number_of(count, noun) == words
