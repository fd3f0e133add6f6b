"""Vocabularies: built by counting, kept in a run's folder, and text there and back."""

import collections
import pickle

import numpy as np
import pytest

from cvjax.data import vocabulary
from cvjax.data.vocabulary import END, PAD, SPECIAL, START, UNKNOWN, build_vocabulary, decode, encode
from cvjax.errors import UserError

TEXTS = ["A red digit on the left.", "a blue digit, on the right", "The red one"]
WORDS = ["a red digit on the left .", "a blue digit , on the right", "the red one"]


def test_words_are_in_order_of_their_counts_and_then_of_the_alphabet():
    counts = collections.Counter(" ".join(WORDS).split())
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert build_vocabulary(TEXTS, 100).words == (*SPECIAL, *expected)
    assert build_vocabulary(reversed(TEXTS), 7).words == (*SPECIAL, *expected[:3])
    assert build_vocabulary([], 100) == vocabulary.EMPTY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 3-4 o'clock.", ["it", "'", "s", "3", "-", "4", "o", "'", "clock", "."]),
        ("STRASSE, Straße", ["strasse", ",", "strasse"]),
        ("ﬁne\u00a0day\n", ["fine", "day"]),
        ("猫と犬。", ["猫と犬", "。"]),
        ("<pad>", ["<", "pad", ">"]),
        ("", []),
    ],
)
def test_words_and_punctuation_are_parted(text, words):
    assert vocabulary.split_words(text) == words


def test_text_is_written_with_start_end_and_padding():
    words = build_vocabulary(TEXTS, 100)
    tokens = encode("A green DIGIT", words, 8)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [START, words.tokens["a"], UNKNOWN, words.tokens["digit"], END, PAD, PAD, PAD]
    assert encode("a red digit on the left", words, 4).tolist() == [
        START,
        *(words.tokens[w] for w in ("a", "red")),
        END,
    ]
    assert encode("", words, 3).tolist() == [START, END, PAD]


def test_text_comes_back():
    words = build_vocabulary(TEXTS, 100)
    for text in TEXTS:
        assert decode(encode(text, words, 12), words) == " ".join(vocabulary.split_words(text))
    assert (
        decode(np.array([words.tokens["a"], UNKNOWN, 999, END, words.tokens["red"]]), words) == "a <unknown> <unknown>"
    )


def test_a_folder_keeps_its_vocabulary(tmp_path):
    assert vocabulary.read(tmp_path) is None
    words = build_vocabulary([*TEXTS, "猫 “quoted”"], 100)
    vocabulary.write(tmp_path, words)
    assert vocabulary.read(tmp_path) == words
    assert pickle.loads(pickle.dumps(words)) == words  # as worker processes get it
    for content in ("{", "[]", '{"words": ["a", "b", "c", "d"]}', '{"words": 3}', '{"word": []}'):
        (tmp_path / "vocabulary.json").write_text(content)
        with pytest.raises(UserError, match=r"vocabulary\.json cannot be read as a vocabulary"):
            vocabulary.read(tmp_path)
