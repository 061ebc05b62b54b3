"""Stored models: a round trip changes no bit, and what is not such a file is refused in one line."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file

from obverse._core.files import unsealed, write_sealed
from obverse.errors import DamagedFileError, InvalidArgumentError, StateError
from obverse.linear import SparseClassifier, SparseRegressor
from obverse.linear._encoding import Encoding
from obverse.linear._model import LinearModel, linear_model
from obverse.linear._model_file import FORMAT, load_model, save_model
from obverse.linear._table import table_of
from obverse.penalties import MCP, Penalty

ROWS, FEATURES = 80, 6


def data(dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ROWS, FEATURES)).astype(dtype)
    return X, (X @ np.array([2.0, -1.0, 0, 0, 0.5, 0]) + 0.1 * rng.normal(size=ROWS) + 3).astype(dtype)


def regressor(name: str) -> tuple[Any, Any]:
    """A fitted estimator, and its data."""
    X, y = data()
    X32, y32 = data(np.float32)
    counts = np.random.default_rng(1).poisson(np.exp(0.3 * X[:, 0] + 0.2))
    two = np.column_stack([y, -y + X[:, 2]])
    estimator, A, b = {
        "squared": (SparseRegressor("mcp", 0.05), X, y),
        "float32": (SparseRegressor("log-sum", 0.05), X32, y32),
        "huber": (SparseRegressor("lasso", 0.05, loss="huber"), X, y),
        "poisson": (SparseRegressor("lasso", 0.01, loss="poisson"), X, counts),
        "outputs": (SparseRegressor("lasso", 0.05), X, two),
        "sparse": (SparseRegressor("lasso", 0.05, fit_intercept=False), sp.csr_array(X), y),
        "nothing": (SparseRegressor("lasso", 1e6), X, y),
    }[name]
    return estimator.fit(A, b), A


def classifier(name: str) -> tuple[Any, Any]:
    """A fitted estimator, and its data; the classes overlap, so that there is a solution."""
    X, y = data()
    y = y + 2 * np.random.default_rng(2).normal(size=ROWS)
    labels = {
        "text": np.where(y > 3, "yes", "no"),
        "whole": np.where(y > 3, 7, -2),
        "truth": y > 3,
        "objects": np.where(y > 3, "yes", "no").astype(object),
        "three": np.digitize(y, [2, 4]) + 10,
    }[name]
    return SparseClassifier("mcp", 0.02).fit(X, labels), X


@pytest.mark.parametrize("name", ["squared", "float32", "huber", "poisson", "outputs", "sparse", "nothing"])
def test_a_regressor_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    estimator, X = regressor(name)
    path = save_model(estimator, tmp_path / "folder" / "model.safetensors")
    model = load_model(path)
    expected = estimator.predict(X)
    for known in (model, linear_model(estimator)):
        predicted = known.predict(X)
        assert predicted.dtype == expected.dtype
        np.testing.assert_array_equal(predicted, expected)
    assert model.task == "regression"
    assert model.n_features_in == FEATURES
    assert model.alpha == estimator.alpha_
    with pytest.raises(StateError, match="no classes"):
        model.predict_proba(X)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["text", "whole", "truth", "objects", "three"])
def test_a_classifier_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    estimator, X = classifier(name)
    model = load_model(save_model(estimator, tmp_path / "model.safetensors"))
    predicted = model.predict(X)
    assert predicted.dtype == estimator.predict(X).dtype
    np.testing.assert_array_equal(predicted, estimator.predict(X))
    np.testing.assert_array_equal(model.predict_proba(X), estimator.predict_proba(X))
    np.testing.assert_array_equal(model.decision_function(X), estimator.decision_function(X))
    np.testing.assert_array_equal(model.classes, estimator.classes_)


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    X, y = data()
    estimator = SparseRegressor("mcp", 0.05).fit(X, y)
    files = {save_model(estimator, tmp_path / f"{i}.safetensors").read_bytes() for i in range(10)}
    assert len(files) == 1


def test_what_the_model_says_of_itself(tmp_path: Path) -> None:
    X, y = data()
    estimator = SparseRegressor(MCP(kappa=1.5), 0.05).fit(X, y)
    summary = {"errors": np.array([1.0, np.nan]), "folds": 5, "name": "é"}
    model = load_model(save_model(estimator, tmp_path / "m.safetensors", target="price", summary=summary))
    assert model.penalty == {"name": "mcp", "parameters": {"kappa": 1.5}, "width": "fixed"}
    assert model.loss == "squared"
    assert model.target == "price"
    assert model.summary == {"errors": [1.0, None], "folds": 5, "name": "é"}
    np.testing.assert_array_equal(model.selected, np.flatnonzero(estimator.coef_))
    again = load_model(save_model(model, tmp_path / "again.safetensors"))
    assert again.summary == model.summary
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


@dataclass(frozen=True)
class Rooted(Penalty):
    """A penalty of the user's own."""

    scale: float = 1.0

    def _value(self, w: Any, xp: Any) -> Any:
        return xp.log1p(w / self.scale)

    def _slope(self, w: Any, xp: Any) -> Any:
        return 1 / (w + self.scale)


def test_a_penalty_of_ones_own_goes_by_its_class(tmp_path: Path) -> None:
    X, y = data()
    estimator = SparseRegressor(Rooted(2.0), 0.05).fit(X, y)
    model = load_model(save_model(estimator, tmp_path / "m.safetensors"))
    assert model.penalty["name"] == "Rooted"
    assert model.penalty["parameters"] == {"scale": 2.0}
    np.testing.assert_array_equal(model.predict(X), estimator.predict(X))


def test_columns_of_a_table(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    X, y = data()
    cities = np.array(["Rome", "Oslo", "Lima"])[np.arange(ROWS) % 3]
    arrow = pa.table({"city": cities, **{f"x{j}": X[:, j] for j in range(FEATURES)}})
    table = table_of(arrow, "t")
    encoding = Encoding.of(table, list(table.columns))
    features = encoding.encode(table).X
    estimator = SparseRegressor("mcp", 0.1).fit(features, y + 2 * (cities == "Oslo"))
    model = load_model(save_model(estimator, tmp_path / "m.safetensors", encoding=encoding))
    assert model.encoding == encoding
    assert model.feature_names == ("city=Lima", "city=Oslo", "city=Rome", *(f"x{j}" for j in range(FEATURES)))
    expected = estimator.predict(features)
    for given in (features, table, arrow, arrow.to_pandas(), arrow.select(["x4", "x1", "city", "x0"])):
        np.testing.assert_allclose(model.predict(given), expected, rtol=1e-12)
    with pytest.raises(InvalidArgumentError, match="lacks the column 'x1'"):
        model.predict(arrow.drop_columns(["x1"]))
    strange = arrow.set_column(0, "city", pa.array(["Bonn"] * ROWS))
    with pytest.warns(UserWarning, match=r"'city' has categories that training did not have, such as 'Bonn', in 80"):
        model.predict(strange)
    with pytest.raises(InvalidArgumentError, match="X has 3 features, and the model was fitted with 9"):
        model.predict(X[:, :3])


def test_names_of_a_frame(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    estimator = SparseRegressor("mcp", 0.05).fit(frame, y)
    model = load_model(save_model(estimator, tmp_path / "m.safetensors"))
    assert model.feature_names == tuple("abcdef")
    np.testing.assert_array_equal(model.predict(frame[list("fedcba")]), estimator.predict(frame))
    with pytest.raises(InvalidArgumentError, match="X lacks the features 'b', 'd'"):
        model.predict(frame[list("acef")])
    with pytest.raises(StateError, match="fitted on an array"):
        model.encode(frame)


# ---------------------------------------------------------------------------------------------- what is refused
def stored(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A good file, its tensors, and its metadata."""
    X, y = data()
    estimator = SparseRegressor("mcp", 0.05).fit(X, y)
    path = save_model(estimator, tmp_path / "good.safetensors")
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return path, {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def seal(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """Write a file whose content is wrong, and whose digest is right."""
    blank = {name: re.sub("[0-9a-f]{64}", "0" * 64, text) for name, text in metadata.items()}
    write_sealed(path, lambda file: save_file(tensors, file, blank))


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no such model file"):
        load_model(tmp_path / "none.safetensors")
    path = tmp_path / "bad.safetensors"
    good, tensors, _ = stored(tmp_path)
    content = good.read_bytes()
    for wrong in (b"", b"hello", content[:-8], content[:20], pickle.dumps({"coef": 1}), b"\xff" * 100):
        path.write_bytes(wrong)
        with pytest.raises(InvalidArgumentError, match="cannot read"):
            load_model(path)
    save_file(tensors, path)
    with pytest.raises(InvalidArgumentError, match="not a linear model of Obverse"):
        load_model(path)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InvalidArgumentError, match="not a linear model of Obverse"):
        load_model(path)


def test_damage_is_refused_in_one_line(tmp_path: Path) -> None:
    """Any flipped bit, and any cut: the numbers of a model are those that were written, or there is no model."""
    path, _, _ = stored(tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    bad = tmp_path / "bad.safetensors"
    for trial in range(300):
        spoilt = bytearray(content)
        if trial % 5:
            spoilt[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        else:
            del spoilt[int(rng.integers(len(content))) :]
        bad.write_bytes(spoilt)
        with pytest.raises(InvalidArgumentError, match=r"is damaged|cannot read|is not a linear model") as caught:
            load_model(bad)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000


def test_numbers_that_were_changed_are_damage(tmp_path: Path) -> None:
    path, _, _ = stored(tmp_path)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="does not match its digest"):
        load_model(path)
    estimator, _ = regressor("squared")
    file = tmp_path / "old.safetensors"
    save_file({"coef": estimator.coef_, "intercept": np.zeros(())}, file, {FORMAT: "{}"})
    with pytest.raises(DamagedFileError, match="has no digest"):
        load_model(file)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path, tensors, metadata = stored(tmp_path)
    about = json.loads(metadata[FORMAT])
    seal(tensors, path, {FORMAT: json.dumps({**about, "version": 2})})
    with pytest.raises(InvalidArgumentError, match="version 2 of the format, and this Obverse reads 1"):
        load_model(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "classification"},
        {"task": None},
        {"loss": "hinge"},
        {"loss": ["squared"]},
        {"classes": {"dtype": "object", "labels": [1, {}]}},
        {"classes": {"dtype": "V8", "labels": [1, 2]}},
        {"classes": {"dtype": "int64", "labels": [1, 2]}},
        {"classes": [1]},
        {"features": ["a"]},
        {"features": 5},
        {"encoding": {"codes": [], "missing": "error"}},
        {"encoding": "x"},
        {"penalty": None},
        {"summary": []},
        {"alpha": "strong"},
    ],
    ids=str,
)
def test_spoilt_descriptions_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path, tensors, metadata = stored(tmp_path)
    about = json.loads(metadata[FORMAT])
    seal(tensors, path, {FORMAT: json.dumps({**about, **changes})})
    with pytest.raises(InvalidArgumentError, match="is broken"):
        load_model(path)
    for field in changes:
        seal(tensors, path, {FORMAT: json.dumps({k: v for k, v in about.items() if k != field})})
        with pytest.raises(InvalidArgumentError, match="is broken"):
            load_model(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000], ids=lambda text: text[:5] or "empty")
def test_spoilt_json_is_refused(text: str, tmp_path: Path) -> None:
    path, tensors, _ = stored(tmp_path)
    seal(tensors, path, {FORMAT: text, **unsealed()})
    with pytest.raises(InvalidArgumentError, match="is broken"):
        load_model(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"coef": np.ones(FEATURES)},
        {"coef": np.full(FEATURES, np.nan), "intercept": np.zeros(())},
        {"coef": np.ones((2, 3, 1)), "intercept": np.zeros(())},
        {"coef": np.ones(FEATURES, dtype=np.int64), "intercept": np.zeros(())},
        {"coef": np.ones(FEATURES), "intercept": np.zeros(3)},
    ],
)
def test_spoilt_tensors_are_refused(tensors: dict[str, Any], tmp_path: Path) -> None:
    path, _, metadata = stored(tmp_path)
    seal(tensors, path, metadata)
    with pytest.raises(InvalidArgumentError, match=r"is broken|cannot read"):
        load_model(path)


def test_what_is_not_fitted_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="SparseRegressor is not a fitted linear model"):
        save_model(SparseRegressor(), tmp_path / "m.safetensors")
    broken = SimpleNamespace(coef_=np.array([np.inf]), intercept_=0.0)
    with pytest.raises(InvalidArgumentError, match="finite"):
        save_model(broken, tmp_path / "m.safetensors")
    assert not any(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, _ = stored(tmp_path)
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    model = LinearModel("regression", "squared", np.ones(2), 0.0)
    with pytest.raises(OSError, match="No space"):
        save_model(model, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["good.safetensors"]
