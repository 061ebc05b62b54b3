"""Where the exponents of adaptive regularization come from: exact risks of smoothers beside what the theory says.

    python examples/heteroskedastic_theory.py [heteroskedastic_theory.png]

A smoothing spline of order m minimizes the mean loss plus the mean of ``tau_i |D^m f(x_i)|^2``. It is linear in the
data (for a likelihood, after one linearization), so its bias and variance are computed, not sampled: on the interval by
a tridiagonal solve, on the torus by Fourier series. The first panel has the error against the strength in one case, the
next two the best strength in one half of the interval, or on the torus, against its noise and density, with lines for
the theory; the last what adaptive strengths gain over one strength in five cases, beside what
`obverse.imbalance.predicted_gain` says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from obverse.imbalance import predicted_gain, strength_exponents

Array = NDArray[np.float64]
CELLS, SAMPLES = 3000, 20_000
NOISES, DENSITIES = (0.05, 0.1, 0.2, 0.4), (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Region:
    """Half of the interval: density of the inputs, standard deviation of the noise, waves of the target."""

    density: float
    deviation: float
    waves: int = 1

    @property
    def roughness(self) -> float:
        """Mean square of the second derivative."""
        return (4 * np.pi * self.waves) ** 4 / 2


Case = tuple[Region, Region]
CASES: dict[str, Case] = {
    "rare and noisy": (Region(1.8, 0.1), Region(0.2, 1.0)),
    "noisy only": (Region(1.0, 0.1), Region(1.0, 1.0)),
    "rare only": (Region(1.9, 1.0), Region(0.1, 1.0)),
    "frequent and clean oscillates": (Region(1.8, 0.1, 6), Region(0.2, 1.0)),
    "rare and noisy oscillates": (Region(1.8, 0.1), Region(0.2, 1.0, 6)),
}


def centers(cells: int = CELLS) -> Array:
    return (np.arange(cells) + 0.5) / cells


def by_half(first: float, second: float, cells: int = CELLS) -> Array:
    return np.where(centers(cells) < 0.5, first, second)


def target(case: Case, x: Array) -> Array:
    """Cosines whose slopes vanish at both ends and in the middle."""
    return np.where(x < 0.5, np.cos(4 * np.pi * case[0].waves * x), np.cos(4 * np.pi * case[1].waves * x))


def risk(wanted: Array, density: Array, curvature: Array, score: Array, tau: Array, samples: int = SAMPLES) -> Array:
    """Squared bias plus variance in every cell of [0, 1], shape (strengths, cells).

    ``curvature`` and ``score`` are the mean second derivative of the loss and the variance of its first, ``tau`` the
    strengths of a row, shape (strengths, cells). Solves ``(W + D' R D) f = W f* + noise`` with
    ``W = density curvature / cells`` and the squares of the inverse in one sweep each way, as for tridiagonal matrices.
    """
    cells = len(wanted)
    weight = density * curvature / cells
    noise = density * score / cells / samples
    rho = tau * density * cells
    link = 2 / (1 / rho[:, 1:] + 1 / rho[:, :-1])  # of neighboring cells
    zero = np.zeros_like(link[:, :1])
    below, above = np.concatenate([zero, link], 1).T, np.concatenate([link, zero], 1).T
    pull = weight * wanted

    def sweep(before: Array, order: range) -> tuple[list[Array], list[Array], list[Array]]:
        """What is left of the diagonal, the right-hand side and the squares when the cells before are eliminated."""
        pivots, sides, squares = [], [], []
        pivot = side = square = np.zeros(len(tau))
        ratio = np.zeros(len(tau))
        for cell in order:
            into = before[cell]
            # Eliminating the cell before leaves  into - into^2 / (pivot + into)  of the link to it.
            ratio = np.divide(into, pivot + into, out=np.zeros_like(into), where=into > 0)
            pivot = weight[cell] + ratio * pivot
            side = pull[cell] + ratio * side
            square = noise[cell] + ratio**2 * square
            pivots.append(pivot)
            sides.append(side)
            squares.append(square)
        return pivots, sides, squares

    left = [np.array(part) for part in sweep(below, range(cells))]
    right = [np.array(part)[::-1] for part in sweep(above, range(cells - 1, -1, -1))]
    own = [weight[:, None], pull[:, None], noise[:, None]]
    diagonal, side, square = (a + b - c for a, b, c in zip(left, right, own, strict=True))
    return ((side / diagonal - wanted[:, None]) ** 2 + square / diagonal**2).T


def best(log_strengths: Array, risks: Array) -> tuple[float, float]:
    """Logarithm of the best strength and least risk, by a parabola through the three lowest points of a grid."""
    place = int(np.clip(risks.argmin(), 1, len(risks) - 2))
    x, y = log_strengths[place - 1 : place + 2], np.log(risks[place - 1 : place + 2])
    a, b, c = np.polyfit(x - x[1], y, 2)
    return float(x[1] - b / (2 * a)), float(np.exp(c - b * b / (4 * a)))


def optimal_strength(region: Region, samples: int = SAMPLES) -> float:
    """The strength of a row for the squared loss that the theory has: ``sigma^0.8 (16 n q f''^2)^-0.4``."""
    return float(region.deviation**0.8 * (16 * samples * region.density * region.roughness) ** -0.4)


def swept(loss: str, samples: int = 1_000_000) -> tuple[Array, Array, float]:
    """Best strengths of the right half over noises and densities, shape (4, 3), exponents, and best over theory.

    For the squared loss the noise is the variance, for a likelihood the Fisher information.
    """
    cells = 1500
    x = centers(cells)
    wanted, inside = np.cos(4 * np.pi * x), (x > 0.6) & (x < 0.9)
    grid = np.linspace(-0.5, 0.5, 21)
    a, b = strength_exponents(loss)
    found, theory = np.empty((2, len(NOISES), len(DENSITIES)))
    for i, noise in enumerate(NOISES):
        for j, density in enumerate(DENSITIES):
            score = by_half(0.2, noise, cells)
            curvature = np.ones_like(x) if loss == "squared" else score
            theory[i, j] = noise**a * density**-b * (16 * samples * Region(1, 1).roughness) ** -0.4
            tau = np.where(x < 0.5, 1e-4, theory[i, j] * np.exp(grid)[:, None])
            risks = risk(wanted, by_half(2 - density, density, cells), curvature, score, tau, samples)
            found[i, j] = theory[i, j] * np.exp(best(grid, risks[:, inside].mean(1))[0])
    return found, exponents(found), float((found / theory).mean())


def torus(order: int, dimension: int) -> tuple[Array, Array]:
    """The same on the torus of a dimension, with a penalty of an order and a likelihood; the target is one cosine."""
    reach = 2000 if dimension == 1 else 250
    axis = np.arange(-reach, reach + 1) ** 2
    sums = axis if dimension == 1 else (axis[:, None] + axis).ravel()
    squares, times = np.unique(sums[sums <= reach**2], return_counts=True)
    eigenvalues = ((2 * np.pi) ** 2 * squares) ** order
    samples = 1e7
    found = np.empty((len(NOISES), len(DENSITIES)))
    grid = np.linspace(-20, 0, 161)
    shrunk = 1 / (1 + np.exp(grid)[:, None] * eigenvalues)  # strength over information
    variance = (times * shrunk**2).sum(1)
    bias = (1 - 1 / (1 + np.exp(grid) * (2 * np.pi) ** (2 * order))) ** 2 / 2
    for i, noise in enumerate(NOISES):
        for j, density in enumerate(DENSITIES):
            value, _ = best(grid, bias + variance / (samples * density * noise))
            found[i, j] = noise * np.exp(value)
    return found, exponents(found)


def exponents(found: Array) -> Array:
    """Powers of noise and density in the best strengths, by least squares of logarithms."""
    noise, density = np.meshgrid(np.log(NOISES), np.log(DENSITIES), indexing="ij")
    design = np.stack([np.ones(noise.size), noise.ravel(), density.ravel()], axis=1)
    return np.linalg.lstsq(design, np.log(found).ravel(), rcond=None)[0][1:]


RULES: dict[str, Callable[[Region], float]] = {
    "uniform": lambda region: 1.0,
    "density only": lambda region: region.density**-0.4,
    "noise only": lambda region: region.deviation**0.8,
    "noise and density": lambda region: region.deviation**0.8 * region.density**-0.4,
    "with curvature": optimal_strength,
}


def least_risk(case: Case, rule: Callable[[Region], float], samples: int = SAMPLES) -> float:
    """Mean squared error over the interval with the best coefficient of a rule."""
    x = centers()
    density = by_half(case[0].density, case[1].density)
    score = by_half(case[0].deviation ** 2, case[1].deviation ** 2)
    first, second = rule(case[0]), rule(case[1])
    optima = np.log([optimal_strength(case[0], samples) / first, optimal_strength(case[1], samples) / second])
    grid = np.linspace(optima.min() - 1.0, optima.max() + 1.0, 40)
    tau = np.exp(grid)[:, None] * by_half(first, second)
    risks = risk(target(case, x), density, np.ones_like(x), score, tau, samples).mean(1)
    return best(grid, risks)[1]


def exact_gains(case: Case, samples: int = SAMPLES) -> dict[str, float]:
    """Least risk of the uniform strength over that of every rule."""
    risks = {name: least_risk(case, rule, samples) for name, rule in RULES.items()}
    return {name: risks["uniform"] / value for name, value in risks.items()}


def predicted_gains(case: Case) -> dict[str, float]:
    """The same without solving anything."""
    found = predicted_gain(
        [region.deviation**2 for region in case],
        [region.density for region in case],
        curvature=[region.roughness for region in case],
        loss="squared",
    )
    values = (1.0, found.density_only, found.noise_only, found.adaptive, found.best)
    return dict(zip(RULES, values, strict=True))


def main() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    path = Path(sys.argv[1] if len(sys.argv) > 1 else "heteroskedastic_theory.png")
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained", width_ratios=(1, 1, 1, 1.6))
    squared, powers, ratio = swept("squared")
    print(f"best strength over that of the theory, mean of 12: {ratio:.3f}")
    print(f"{'smoother':<28} {'noise':>7} {'theory':>7} {'density':>8} {'theory':>7}")
    interval, interval_powers, _ = swept("cross-entropy")
    results = [
        ("interval, squared", squared, powers, strength_exponents("squared")),
        ("interval, likelihood", interval, interval_powers, strength_exponents()),
    ]
    for order, dimension in ((1, 1), (2, 1), (1, 2)):
        name = f"torus, m = {order}, d = {dimension}"
        results.append((name, *torus(order, dimension), strength_exponents(order=order, dimension=dimension)))
    for place, (name, found, fitted, (a, b)) in enumerate(results):
        print(f"{name:<28} {fitted[0]:>7.3f} {a:>7.3f} {fitted[1]:>8.3f} {-b:>7.3f}")
        color = f"C{place}"
        for axis, values, taus, power in (
            (axes[1], NOISES, found[:, 1], a),
            (axes[2], DENSITIES, found[1], -b),
        ):
            scaled = np.array(values) / values[0]
            marker = "o" if name.startswith("interval") else "s"
            axis.plot(values, taus / taus[0], marker, color=color, markersize=7 - place, mfc="none", label=name)
            axis.plot(values, scaled**power, color=color, linewidth=1)
    x = centers()
    case = CASES["frequent and clean oscillates"]
    for name, color in (("uniform", "tab:gray"), ("noise and density", "tab:orange")):
        first, second = (RULES[name](region) for region in case)
        grid = np.linspace(-20, -4, 60)
        density, score = (by_half(*pair) for pair in ((1.8, 0.2), (0.01, 1.0)))
        tau = np.exp(grid)[:, None] * by_half(first, second) / max(first, second)
        risks = risk(target(case, x), density, np.ones_like(x), score, tau)
        for part, style in ((x < 0.5, "--"), (x > 0.5, ":"), (x > -1, "-")):
            label = name if style == "-" else None
            axes[0].plot(np.exp(grid), risks[:, part].mean(1), style, color=color, label=label)
    axes[0].plot([], [], "--", color="0.3", label="left half")
    axes[0].plot([], [], ":", color="0.3", label="right half")
    axes[0].set(title="left oscillates, right is noisy", xlabel="largest strength", ylabel="mean squared error")
    axes[0].set(xscale="log", yscale="log")
    axes[1].set(title="best strength", xlabel="noise", xscale="log", yscale="log")
    axes[2].set(title="best strength", xlabel="density", xscale="log", yscale="log")
    axes[1].set_ylabel("relative to the first")
    for axis, values, ticks in ((axes[1], NOISES, (1, 2, 4)), (axes[2], DENSITIES, (0.5, 0.7, 1))):
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.set_yticks(ticks, [f"{value:g}" for value in ticks])
        axis.minorticks_off()
    print(f"{'gain over one strength':<30} {'':>9} " + " ".join(f"{name:>18}" for name in list(RULES)[1:]))
    for place, (name, case) in enumerate(CASES.items()):
        exact, predicted = exact_gains(case), predicted_gains(case)
        for kind, gains in (("exact", exact), ("predicted", predicted)):
            print(f"{name:<30} {kind:>9} " + " ".join(f"{gains[rule]:>18.2f}" for rule in list(RULES)[1:]))
        for shift, rule in enumerate(list(RULES)[1:]):
            height = place + 0.2 * (shift - 1.5)
            axes[3].barh(height, exact[rule], 0.17, color=f"C{shift}", label=rule if place == 0 else None)
            axes[3].plot([predicted[rule]] * 2, [height - 0.09, height + 0.09], color="black", linewidth=1.5)
    axes[3].set_yticks(range(len(CASES)), list(CASES))
    axes[3].invert_yaxis()
    axes[3].axvline(1.0, color="0.6", linewidth=1)
    axes[3].plot([], [], color="black", linewidth=1.5, label="predicted")
    axes[3].set(title="gain over one strength", xlabel="ratio of mean squared errors")
    axes[3].legend(frameon=False, fontsize="small", loc="upper right")
    axes[0].legend(frameon=False, fontsize="x-small", loc="upper left", ncols=2)
    axes[0].set_ylim(top=20)
    axes[1].legend(frameon=False, fontsize="x-small")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"figure: {path}")


if __name__ == "__main__":
    main()
