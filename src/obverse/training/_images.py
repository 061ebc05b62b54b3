"""Encoded images (PNG, JPEG, ...) decoded once to one uint8 tensor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError

__all__ = ["decode_images"]

_GRAY = {"1", "L", "LA"}
_COLOR = {"P", "RGB", "RGBA", "CMYK", "YCbCr"}


def decode_images(images: Sequence[Any], where: str) -> Tensor:
    """Decode a column of images.

    Parameters
    ----------
    images : sequence of dict
        Each with ``bytes`` (encoded) or, where these are None, ``path``.
    where : str
        What the rows are, for the error message.

    Returns
    -------
    Tensor of uint8, shape (rows, channels, height, width)
        One channel when every image is gray, else three.

    Raises
    ------
    InvalidArgumentError
        When an image is missing, corrupt, of another size than the first, or of a mode with more than 8 bits.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        pixels = list(pool.map(_decode, images, range(len(images)), [where] * len(images), chunksize=256))
    if not pixels:
        raise InvalidArgumentError(f"{where} is empty: no rows to learn from")
    first = pixels[0].shape[:2]
    for row, image in enumerate(pixels):
        if image.shape[:2] != first:
            raise InvalidArgumentError(
                f"{_name(images[row], row, where)}: the image is {image.shape[1]}x{image.shape[0]} pixels "
                f"and the first one {first[1]}x{first[0]}; resize them to one size"
            )
    channels = max(image.shape[2] for image in pixels)
    stacked = np.empty((len(pixels), *first, channels), dtype=np.uint8)
    for row, image in enumerate(pixels):
        stacked[row] = image  # a gray image among color ones is repeated over the channels
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def _decode(image: Any, row: int, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image

    content = image if isinstance(image, bytes) else (image or {}).get("bytes")
    path = None if isinstance(image, bytes) else (image or {}).get("path")
    file: Any = io.BytesIO(content) if content is not None else path
    if file is None:
        raise InvalidArgumentError(f"{where}, row {row}: the image is missing")
    try:
        with Image.open(file) as picture:
            mode = picture.mode
            if mode not in _GRAY | _COLOR:
                raise InvalidArgumentError(
                    f"{_name(image, row, where)}: cannot read mode {mode}; save images with 8 bits a channel"
                )
            target = "L" if mode in _GRAY else "RGB"
            pixels = np.asarray(picture if mode == target else picture.convert(target), dtype=np.uint8)
    except InvalidArgumentError:
        raise
    except Exception as error:  # Pillow raises a different type for every way a file can be broken
        raise InvalidArgumentError(f"{_name(image, row, where)}: cannot read the image: {_brief(error)}") from error
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _name(image: Any, row: int, where: str) -> str:
    path = None if isinstance(image, bytes) else (image or {}).get("path")
    return f"{where}, row {row}" + (f" ({path})" if path else "")


def _brief(error: Exception) -> str:
    # Pillow names the in-memory buffer, which means nothing to a reader.
    return "not an image file" if "cannot identify" in str(error) else str(error) or type(error).__name__
