"""Three solvers of one sparse regression: coordinate descent, iterated ridge and dropout reach the same point.

    python examples/linear_faces.py [linear_faces.png]

Fits the diabetes data of scikit-learn with the log-sum penalty and draws how far each is from the solution.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_diabetes

from obverse.linear import sparse_path
from obverse.linear._masked import masked_solution
from obverse.linear._reweighted import ReweightedProblem
from obverse.linear._terms import Terms
from obverse.penalties import LogSum

mpl.use("Agg")
import matplotlib.pyplot as plt

PENALTY, ALPHA = LogSum(1.0), 0.05
TOLERANCE, PASSES, EPOCHS = 1e-10, 120, 1000
STYLES = {
    "coordinate descent": ("#0b6e4f", "-", "passes"),
    "reweighted": ("#1f4e9e", "-", "ridge problems"),
    "dropout": ("#c2410c", "-", "epochs"),
    "dropout, no control": ("#c2410c", ":", "epochs"),
}


def data() -> tuple[np.ndarray, np.ndarray]:
    """442 patients, 10 features; all in units of their standard deviation."""
    X, y = load_diabetes(return_X_y=True)
    return X / X.std(axis=0), (y - y.mean()) / y.std()


def coordinate_descent(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The proximal face without the Newton steps that the library takes besides: coefficients after every pass."""
    X = X - X.mean(axis=0)
    gram, product = X.T @ X / len(y), X.T @ y / len(y)
    w = w.copy()
    points = [w.copy()]
    for _ in range(PASSES):
        for j in range(w.size):
            z = w[j] + (product[j] - gram[j] @ w) / gram[j, j]
            w[j] = PENALTY.prox(z, ALPHA / gram[j, j])
        points.append(w.copy())
    return np.array(points)


def trajectories(X: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients of every face, from one ridge solution on."""
    weights = np.full(len(y), 1 / len(y))
    terms = Terms(PENALTY, np.ones(X.shape[1]), tol=TOLERANCE, max_iter=EPOCHS)
    problem = ReweightedProblem("squared", X, y, weights, fit_intercept=True)
    [reweighted] = problem.solve(terms, np.array([ALPHA]), newton=False, keep_coefs=True)
    masked = [
        masked_solution(X, y, weights, terms, ALPHA, seed=0, gradient=gradient, keep_coefs=True).coefs
        for gradient in ("controlled", "sampled")
    ]
    return dict(zip(STYLES, (coordinate_descent(X, y, reweighted.coefs[0]), reweighted.coefs, *masked), strict=True))


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "linear_faces.png")
    X, y = data()
    solution = sparse_path(X, y, PENALTY, alphas=[ALPHA], tol=1e-12).coef(0)
    figure, axis = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    print(f"{'face':<20} {'coefficients that are not zero':<32} {'steps':>20} {'distance':>9}")
    for face, points in trajectories(X, y).items():
        color, line, unit = STYLES[face]
        distance = np.linalg.norm(points - solution, axis=1) / np.linalg.norm(solution)
        steps = np.arange(len(points))
        # A distance of rounding is drawn at the edge.
        shown = int(np.argmax(distance < TOLERANCE)) + 1 if (distance < TOLERANCE).any() else len(points)
        axis.plot(steps[1:shown], distance[1:shown], line, color=color, linewidth=1.6, label=f"{face} ({unit})")
        support = " ".join(str(j) for j in np.flatnonzero(points[-1]))
        print(f"{face:<20} {support:<32} {f'{shown - 1} {unit}':>20} {distance[-1]:>9.1e}")
    axis.set(xscale="log", yscale="log", xlim=(1, EPOCHS), ylim=(TOLERANCE / 3, 3))
    axis.set(xlabel="steps so far", ylabel="relative distance to the solution")
    axis.set_title("Three faces of the log-sum penalty, diabetes data", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    axis.legend(frameon=False, loc="lower left")
    figure.savefig(target, dpi=150)
    plt.close(figure)
    print(f"figure: {target}")


if __name__ == "__main__":
    main()
