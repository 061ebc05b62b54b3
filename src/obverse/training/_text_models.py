"""Classifiers of texts given as word ids, 0 where a text has ended."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TextBag", "TextTransformer"]


class TextBag(nn.Module):
    """The mean embedding of a text's words, then one hidden layer.

    Parameters
    ----------
    tokens : int
        Number of ids.
    num_classes : int
    size : int
        Of embeddings and of the hidden layer.
    """

    def __init__(self, tokens: int, num_classes: int, size: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, size, padding_idx=0)
        self.hidden = nn.Linear(size, size)
        self.head = nn.Linear(size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Class scores, shape (rows, classes), of ids (rows, length)."""
        scores: Tensor = self.head(torch.relu(self.hidden(_mean_of_words(self.embedding(ids), ids))))
        return scores


class TextTransformer(nn.Module):
    """Two encoder layers of four heads over the words, and the mean of what they give.

    Parameters
    ----------
    tokens : int
        Number of ids.
    length : int
        Words of a text, at most.
    num_classes : int
    size : int
        Of embeddings; the feed-forward layers are twice as wide. A multiple of 4.
    """

    def __init__(self, tokens: int, length: int, num_classes: int, size: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, size, padding_idx=0)
        self.positions = nn.Parameter(0.02 * torch.randn(length, size))
        layer = nn.TransformerEncoderLayer(size, 4, 2 * size, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(size)
        self.head = nn.Linear(size, num_classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Class scores, shape (rows, classes), of ids (rows, length)."""
        empty = ids == 0
        # A text without words attends to its first place: attention to nothing has no value.
        ended = torch.cat([torch.zeros_like(empty[:, :1]), empty[:, 1:]], 1)
        hidden = self.layers(self.embedding(ids) + self.positions[: ids.shape[1]], src_key_padding_mask=ended)
        scores: Tensor = self.head(_mean_of_words(self.norm(hidden), ids))
        return scores


def _mean_of_words(values: Tensor, ids: Tensor) -> Tensor:
    """Mean over the places that hold words; zero for a text without any."""
    present = (ids != 0).unsqueeze(2)
    total: Tensor = (values * present).sum(1)
    return total / present.sum(1).clamp(min=1)
