"""A vocabulary built from the captions of a training split, and captions to tokens and back."""

import collections
import dataclasses
import functools
import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from cvjax.errors import UserError
from cvjax.rundir import write_atomically

SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")
PAD, UNKNOWN, START, END = range(len(SPECIAL))
FILE = "vocabulary.json"  # in a run's folder


@dataclasses.dataclass(frozen=True, repr=False)
class Vocabulary:
    """The words that have a token, in the order of the tokens; the first are `SPECIAL`."""

    words: tuple[str, ...] = SPECIAL

    def __len__(self) -> int:
        """Returns the number of tokens."""
        return len(self.words)

    def __repr__(self) -> str:
        """Says how large it is."""
        return f"Vocabulary({len(self)} tokens)"

    @functools.cached_property
    def tokens(self) -> dict[str, int]:
        """The token of each word."""
        return {word: token for token, word in enumerate(self.words)}


EMPTY = Vocabulary()


def split_words(text: str) -> list[str]:
    """Splits text into words and punctuation marks, in lower case."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFKC", text).casefold())


def build_vocabulary(texts: Iterable[str], size: int) -> Vocabulary:
    """Builds a vocabulary of the most frequent words, ties in alphabetical order; `size` includes special tokens."""
    counts = collections.Counter(word for text in texts for word in split_words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIAL, *ranked[: max(0, size - len(SPECIAL))]))


def encode(text: str, vocabulary: Vocabulary, length: int) -> Int32[np.ndarray, " length"]:
    """Writes text as `length` tokens: start, words, end, and padding; longer texts are cut.

    Words that the vocabulary lacks become `UNKNOWN`.
    """
    words = [vocabulary.tokens.get(word, UNKNOWN) for word in split_words(text)][: length - 2]
    tokens = np.full(length, PAD, np.int32)
    tokens[: len(words) + 2] = START, *words, END
    return tokens


def decode(tokens: Int[np.ndarray, " length"], vocabulary: Vocabulary) -> str:
    """Joins the words of `tokens` up to the first `END` with spaces, without padding and start."""
    words = []
    for token in tokens.tolist():
        if token == END:
            break
        if token not in (PAD, START):
            words.append(vocabulary.words[token] if 0 <= token < len(vocabulary) else SPECIAL[UNKNOWN])
    return " ".join(words)


def read(run: str | Path) -> Vocabulary | None:
    """Reads the vocabulary from a run's folder, None without a file; raises a UserError if `write` did not write it."""
    path = Path(run) / FILE
    if not path.exists():
        return None
    try:
        words = json.loads(path.read_text(encoding="utf-8"))["words"]
        if tuple(words[: len(SPECIAL)]) != SPECIAL or not all(isinstance(word, str) for word in words):
            raise ValueError("its words are not those of a vocabulary")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a vocabulary: {error}") from error
    return Vocabulary(tuple(words))


def write(run: str | Path, vocabulary: Vocabulary) -> None:
    """Writes a vocabulary into a run's folder."""
    content = json.dumps({"words": vocabulary.words}, ensure_ascii=False, indent=1)
    write_atomically(Path(run) / FILE, content + "\n")
