"""Coefficients along a path, drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._path import SparsePath

__all__ = ["plot_path"]

_NAMED = 8


def plot_path(path: SparsePath, ax: Any = None, *, chosen: float | None = None, names: Any = None) -> Any:
    """Draw the coefficients of a path against alpha; of several outputs, the norms of the features' coefficients.

    Parameters
    ----------
    path : SparsePath
    ax : matplotlib Axes, optional
        By default those of a new figure.
    chosen : float, optional
        An alpha to mark.
    names : sequence of str, optional
        Of the features; those of the largest coefficients are written at the end of their lines.

    Returns
    -------
    matplotlib Axes
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(7.0, 4.5), layout="constrained").add_subplot()
    if path.is_sparse:
        used = np.unique(path.coefs.indices)
        lines = path.coefs[:, used].toarray()
    else:
        norms = np.sqrt((path.coefs**2).sum(axis=1))
        used = np.flatnonzero(norms.any(axis=0))
        lines = norms[:, used]
    drawn = ax.plot(path.alphas, lines, linewidth=1.2)
    if path.alphas.size > 1:
        ax.set_xscale("log")
        ax.set_xlim(path.alphas[0], path.alphas[-1])
    ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
    if chosen is not None and chosen > 0:
        ax.axvline(chosen, color="0.3", linestyle="--", linewidth=1.0)
    for k in np.argsort(-np.abs(lines[-1]), kind="stable")[:_NAMED] if used.size else ():
        label = f"x{used[k]}" if names is None else str(names[used[k]])
        ax.annotate(
            label, (path.alphas[-1], lines[-1, k]), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize="small", color=drawn[k].get_color(), annotation_clip=False,
        )  # fmt: skip
    ax.set_xlabel("alpha (stronger to the left)")
    ax.set_ylabel("coefficient" if path.is_sparse else "norm of the coefficients")
    return ax
