"""Encoded images (PNG, JPEG, ...) decoded once to one uint8 tensor."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._core.resources import check_memory
from ..errors import InvalidArgumentError

__all__ = ["decode_images"]

_GRAY = {"1", "L", "LA"}
_COLOR = {"P", "RGB", "RGBA", "CMYK", "YCbCr"}


def decode_images(images: Sequence[Any], where: str) -> Tensor:
    """Decode a column of images.

    The header of the first image says what all will take, before any is decoded.

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
        When an image is missing, corrupt, of another size than the first, or of a mode with more than 8 bits; or when
        the decoded images do not fit into the memory that is available.
    """
    from PIL import Image

    if not len(images):
        raise InvalidArgumentError(f"{where} is empty: no rows to learn from")
    rows = range(len(images))
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=4) as pool:
        # Large images are refused by what they need, all together.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with _image(images[0], 0, where) as first:
            (width, height), is_gray = first.size, first.mode in _GRAY
        for channels in (1, 3) if is_gray else (3,):
            shape = (len(images), channels, height, width)
            # The images, and the copies that a split into training and test rows makes.
            check_memory(
                2 * math.prod(shape),
                f"{where}: {len(images):,} images of {width}x{height} pixels",
                "use fewer or smaller images",
            )
            decoded = torch.empty(shape, dtype=torch.uint8)
            if all(pool.map(_decode, images, rows, [where] * len(images), decoded.numpy())):
                break
    return decoded


def _decode(image: Any, row: int, where: str, into: npt.NDArray[np.uint8]) -> bool:
    """Decode one image into its place, a gray one to every channel; False if it has colors and the place has not."""
    channels, height, width = into.shape
    with _image(image, row, where) as picture:
        if picture.size != (width, height):
            raise InvalidArgumentError(
                f"{_name(image, row, where)}: the image is {picture.width}x{picture.height} pixels "
                f"and the first one {width}x{height}; resize them to one size"
            )
        target = "L" if picture.mode in _GRAY else "RGB"
        if target == "RGB" and channels == 1:
            return False
        pixels = np.asarray(picture if picture.mode == target else picture.convert(target), dtype=np.uint8)
    into[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return True


@contextmanager
def _image(image: Any, row: int, where: str) -> Iterator[Any]:
    """An image that is open, of which only the header was read; errors name the row."""
    from PIL import Image

    content = image if isinstance(image, bytes) else (image or {}).get("bytes")
    path = None if isinstance(image, bytes) else (image or {}).get("path")
    file: Any = io.BytesIO(content) if content is not None else path
    if file is None:
        raise InvalidArgumentError(f"{where}, row {row}: the image is missing")
    try:
        with Image.open(file) as picture:
            if picture.mode not in _GRAY | _COLOR:
                raise InvalidArgumentError(
                    f"{_name(image, row, where)}: cannot read mode {picture.mode}; save images with 8 bits a channel"
                )
            yield picture
    except InvalidArgumentError:
        raise
    except Exception as error:  # Pillow raises a different type for every way a file can be broken
        raise InvalidArgumentError(f"{_name(image, row, where)}: cannot read the image: {_brief(error)}") from error


def _name(image: Any, row: int, where: str) -> str:
    path = None if isinstance(image, bytes) else (image or {}).get("path")
    return f"{where}, row {row}" + (f" ({path})" if path else "")


def _brief(error: Exception) -> str:
    # Pillow names the in-memory buffer, which means nothing to a reader.
    return "not an image file" if "cannot identify" in str(error) else str(error) or type(error).__name__
