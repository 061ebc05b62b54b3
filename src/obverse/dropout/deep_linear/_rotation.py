"""Rotations that give a symmetric matrix a wanted diagonal, and frames that spread a spectrum over units or blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..._core.arrays import Array, admit
from ...errors import InvalidArgumentError
from .._finite import finite_numbers
from ._strengths import LayerStrength

__all__ = ["equalizing_rotation", "majorizes", "spreading_frame"]

_SETTLED = 1e-13  # deviation of a diagonal block from its target at which a frame is taken as exact


def equalizing_rotation(matrix: Array) -> Array:
    """Orthogonal ``Q`` for which every diagonal entry of ``Q' S Q`` is ``tr(S)/d``.

    At most d - 1 plane rotations: an entry below the mean and one above it are turned until the first meets the mean
    (derived, theory note 3.1).

    Parameters
    ----------
    matrix : array (d, d)
        ``S``, symmetric.

    Returns
    -------
    array (d, d)
        In the kind and dtype of ``matrix``; no gradient flows through it.

    Raises
    ------
    InvalidArgumentError
        When the matrix is not square or not finite.
    """
    symmetric = finite_numbers("matrix", matrix)
    if symmetric.ndim != 2 or symmetric.shape[0] != symmetric.shape[1]:
        raise InvalidArgumentError(f"expected a finite square matrix, got shape {symmetric.shape}")
    size = len(symmetric)
    rotation = _turn(symmetric, np.full(size, np.trace(symmetric) / max(size, 1)))
    (like,), back = admit(matrix)
    return back(torch.from_numpy(rotation).to(like))


def majorizes(spectrum: NDArray[np.float64], diagonal: NDArray[np.float64]) -> bool:
    """Whether a symmetric matrix with this spectrum can have this diagonal (Schur and Horn), to rounding."""
    size = max(len(spectrum), len(diagonal))
    upper = np.cumsum(np.sort(np.pad(spectrum, (0, size - len(spectrum))))[::-1])
    lower = np.cumsum(np.sort(np.pad(diagonal, (0, size - len(diagonal))))[::-1])
    tolerance = 1e-12 * max(float(np.abs(upper).max(initial=0.0)), 1e-300)
    return bool(np.all(upper >= lower - tolerance) and abs(upper[-1] - lower[-1]) <= 10 * tolerance)


def spreading_frame(spectrum: NDArray[np.float64], layer: LayerStrength, seed: int = 0) -> NDArray[np.float64] | None:
    """Orthonormal ``Q (d, n)`` for which every group of ``Q diag(spectrum) Q'`` carries its share of energy evenly.

    Single units: the diagonal is ``shares``. Blocks: every diagonal block is ``share * I`` (on the spectrum's support
    when that fits into one block). None when no such frame was found, which for blocks is not a proof that none exists.
    """
    size = len(spectrum)
    if layer.strength == 0.0 or size == 0:
        return np.eye(layer.width, size)
    if layer.block == 1:
        wanted = layer.shares * spectrum.sum()
        if not majorizes(spectrum, wanted):
            return None
        padded = np.pad(spectrum, (0, layer.width - size))
        return _turn(np.diag(padded), wanted).T[:, :size]
    full = int(np.count_nonzero(spectrum >= spectrum.sum() / layer.block * (1 - 1e-13)))
    if size <= layer.block or full:
        return _shared_frame(spectrum, layer, size if size <= layer.block else full, seed)
    for attempt in range(4):
        frame = _projected_frame(spectrum, layer, np.random.default_rng((seed, attempt)))
        if frame is not None:
            return frame
    return None


def _shared_frame(
    spectrum: NDArray[np.float64], layer: LayerStrength, shared: int, seed: int
) -> NDArray[np.float64] | None:
    """The first ``shared`` directions lie in every block alike; the others share the rest of the blocks' units."""
    groups, room, size = len(layer.shares), layer.block - shared, len(spectrum)
    frame = np.zeros((groups, layer.block, size))
    frame[:, range(shared), range(shared)] = np.sqrt(layer.shares)[:, None]
    if size > shared:
        rest = spreading_frame(spectrum[shared:], replace(layer, block=room, width=groups * room), seed)
        if rest is None:
            return None
        frame[:, shared:, shared:] = rest.reshape(groups, room, size - shared)
    return frame.reshape(layer.width, size)


def _turn(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation with ``diag(Q' S Q) = wanted`` when ``diag S`` majorizes it (Dhillon, Heath, Sustik, Tropp, 2005)."""
    size = len(matrix)
    order, places = np.argsort(np.diag(matrix), kind="stable"), np.argsort(wanted, kind="stable")
    targets = wanted[places]
    turned = matrix[np.ix_(order, order)].astype(np.float64)
    rotation = np.eye(size)[:, order]
    settled = 4e-16 * max(float(np.abs(np.diag(matrix)).max(initial=0.0)), 1e-300)
    for _ in range(size - 1):
        gaps = np.diag(turned) - targets
        above = np.flatnonzero(gaps > settled)
        below = np.flatnonzero(gaps < -settled)
        if not len(above) or not len(below) or below[0] > above[-1]:
            break
        # Neighbors in the order of the targets, the lower one short of energy and the upper one with too much.
        j = int(above[np.searchsorted(above, below[0])])
        i = int(below[np.searchsorted(below, j) - 1])
        if -gaps[i] <= gaps[j]:
            _rotate(turned, rotation, i, j, targets[i])
        else:
            _rotate(turned, rotation, j, i, targets[j])
    result = np.empty_like(rotation)
    result[:, places] = rotation
    return result


def _rotate(turned: NDArray[np.float64], rotation: NDArray[np.float64], i: int, j: int, target: float) -> None:
    """Rotate the plane (i, j) in place so that ``turned[i, i]`` becomes ``target``."""
    low, high, off = turned[i, i] - target, turned[j, j] - target, turned[i, j]
    root = np.sqrt(max(off * off - low * high, 0.0))
    tangent = -low / (off + (root if off >= 0 else -root)) if off or root else 0.0
    cosine = 1.0 / np.hypot(1.0, tangent)
    plane = cosine * np.array([[1.0, -tangent], [tangent, 1.0]])
    pair = [i, j]
    turned[:, pair] = turned[:, pair] @ plane
    turned[pair] = plane.T @ turned[pair]
    turned[i, i] = target
    rotation[:, pair] = rotation[:, pair] @ plane


def _projected_frame(
    spectrum: NDArray[np.float64], layer: LayerStrength, generator: np.random.Generator
) -> NDArray[np.float64] | None:
    """Alternate between matrices with the spectrum and with the wanted diagonal blocks, from a random start."""
    size, block = len(spectrum), layer.block
    order = np.argsort(spectrum)
    frame = np.linalg.qr(generator.standard_normal((layer.width, size)))[0]
    wanted = [share * spectrum.sum() / block * np.eye(block) for share in layer.shares]
    last = np.inf
    spans = [slice(start, start + block) for start in range(0, layer.width, block)]
    for round_ in range(2000):
        moment = (frame * spectrum) @ frame.T
        deviation = 0.0
        for span, target in zip(spans, wanted, strict=True):
            deviation = max(deviation, float(np.abs(moment[span, span] - target).max()))
            moment[span, span] = target
        if deviation < _SETTLED:
            return frame
        if round_ % 200 == 199:
            if deviation > 0.9 * last:
                return None
            last = deviation
        frame[:, order] = np.linalg.eigh(moment)[1][:, layer.width - size :]
    return None
