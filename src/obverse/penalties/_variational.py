"""The penalty that variational dropout minimizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgumentError
from ._parameters import store_constant
from ._rescaling import Rescaling
from ._tabulated import TabulatedPenalty, remembered

__all__ = ["VariationalDropout"]

Floats = npt.NDArray[np.float64]


@final
@dataclass(frozen=True)
class VariationalDropout(Rescaling):
    r"""Variational dropout with the log-uniform prior: :math:`\Omega(w) = \min_\eta \tfrac12 (sw)^2/\eta + K(\eta)`.

    K is the Kullback-Leibler divergence of the multiplicative Gaussian noise of variance :math:`1/\eta` from the
    prior, with :math:`K(0)=0`. With ``kl="exact"``,

    .. math:: K'(\eta) = \frac{D(\sqrt{\eta/2})}{2\sqrt{\eta/2}}, \qquad w^2 = 2\eta^2 K'(\eta), \quad \Omega'(w)=w/\eta

    for s = 1, D being Dawson's function. The slope at zero is s; :math:`\Omega` is concave with
    :math:`\Omega'' \ge -0.2216 s^2` (at 2.41/s), so that the curvature limit is 4.512/s^2; its tail is
    :math:`\log(sw) + 1.13518`.

    Parameters
    ----------
    scale : float, default 1
        s. With N data points and noise variance :math:`\sigma^2`, variational inference has
        :math:`s = \sqrt{N}/\sigma` and strength :math:`\sigma^2/N`: there is no free temperature.
    kl : {"exact", "fit"}, default "exact"
        The Dawson form, or the usual sigmoid fit with three constants (off by up to 0.0094; its slope rises to 1.012 s
        before it falls).

    References
    ----------
    Kingma, Salimans and Welling (2015); Molchanov, Ashukha and Vetrov (2017) for the fit; effective penalty:
    LeJeune, Javadi and Baraniuk (2021). Dawson form and limits: derived in docs/theory.md, sections 5.2 and 5.3.
    """

    scale: float = 1.0
    kl: Literal["exact", "fit"] = "exact"
    name: ClassVar[str] = "variational-dropout"

    def __post_init__(self) -> None:
        store_constant(self, "scale")
        if self.kl not in ("exact", "fit"):
            raise InvalidArgumentError(f"kl must be 'exact' or 'fit', got {self.kl!r}")

    @property
    def _unit(self) -> TabulatedPenalty:
        return _unit(self.kl)

    @property
    def _shape(self) -> tuple[float, float]:
        return 1 / self.scale, 1.0


@remembered
def _unit(kl: str) -> TabulatedPenalty:
    magnitude = _exact if kl == "exact" else _fitted

    def slope(w: Floats) -> Floats:
        eta: Floats = np.exp(_solve(magnitude, np.log(w)))
        return w / eta

    return TabulatedPenalty(slope, label="variational-dropout", slope_at_zero=1.0, powers=(0.0, -1.0))


def _exact(log_eta: Floats) -> tuple[Floats, Floats]:
    """log w and its derivative in log eta, from w^2 = sqrt(2) eta^(3/2) D(sqrt(eta/2))."""
    from scipy.special import dawsn

    x = np.exp(log_eta / 2) / np.sqrt(2)
    dawson = dawsn(x)
    log_w = (0.5 * np.log(2) + 1.5 * log_eta + np.log(dawson)) / 2
    return log_w, np.clip((1.5 + x * (1 - 2 * x * dawson) / (2 * dawson)) / 2, 0.5, 1.0)


# Constants of the fit -KL = k1 sigmoid(k2 + k3 log a) - log(1 + 1/a)/2 - k1, a = 1/eta.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695


def _fitted(log_eta: Floats) -> tuple[Floats, Floats]:
    """The same for the fit: w^2 = 2 eta^2 K' = 2 k1 k3 eta sigma (1 - sigma) + eta^2 / (1 + eta)."""
    from scipy.special import expit

    u = _K2 - _K3 * log_eta
    bump = 2 * _K1 * _K3 * expit(u) * expit(-u)
    share = expit(log_eta)
    total = bump + share  # w^2 / eta
    change = -_K3 * bump * (expit(-u) - expit(u)) + share * (1 - share)
    return (log_eta + np.log(total)) / 2, (1 + change / total) / 2


def _solve(magnitude: Callable[[Floats], tuple[Floats, Floats]], log_w: Floats) -> Floats:
    """log eta with log w(eta) = log_w; w(eta) lies between eta and sqrt(eta), up to a few percent."""
    lower, upper = np.minimum(log_w, 2 * log_w) - 0.1, np.maximum(log_w, 2 * log_w) + 2.0
    x = np.where(log_w < 0, log_w, 2 * log_w)
    for _ in range(60):
        value, gradient = magnitude(x)
        excess = value - log_w
        lower, upper = np.where(excess < 0, x, lower), np.where(excess > 0, x, upper)
        newton = x - excess / gradient
        following = np.where((newton >= lower) & (newton <= upper), newton, (lower + upper) / 2)
        if np.abs(following - x).max() <= 1e-9:
            return following
        x = following
    return x
