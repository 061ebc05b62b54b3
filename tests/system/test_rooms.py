"""The imports of the source follow the table of rooms in `docs/design.md`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "obverse"
GROUND = {"_core", "errors", "_version"}
# Modules that belong to a room although they lie beside it.
HOMES = {"_training_commands": "cli", "_options": "cli", "_dropout_commands": "cli"}

# Private modules of other rooms that are still imported: (file, module). This list only gets shorter.
EXCEPTIONS: set[tuple[str, str]] = {
    ("cli.py", "duality._summary"),
    ("cli.py", "linear._choices"),
    ("cli.py", "linear._fit_files"),
    ("cli.py", "linear._model_file"),
    ("cli.py", "linear._predict_file"),
    ("cli.py", "linear._table_fit"),
    ("cli.py", "report._faces"),
    ("duality/_adaptive.py", "penalties._arrays"),
    ("duality/_adaptive.py", "penalties._base"),
    ("duality/_adaptive.py", "penalties._parameters"),
    ("duality/_adaptive.py", "penalties._registry"),
    ("duality/_effective.py", "penalties._base"),
    ("duality/_effective.py", "penalties._parameters"),
    ("duality/_effective.py", "penalties._rescaling"),
    ("duality/_effective.py", "penalties._tabulated"),
    ("duality/_faces.py", "penalties._base"),
    ("duality/_faces.py", "penalties._parameters"),
    ("duality/_subquadratic.py", "penalties._base"),
    ("duality/_subquadratic.py", "penalties._registry"),
    ("duality/_summary.py", "penalties._parameters"),
    ("linear/_code.py", "penalties._piecewise"),
    ("linear/_code.py", "penalties._rescaling"),
    ("linear/_code.py", "penalties._tabulated"),
    ("report/_faces.py", "penalties._base"),
    ("training/_attach.py", "sparsify._groups"),
    ("training/_attach.py", "sparsify._rules"),
}


def table() -> dict[str, set[str]]:
    """What each room may import, as `docs/design.md` says."""
    rooms: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)`", cells[0])
        if name is None or len(cells) != 3:
            continue
        allowed = set(re.findall(r"`(\w+)`", cells[2]))
        rooms[name[1]] = set(rooms) if cells[2] == "every room above" else allowed
    return rooms


def room_of(module: str) -> str:
    return HOMES.get(module, module)


def imports(path: Path) -> Iterator[str]:
    """Modules under ``obverse`` that a file imports, as dotted paths without the package's own name."""
    package = path.relative_to(SOURCE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.removeprefix("obverse.") for name in node.names if name.name.startswith("obverse."))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif node.module == "obverse" or (node.module or "").startswith("obverse."):
                base = ()
            else:
                continue
            module = (node.module or "") if node.level else (node.module or "").removeprefix("obverse").lstrip(".")
            whole = ".".join([*base, *filter(None, [module])])
            for name in node.names:
                dotted = ".".join(filter(None, [whole, name.name]))
                yield dotted if is_module(dotted) else whole


def is_module(dotted: str) -> bool:
    place = SOURCE.joinpath(*dotted.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


FILES = sorted(SOURCE.rglob("*.py"))


def crossings() -> Iterator[tuple[str, str, str, str]]:
    """Imports from one room to another: the file, its room, the room imported and the module."""
    for path in FILES:
        relative = path.relative_to(SOURCE)
        room = room_of(relative.parts[0].removesuffix(".py"))
        if room in ("__init__", "errors", "_version"):
            continue
        for module in imports(path):
            other = room_of(module.split(".")[0])
            if other not in ("", room):
                yield str(relative), room, other, module


def test_every_room_of_the_source_is_in_the_table() -> None:
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages | {"cli"} == set(table())


def test_rooms_import_only_what_the_table_allows() -> None:
    rooms = table()
    wrong = sorted(
        f"{file} imports {module}"
        for file, room, other, module in crossings()
        if other not in GROUND and other not in rooms[room]
    )
    assert not wrong


def test_no_room_imports_private_modules_of_another() -> None:
    private = {
        (file, module)
        for file, _, other, module in crossings()
        if other not in GROUND and any(part.startswith("_") for part in module.split(".")[1:])
    }
    assert sorted(private - EXCEPTIONS) == []
    assert sorted(EXCEPTIONS - private) == [], "no longer needed: take them off the list"


@pytest.mark.parametrize("module", ["files", "checks", "random", "arrays", "recomputation", "text"])
def test_the_ground_floor_does_not_import_torch(module: str) -> None:
    tree = ast.parse((SOURCE / "_core" / f"{module}.py").read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] == "torch"}
