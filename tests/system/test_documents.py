"""What the documents say runs: code blocks of the guides, the examples, the benchmarks' entry points."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)


GUIDES = ["sparsify", "compare-command", "linear", "dropout", "long-tail", "labels", "compact"]


@pytest.mark.parametrize("document", [f"docs/{name}.md" for name in GUIDES])
def test_the_code_of_a_guide_runs_from_top_to_bottom(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks(document):
        exec(compile(block, document, "exec"), scope)


def test_the_code_of_the_readme_runs() -> None:
    import torch
    from torch import nn

    model = nn.Linear(64, 32)
    scope: dict[str, object] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "criterion": nn.CrossEntropyLoss(),
        "loader": [(torch.randn(4, 64), torch.zeros(4, dtype=torch.long))] * 20,
        "steps": 20,
    }
    for block in blocks("README.md"):
        exec(compile(block, "README.md", "exec"), scope)
    assert abs(float((model.weight == 0).float().mean()) - 0.95) < 0.1


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for found in LINK.finditer(prose):
        link = found.group(1) or found.group(2)
        if "://" not in link:
            assert (path.parent / link).exists(), f"{document} links to {link}"


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "benchmarks").glob("*.py")))
def test_every_benchmark_explains_itself(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "benchmarks" / script
    # Its own packages, not what tests of the same name have imported, and the other way round afterwards.
    own = {folder.name for folder in path.parent.iterdir() if (folder / "__init__.py").exists()}
    others = {name: module for name, module in sys.modules.items() if name.split(".")[0] in own}
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        for name in others:
            del sys.modules[name]
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(others)
    assert left.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.slow
def test_the_faces_agree_in_the_example(tmp_path: Path) -> None:
    target = tmp_path / "figure.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "faces_agree.py"), str(target)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    distances = {line.split()[0]: float(line.split()[-1]) for line in done.stdout.splitlines()[1:4]}
    assert distances["reweighted"] < 1e-6
    assert distances["dropout"] < 0.05
    assert target.stat().st_size > 10_000


@pytest.mark.slow
def test_noise_and_its_regularizer_meet_the_optimum(tmp_path: Path) -> None:
    target = tmp_path / "figure.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "dropout_convergence.py"), str(target)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[1:4]:
        best, exact, noisy = (float(word) for word in line.split()[1:4])
        assert best <= exact < 1.002 * best, line
        assert noisy == pytest.approx(exact, rel=0.06), line
    assert target.stat().st_size > 10_000


@pytest.mark.slow
def test_the_theory_of_adaptive_strengths_meets_exact_risks(tmp_path: Path) -> None:
    target = tmp_path / "figure.png"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "heteroskedastic_theory.py"), str(target)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in lines[2:7]:
        noise, noise_theory, density, density_theory = (float(word) for word in line.split()[-4:])
        assert noise == pytest.approx(noise_theory, abs=0.03), line
        assert density == pytest.approx(density_theory, abs=0.03), line
    for exact, predicted in zip(lines[8:18:2], lines[9:18:2], strict=True):
        assert [float(word) for word in predicted.split()[-4:]] == pytest.approx(
            [float(word) for word in exact.split()[-4:]], rel=0.1
        )
    assert target.stat().st_size > 10_000
