"""Bad input on the command line is one line on standard error and exit code 2, for every command and every option."""

from __future__ import annotations

import re
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
    assert re.search(rf"\b{named}\b", line), line
