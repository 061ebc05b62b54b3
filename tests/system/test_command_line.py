"""Bad input on the command line is one line on standard error and exit code 2, for every command and every option."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer

from obverse import cli

pytest.importorskip("datasets")
pytest.importorskip("accelerate")

# Each command with the arguments that it needs; what they name is missing, so that nothing ever runs.
COMMANDS: dict[str, list[str]] = {
    "sparsify": ["--data", "missing.csv"],
    "train": ["--data", "missing.csv"],
    "robust": ["--data", "missing.csv"],
    "compare": ["--data", "missing.csv"],
    "fit": ["missing.csv", "--target", "y"],
    "predict": ["missing", "missing.csv"],
    "penalties": [],
    "duality": ["log-sum"],
    "compact": ["missing"],
    "bench": ["missing"],
    "export": ["missing"],
    "dropout diagnose": ["missing"],
    "dropout spectrum": ["--singular-values", "3,2", "--width", "4"],
}
HUGE = "9" * 5000
BAD = {
    "int": ["", "x", "1.5", "-1", "0x10", "nan", HUGE],
    "float": ["", "x", "-1", "nan", "inf", "-inf", "1e300", HUGE],
    "str": ["", "   "],
}
# Values that an option does allow although they are on the lists above.
ALLOWED = {("duality", "--strength", "1e300")}
# Options that take the place of another argument.
INSTEAD = {("dropout spectrum", "--data"): ["--width", "4"], ("duality", "--keep-probability"): []}


def run(words: Sequence[str], capsys: Any, monkeypatch: Any) -> tuple[int, str, str]:
    """The command in this process as a shell would run it: its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["obverse", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


def refused(words: Sequence[str], capsys: Any, monkeypatch: Any) -> str:
    """The one line with which a command refuses."""
    code, _, err = run(words, capsys, monkeypatch)
    lines = err.splitlines()
    assert (code, len(lines)) == (2, 1), err
    assert lines[0].startswith("obverse: ")
    assert len(lines[0]) < 1100
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run in, which must stay empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert [path.name for path in folder.iterdir()] == []


def options(name: str) -> Iterator[tuple[str, str]]:
    """The options of a command with the kind of their values."""
    command: Any = typer.main.get_command(cli.app)
    for word in name.split():
        command = command.commands[word]
    hints = get_type_hints(command.callback)
    for parameter in command.params:
        kinds = [kind for kind in ("int", "float", "str") if re.search(rf"\b{kind}\b", str(hints.get(parameter.name)))]
        if parameter.opts[0].startswith("--") and kinds:
            yield parameter.opts[0], kinds[0]


CASES = [
    (name, flag, value)
    for name in COMMANDS
    for flag, kind in options(name)
    for value in BAD[kind]
    if (name, flag, value) not in ALLOWED
]


def test_every_command_is_in_the_table() -> None:
    top: Any = typer.main.get_command(cli.app)
    found = {name for name, command in top.commands.items() if not hasattr(command, "commands")}
    found |= {f"dropout {name}" for name in top.commands["dropout"].commands}
    assert found == set(COMMANDS)


@pytest.mark.parametrize(("name", "flag", "value"), CASES, ids=lambda word: word[:12])
def test_a_bad_value_is_refused_by_the_name_of_its_option(
    name: str, flag: str, value: str, here: Path, capsys: Any, monkeypatch: Any
) -> None:
    words = [word for word in COMMANDS[name] if (name, flag) not in INSTEAD]
    words = INSTEAD.get((name, flag), words)
    line = refused([*name.split(), *words, f"{flag}={value}"], capsys, monkeypatch)
    named = flag.lstrip("-").replace("-", "[-_ ]")
    assert re.search(rf"\b{named}s?\b", line), line


# ------------------------------------------------------------------------------------------------ other words
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sparsify", "--labels", "adaptive:strength=[1"], "strength=[1"),
        (["train", "--labels", "adaptive:nonsense=1"], "nonsense"),
        (["sparsify", "--penalty", "log-sum:epsilon=1e300"], "epsilon"),
        (["sparsify", "--penalty", "log-sum:epsilon"], "name:parameter=number"),
        (["sparsify", "--face", "magic"], "magic"),
        (["sparsify", "--groups", "nonsense"], "nonsense"),
        (["sparsify", "--budget", "9" * 400], "budget"),
        (["compare", "--methods", "log-sum:epsilon=1e300@proximal"], "epsilon"),
        (["compare", "--budgets", "nan"], "budget"),
        (["robust", "--groups", "clusters:0"], "clusters"),
        (["duality", "log-sum", "--set", "epsilon=1e300"], "epsilon"),
        (["duality", "--keep-probability", "w**"], "formula"),
        (["dropout", "spectrum", "--singular-values", "1e300", "--width", "4"], "singular values"),
        (["dropout", "spectrum", "--singular-values", "3", "--width", "9" * 30], "width"),
        (["bench", "missing", "--batch", "1,x"], "--batch"),
        (["compact", "missing"], "missing"),
        (["export", "~nobody-of-this-name/run"], "home"),
        (["fit", "~nobody-of-this-name/x.csv", "--target", "y"], "x.csv"),
        (["sparsify", "--out", "~nobody-of-this-name/run"], "home"),
        (["robust", "--out", "~nobody-of-this-name/run"], "home"),
        (["fit", "missing.csv"], "--target"),
        (["sparsify", "--nonsense"], "--nonsense"),
        (["nonsense"], "nonsense"),
        (["dropout", "nonsense"], "nonsense"),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else "",
)
def test_other_bad_words_are_one_line(
    words: list[str], said: str, here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in refused(words, capsys, monkeypatch)


BROKEN_TABLES: dict[str, bytes] = {
    "empty": b"",
    "a header": b"a,label\n",
    "doubled": b"a,a,label\n1,2,0\n3,4,1\n",
    "null": b"a,label\n1,\0\n2,1\n3,0\n",
    "binary": bytes(range(256)),
    "one class": b"a,label\n1,0\n2,0\n",
    "endless": b"a,label\n" + b"1" * 200_000 + b",0\n",
}


@pytest.mark.parametrize("content", BROKEN_TABLES)
@pytest.mark.parametrize("command", ["train", "robust", "fit"])
def test_a_broken_table_is_one_line(
    content: str, command: str, tmp_path: Path, here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(BROKEN_TABLES[content])
    words = ["fit", str(path), "--target", "label"] if command == "fit" else [command, "--data", str(path)]
    refused(words, capsys, monkeypatch)


def test_a_folder_that_may_not_be_read(
    tmp_path: Path, here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(self: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    folder = tmp_path / "closed"
    folder.mkdir()
    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert "Permission denied" in refused(["train", "--data", str(folder)], capsys, monkeypatch)
    monkeypatch.undo()
    monkeypatch.chdir(here)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
    ids=["python", "host", "device"],
)
def test_exhausted_memory_is_one_line(error: Exception, here: Path, capsys: Any, monkeypatch: Any) -> None:
    def exhausted(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr("obverse.training.read_recipe", exhausted)
    assert "reduce" in refused(["sparsify"], capsys, monkeypatch)


def test_a_fault_in_the_program_keeps_its_traceback(here: Path, capsys: Any, monkeypatch: Any) -> None:
    def faulty(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("obverse.training.read_recipe", faulty)
    monkeypatch.setattr(sys, "argv", ["obverse", "sparsify"])
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli.main()


def test_an_interrupt_is_code_130(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("obverse.training.read_recipe", interrupted)
    code, _, err = run(["sparsify"], capsys, monkeypatch)
    assert code == 130
    assert "Traceback" not in err


def test_a_comparison_with_failed_cells_is_code_1(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = {"state": "failed", "folder": "cells/[/b]", "error": "disk full [/b]"}
    result = {"cells": [cell], "seeds": [0], "methods": [], "budgets": [], "summary": []}
    monkeypatch.setattr("obverse.training.compare", lambda *arguments, **options: result)
    code, out, _ = run(["compare"], capsys, monkeypatch)
    assert code == 1
    assert "failed: cells/[/b]: disk full [/b]" in out


# ------------------------------------------------------------------------------------------------ user text, as it is
@pytest.mark.parametrize("name", ["d[/b]", "d[red]x", "d:smile:", "[bold]", "a\tb", "é"])
def test_a_path_is_printed_as_it_is(name: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(["train", "--epochs", "1", "--threads", "1", "--out", name], capsys, monkeypatch)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"{name.expandtabs()}: report.html, metrics.json, recipe.yaml, model.safetensors"
    assert (tmp_path / name.split("/", maxsplit=1)[0]).is_dir()


@pytest.mark.slow
def test_names_with_brackets_in_a_fit(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{k % 7},{(k * k) % 5},{3 * (k % 7)}" for k in range(60)]
    Path("t[red].csv").write_text("a[/b],[bold],y\n" + "\n".join(rows) + "\n")
    words = ["fit", "t[red].csv", "--target", "y", "--penalty", "lasso", "--out", "out[/i]"]
    code, out, err = run(words, capsys, monkeypatch)
    assert (code, err) == (0, "")
    for text in ("t[red].csv: 60 rows", "a[/b]", "out[/i]: report.html"):
        assert text in out


# ------------------------------------------------------------------------------------------------ damaged run folders
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from obverse.training import Recipe, run_recipe

    folder = tmp_path_factory.mktemp("runs") / "run"
    run_recipe(Recipe.from_mapping({"epochs": 1, "device": "cpu", "threads": 1, "out": str(folder)}))
    return folder


def changed_weights(run: Path, change: Any) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({key: change(value) for key, value in load_file(run / "model.safetensors").items()}, run / "x")
    os.replace(run / "x", run / "model.safetensors")


DAMAGE: dict[str, Any] = {
    "no recipe": lambda run: (run / "recipe.yaml").unlink(),
    "no model": lambda run: (run / "model.safetensors").unlink(),
    "empty model": lambda run: (run / "model.safetensors").write_bytes(b""),
    "half a model": lambda run: (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:999]),
    "model of text": lambda run: (run / "model.safetensors").write_text("hello, this is not a model"),
    "model of integers": lambda run: changed_weights(run, lambda value: value.astype("int8")),
    "model of NaN": lambda run: changed_weights(run, lambda value: value * float("nan")),
    "other shapes": lambda run: changed_weights(run, lambda value: value[:1].copy()),
    "binary recipe": lambda run: (run / "recipe.yaml").write_bytes(bytes(range(256))),
    "recipe of a list": lambda run: (run / "recipe.yaml").write_text("[1, 2]"),
    "recipe of another model": lambda run: (run / "recipe.yaml").write_text("model: lenet-5\n"),
    "recipe of missing data": lambda run: (run / "recipe.yaml").write_text("data: gone.csv\n"),
    "recipe that names code": lambda run: (run / "recipe.yaml").write_text("model: os:getcwd\n"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("command", ["compact", "bench", "export", "dropout diagnose"])
def test_a_damaged_run_is_one_line(
    damage: str, command: str, finished: Path, tmp_path: Path, here: Path, capsys: Any, monkeypatch: Any
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    DAMAGE[damage](folder)
    before = sorted(path.name for path in folder.iterdir())
    refused([*command.split(), str(folder)], capsys, monkeypatch)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("command", ["compact", "bench", "export", "dropout diagnose"])
def test_a_folder_that_is_no_run_is_one_line(command: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "no finished run" in refused([*command.split(), str(tmp_path)], capsys, monkeypatch)
    refused([*command.split(), str(tmp_path / "notes.txt")], capsys, monkeypatch)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ------------------------------------------------------------------------------------------------ real processes
def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-m", "obverse.cli", *words], **pipes)


@pytest.mark.slow
def test_exit_codes_of_processes(tmp_path: Path) -> None:
    refusals = [
        start("train", "--recipe", str(tmp_path), cwd=tmp_path),
        start("sparsify", "--labels", "adaptive:strength=[1", cwd=tmp_path),
        start("fit", "missing.csv", "--target", "y", cwd=tmp_path),
        start("bench", "missing", "--repeats", "0", cwd=tmp_path),
    ]
    for process in refusals:
        out, err = process.communicate()
        assert (process.returncode, out) == (2, "")
        assert re.fullmatch(r"obverse: .*\n", err), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly() -> None:
    for words in (["penalties"], ["penalties", "--json"], ["duality", "log-sum"], ["--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(*words, stdout=writer)
        os.close(writer)
        _, err = process.communicate()
        assert (process.returncode, err) == (1, ""), words


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_an_output_that_cannot_be_written_is_one_line() -> None:
    for words in (["penalties"], ["penalties", "--json"]):
        with open("/dev/full", "w") as full:
            process = start(*words, stdout=full)
            _, err = process.communicate()
        assert process.returncode == 2
        assert re.fullmatch(r"obverse: .*\n", err), err


@pytest.mark.slow
def test_a_terminal_without_unicode(tmp_path: Path) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (["penalties"], ["duality", "lp"], ["compact", "missing-é-\u2019"]):
        process = start(*words, env=ascii_only, cwd=tmp_path)
        out, err = process.communicate()
        assert process.returncode == (2 if "compact" in words else 0), err
        assert "Traceback" not in err
        assert (out + err).isascii()


@pytest.mark.slow
def test_predictions_are_utf_8_on_any_terminal(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{k},{'bébé' if k > 20 else 'ältere'}" for k in range(40)]
    Path("t.csv").write_text("a,y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    for words in (["fit", "t.csv", "--target", "y", "--out", "m"], ["predict", "m", "t.csv", "--out", "p.csv"]):
        assert run(words, capsys, monkeypatch)[0] == 0
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = start("predict", "m", "t.csv", "--out", "-", env=ascii_only, text=False)
    printed: Any = process.communicate()[0]
    assert printed == Path("p.csv").read_bytes()
    assert "bébé".encode() in printed


@pytest.mark.slow
def test_ctrl_c_before_the_run_is_code_130(tmp_path: Path) -> None:
    # The module that a run needs first waits for the signal.
    (tmp_path / "accelerate").mkdir()
    (tmp_path / "accelerate" / "__init__.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start("train", "--out", "out", cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the address space")
def test_images_beyond_a_memory_limit_are_one_line(tmp_path: Path) -> None:
    from PIL import Image

    for k in range(12):
        path = tmp_path / "big" / str(k % 2) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("1", (12_000, 12_000)).save(path)
    script = "ulimit -v 4000000; exec " + shlex.join([sys.executable, "-m", "obverse.cli", "train", "--data", "big"])
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"obverse: .*12 images of 12000x12000 pixels need 3\.2 GiB of memory.*\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
