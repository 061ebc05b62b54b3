"""Text as numbers: words hashed to ids, so that there is no vocabulary to build, to ship, or to lose."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["TOKENS", "encode_words"]

TOKENS = 32_768
"""Ids of words: 0 fills up short texts, the others are hashes."""

_LONGEST = 256
_WORD = re.compile(r"\w+|[^\w\s]")


def encode_words(texts: Sequence[str], length: int | None = None) -> Tensor:
    """Texts as rows of word ids.

    Parameters
    ----------
    texts : sequence of str
    length : int, optional
        Words kept of each text, the first ones; by default those of the longest text, at most 256.

    Returns
    -------
    Tensor of int32, shape (rows, length)
        ``1 + crc32(word) mod (TOKENS - 1)`` of the words in lower case and the punctuation marks, then zeros. Two
        words may share an id: of 10,000 different words, about one in four does.
    """
    rows = [[_id(word) for word in _WORD.findall(text.lower())[: length or _LONGEST]] for text in texts]
    width = length or max(1, max(map(len, rows), default=1))
    ids = torch.zeros(len(rows), width, dtype=torch.int32)
    for row, words in enumerate(rows):
        ids[row, : len(words)] = torch.tensor(words, dtype=torch.int32)
    return ids


def _id(word: str) -> int:
    return 1 + zlib.crc32(word.encode()) % (TOKENS - 1)
