"""The page of a run: whatever the record holds, one valid, self-contained, escaped document."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_document import Document, contrast

from obverse.errors import FileWriteError, InvalidArgumentError
from obverse.report import write_report
from obverse.report._scales import Linear, Logarithmic

LIMIT = 400_000


def run(seed: int = 0, epochs: int = 5, layers: int = 3, classes: int = 4) -> dict[str, Any]:
    steps = 10 * epochs

    def phase(step: int) -> str:
        return ["warmup", "ramp", "hold", "finetune"][min(4 * step // steps, 3)]

    return {
        "seed": seed,
        "history": [
            {
                "epoch": e + 1,
                "step": 10 * (e + 1),
                "train_loss": 2.0 / (e + 1),
                "train_accuracy": 1 - 0.5 / (e + 1),
                "validation_loss": 2.1 / (e + 1),
                "validation_error": 0.5 / (e + 1),
                "sparsity": 0.9 * e / epochs,
                "strength": 1e-4 * (e + 1),
                "learning_rate": 1e-3,
                "phase": phase(10 * e),
            }
            for e in range(epochs)
        ],
        "trajectory": [
            {
                "step": s,
                "target": 0.9 * s / steps,
                "sparsity": 0.89 * s / steps,
                "strength": 1e-5 * s,
                "phase": phase(s),
            }
            for s in range(steps)
        ],
        "layers": [
            {
                "name": f"body.{i}.weight",
                "shape": [20, 50],
                "weights": 1000,
                "nonzero": 100 + i,
                "sparsity": 0.9 - i / 1000,
            }
            for i in range(layers)
        ],
        "weights_histogram": {
            "edges": np.geomspace(1e-3, 1, 21).tolist(),
            "counts": [(7 * i * i) % 50 for i in range(20)],
        },
        "test": {
            "error": 0.1 + 0.01 * seed,
            "loss": 0.4,
            "confusion": [[25 if i == j else (i + j) % 3 for j in range(classes)] for i in range(classes)],
        },
        "validation": {"error": 0.12},
        "size": {"dense_bytes": 12_000, "nonzero": 303, "bitmask_bytes": 1_587},
        "seconds": 12.5,
    }


def record(seeds: int = 2, **options: int) -> dict[str, Any]:
    return {
        "obverse": "0.1.0",
        "command": "obverse train recipe.yaml",
        "recipe": {"penalty": {"name": "log-sum", "epsilon": 0.1}, "seeds": list(range(seeds)), "note": None},
        "versions": {"python": "3.12.1", "torch": "2.6.0", "numpy": "2.2.0", "obverse": "0.1.0"},
        "data": {
            "name": "digits",
            "classes": [f"class {i}" for i in range(options.get("classes", 4))],
            "train": 1000,
            "validation": 200,
            "test": 400,
            "input_shape": [1, 8, 8],
        },
        "model": {"name": "mlp", "parameters": 3_080, "weights": 3_000},
        "penalty": {"name": "log-sum", "parameters": {"epsilon": 0.1}},
        "runs": [run(seed, **options) for seed in range(seeds)],
        "summary": {
            "test_error": {"mean": 0.1234, "interval": [0.1111, 0.1357]},
            "sparsity": {"mean": 0.899},
            "compression": 7.56,
        },
    }


def written(metrics: Any, tmp_path: Path) -> tuple[str, Document]:
    path = write_report(metrics, tmp_path / "page.html")
    page = path.read_text("utf-8")
    assert len(page.encode()) < LIMIT
    document = Document(page)
    assert len(document.ids) == len(set(document.ids))
    assert document.tags.count("h1") == 1
    for tag, name, value in document.attributes:
        assert name not in ("src", "href", "srcset", "xlink:href", "action"), f"<{tag}> loads {value}"
        assert not name.startswith("on"), f"<{tag}> runs {value}"
        assert "nan" not in value.lower().split(), f"<{tag} {name}> is not a number"
        if tag == "svg" and name == "class" and "plot" in value:
            assert value in ("plot", "plot two")
    named = {value for _, name, value in document.attributes if name == "aria-labelledby"}
    assert named <= set(document.ids)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return page, document


def test_headline_and_every_section(tmp_path: Path) -> None:
    page, document = written(record(), tmp_path)
    for words in (
        "mlp on digits",
        "12.3%",
        "11.1% to 13.6%",
        "89.9%",
        "7.56\N{MULTIPLICATION SIGN}",
        "1.59\xa0kB",
        "12.0\xa0kB",
    ):
        assert words.replace("\xa0", " ") in document.text.replace("\xa0", " ")
    for section in (
        "figures",
        "training",
        "budget",
        "layers",
        "survivors",
        "faces",
        "confusion",
        "seeds",
        "provenance",
    ):
        assert section in document.ids
    assert "neither shrink it nor make it faster" in document.text
    assert "keep probability" in document.text
    assert "epsilon: 0.1" in page
    charts = [v for t, n, v in document.attributes if t == "svg" and n == "aria-label"]
    assert len(charts) == 7
    assert all(len(words) > 30 for words in charts)


def test_the_sentence_says_the_figures(tmp_path: Path) -> None:
    _, document = written(record(), tmp_path)
    assert (
        "Trained on digits with the log-sum penalty, mlp keeps 10.1% of its 3,000 regularized weights, errs "
        "on 12.3% of the test set (mean of 2 seeds) and needs 1.59 kB instead of 12.0 kB"
    ) in document.text.replace("\xa0", " ")


def test_same_record_same_bytes(tmp_path: Path) -> None:
    first = write_report(record(), tmp_path / "a.html").read_bytes()
    assert write_report(copy.deepcopy(record()), tmp_path / "b" / "c.html").read_bytes() == first


def test_input_is_not_changed(tmp_path: Path) -> None:
    metrics = record()
    before = copy.deepcopy(metrics)
    write_report(metrics, tmp_path / "page.html")
    assert metrics == before


@pytest.mark.parametrize(
    "attack",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>", "{{ 7*7 }}"],
)
def test_text_of_the_run_is_escaped(attack: str, tmp_path: Path) -> None:
    metrics = record()
    metrics["command"] = metrics["obverse"] = attack
    metrics["recipe"] = {attack: [attack]}
    metrics["versions"] = {attack: attack}
    metrics["data"]["name"] = metrics["model"]["name"] = attack
    metrics["data"]["classes"] = [attack] * 4
    metrics["penalty"] = {"name": attack, "parameters": {attack: attack}}
    for one in metrics["runs"]:
        one["seed"] = attack
        for layer in one["layers"]:
            layer["name"] = attack
            layer["shape"] = [attack]
        for point in one["trajectory"]:
            point["phase"] = attack[:20]
    page, document = written(metrics, tmp_path)
    clean = Document(write_report(record(), tmp_path / "clean.html").read_text("utf-8"))
    assert document.tags.count("script") == clean.tags.count("script") == 1
    assert "img" not in document.tags
    assert "b" not in document.tags
    assert attack in document.text
    if "<" in attack:
        assert attack not in page


def prune(metrics: Any, path: str) -> Any:
    """The record with every field of that name set to null."""
    if isinstance(metrics, dict):
        return {k: None if k == path else prune(v, path) for k, v in metrics.items()}
    return [prune(item, path) for item in metrics] if isinstance(metrics, list) else metrics


def names(metrics: Any) -> set[str]:
    if isinstance(metrics, dict):
        return set(metrics) | {name for value in metrics.values() for name in names(value)}
    return {name for item in metrics for name in names(item)} if isinstance(metrics, list) else set()


@pytest.mark.parametrize("field", sorted(names(record())))
def test_any_field_may_be_null(field: str, tmp_path: Path) -> None:
    written(prune(record(), field), tmp_path)


@pytest.mark.parametrize("wrong", ["text", 3, [], {}, [None], [[1, 2], [3]], True, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "field",
    [
        "runs",
        "history",
        "trajectory",
        "layers",
        "edges",
        "counts",
        "confusion",
        "shape",
        "classes",
        "interval",
        "parameters",
        "recipe",
        "weights",
        "strength",
    ],
)
def test_fields_of_a_wrong_shape_are_left_out(field: str, wrong: Any, tmp_path: Path) -> None:
    def spoil(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: wrong if k == field else spoil(v) for k, v in part.items()}
        return [spoil(item) for item in part] if isinstance(part, list) else part

    written(spoil(record()), tmp_path)


@pytest.mark.parametrize(
    "metrics", [{}, {"runs": []}, {"runs": [{}]}, {"runs": [{"history": [{}], "trajectory": [{}]}]}]
)
def test_almost_nothing(metrics: dict[str, Any], tmp_path: Path) -> None:
    _, document = written(metrics, tmp_path)
    assert "no results on record" in document.text


@pytest.mark.parametrize("seeds", [1, 2, 60])
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("layers", [1, 60])
@pytest.mark.parametrize("classes", [2, 20])
def test_small_and_large(seeds: int, epochs: int, layers: int, classes: int, tmp_path: Path) -> None:
    _, document = written(record(seeds, epochs=epochs, layers=layers, classes=classes), tmp_path)
    assert "confusion" in document.ids
    assert "interval 11.1% to 13.6%" in document.text


def test_very_large_stays_small(tmp_path: Path) -> None:
    metrics = record(110, layers=180, epochs=20)
    long = [
        {"step": s, "target": s / 2e4, "sparsity": s / 2e4, "strength": 1e-6 * s, "phase": "ramp"}
        for s in range(20_000)
    ]
    metrics["runs"][0]["trajectory"] = long
    metrics["runs"][1]["trajectory"] = long
    metrics["recipe"] = {f"key {i}": "x" * 50 for i in range(10_000)}
    _, document = written(metrics, tmp_path)
    assert "20 further layers" in document.text
    assert "10 further seeds" in document.text


def test_many_classes_have_no_confusion_matrix(tmp_path: Path) -> None:
    _, document = written(record(1, classes=21), tmp_path)
    assert "confusion" not in document.ids
    assert "21 classes" in document.text


@pytest.mark.parametrize("strength", [0, math.inf, "inf", None, 1e-12, 1e12])
def test_fixed_strength_without_target(strength: Any, tmp_path: Path) -> None:
    metrics = record(1)
    for point in [*metrics["runs"][0]["trajectory"], *metrics["runs"][0]["history"]]:
        point.update(target=None, strength=strength, phase="train")
    _, document = written(metrics, tmp_path)
    assert "There was no target" in document.text
    positive = isinstance(strength, float) and strength < math.inf
    assert ("no dropout to show" in document.text) != positive


@pytest.mark.parametrize("name", ["lasso", "mcp", "ridge", "l0.5", "log2-sum"])
def test_faces_of_the_catalogue(name: str, tmp_path: Path) -> None:
    metrics = record(1)
    metrics["penalty"] = {"name": name, "parameters": {}}
    _, document = written(metrics, tmp_path)
    assert "Heads: the penalty" in document.text
    assert "Tails: the dropout" in document.text


@pytest.mark.parametrize("parameters", [{}, {"gamma": 2.0}])
def test_a_rule_of_ones_own_has_no_faces(parameters: dict[str, float], tmp_path: Path) -> None:
    metrics = record(1)
    metrics["penalty"] = {"name": "my-own-rule", "parameters": parameters}
    _, document = written(metrics, tmp_path)
    assert "my-own-rule is not in the catalogue" in document.text
    assert "Tails" not in document.text


def test_numpy_values_and_paths_are_understood(tmp_path: Path) -> None:
    metrics = record(1)
    metrics["summary"]["test_error"] = {"mean": np.float32(0.25), "interval": np.array([0.2, 0.3])}
    metrics["model"]["weights"] = np.int64(3000)
    metrics["recipe"] = {"output": tmp_path, "shape": (1, 2)}
    _, document = written(metrics, tmp_path)
    assert "25.0%" in document.text
    assert "interval 20.0% to 30.0%" in document.text
    assert str(tmp_path) in document.text


def test_a_half_width_is_an_interval_too(tmp_path: Path) -> None:
    metrics = record(2)
    metrics["summary"]["test_error"] = {"mean": 0.2, "interval": 0.05}
    assert "interval 15.0% to 25.0%" in written(metrics, tmp_path)[1].text


@pytest.mark.parametrize("wrong", [None, [], "metrics.json"])
def test_only_a_mapping_is_a_record(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="mapping"):
        write_report(wrong, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_json_round_trip_makes_no_difference(tmp_path: Path) -> None:
    again = json.loads(json.dumps(record()))
    first = write_report(record(), tmp_path / "a.html").read_bytes()
    assert write_report(again, tmp_path / "b.html").read_bytes() == first


def test_colors_are_readable(tmp_path: Path) -> None:
    page, _ = written(record(1), tmp_path)
    themes = re.findall(r":root \{(.*?)\}", page, re.S)
    assert len(themes) == 3
    light = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", themes[0]))
    dark = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b", themes[1]))
    for theme in (light, dark):
        for ground in ("paper", "card", "code"):
            assert contrast(theme["ink"], theme[ground]) >= 7
            assert contrast(theme["soft"], theme[ground]) >= 4.5
        for color in ("heads", "tails"):
            assert contrast(theme[color], theme["card"]) >= 4.5
        assert contrast(theme["quiet"], theme["card"]) >= 3


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(width: int, tmp_path: Path) -> None:
    metrics = record(3, layers=12, classes=20)
    metrics["model"]["name"] = "a-name-without-any-place-to-break-" * 3
    metrics["command"] = "obverse train " + "x" * 300
    page = write_report(metrics, tmp_path / "page.html").read_text("utf-8")
    # A browser's own window has a least width; a frame has none.
    measure = "<script>parent.document.title=document.documentElement.scrollWidth</script></body>"
    quoted = page.replace("</body>", measure).replace("&", "&amp;").replace('"', "&quot;")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe srcdoc="{quoted}" style="width:{width}px;height:900px;border:0"></iframe>', "utf-8")
    command = [
        str(CHROMIUM),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    ]
    command += [
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,1000",
        "--dump-dom",
    ]
    shown = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<title>(\d+)</title>", shown)
    assert found is not None
    assert int(found.group(1)) <= width


def test_a_command_that_is_no_utf_8_is_shown_with_escapes(tmp_path: Path) -> None:
    path = write_report({"command": "obverse sparsify --out d\udcff", "runs": [run()]}, tmp_path / "r.html")
    assert "d\\udcff" in path.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.html").write_text("old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileWriteError, match="No space left on device"):
        write_report({"runs": [run()]}, tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "old"


@pytest.mark.parametrize(
    "values", [[1e-300, 1e300], [5e-324, 1.7e308], [-1.7e308, 1.7e308], [0.0, 1e-300], [1e300], [-1e308, 0.0]]
)
def test_axes_hold_the_smallest_and_the_largest_numbers(values: list[float]) -> None:
    for scale in (Linear.around(values), Linear.counting(values), Logarithmic.around(values)):
        if scale is None:
            continue
        places = [scale(value) for value in values]
        assert all(place is None or math.isfinite(place) for place in places)
        assert all(math.isfinite(tick) for tick in scale.ticks())
