"""Files are whole or absent, damage is refused, and a folder has one writer at a time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from obverse._core.files import (
    LOCK,
    check_output_folder,
    check_seal,
    is_temporary,
    locked,
    read_json,
    unsealed,
    write_atomically,
    write_json,
    write_sealed,
    write_together,
)
from obverse.errors import DamagedFileError, FileWriteError, InvalidArgumentError

SEALED: dict[str, object] = {
    "recipe.yaml": lambda file: file.write_text("epochs: 3\nface: proximal\n"),
    "record.json": {"error": 0.25, "names": ["a", "b"]},
    "state.pt": lambda file: torch.save({"w": torch.arange(50.0), "step": 3}, file),
    "fold.npz": lambda file: np.savez(file, rows=np.arange(40), predictions=np.ones((40, 2))),
    "model.safetensors": lambda file: save_file({"w": torch.arange(50.0)}, file, {"about": "x", **unsealed()}),
    "nested.safetensors": lambda file: save_file(
        {"w": torch.arange(50.0)}, file, {"obverse": json.dumps({"about": "x", **unsealed()})}
    ),
}


@pytest.mark.parametrize("name", SEALED)
def test_sealed_files_are_read_by_their_own_libraries(tmp_path: Path, name: str) -> None:
    path = write_sealed(tmp_path / name, SEALED[name])  # type: ignore[arg-type]
    check_seal(path)
    if path.suffix == ".json":
        assert read_json(path, sealed=True) == SEALED[name]
    elif path.suffix == ".pt":
        assert torch.equal(torch.load(path, weights_only=True)["w"], torch.arange(50.0))
    elif path.suffix == ".npz":
        with np.load(path) as stored:
            assert stored["predictions"].shape == (40, 2)


@pytest.mark.parametrize("name", SEALED)
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, name: str) -> None:
    path = write_sealed(tmp_path / name, SEALED[name])  # type: ignore[arg-type]
    whole = path.read_bytes()
    draw = random.Random(0)
    places = sorted({*range(0, 8 * len(whole), 211), *(draw.randrange(8 * len(whole)) for _ in range(100))})
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=f"{name} is damaged"):
            check_seal(path)
    for length in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match=f"{name} is damaged"):
            check_seal(path)
    path.unlink()
    with pytest.raises(DamagedFileError, match="No such file"):
        check_seal(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"old": True})

    def fails(file: Path) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(FileWriteError, match=r"cannot write .*a\.json: No space left on device"):
        write_atomically(path, fails)
    assert read_json(path) == {"old": True}
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_a_file_limit_is_a_full_disk(tmp_path: Path) -> None:
    """A real process under a real limit: one line, the old file whole, no temporary file."""
    code = """
import resource, signal, sys
from pathlib import Path
from obverse._core.files import write_bytes
from obverse.errors import FileWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = Path(sys.argv[1]) / "big.bin"
write_bytes(path, b"old")
try:
    write_bytes(path, b"x" * 100_000)
except FileWriteError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout == f"cannot write {tmp_path / 'big.bin'}: File too large\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"big.bin": b"old"}


@pytest.mark.parametrize("name", [".recipe.yaml.tmp", ".model.31-0badf00d.tmp.safetensors"])
def test_what_a_killed_process_leaves_does_not_count_and_goes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert is_temporary(name)
    check_output_folder(tmp_path, resume=False, overwrite=False)
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} <= {LOCK}


@pytest.mark.parametrize("name", ["recipe.yaml", "model.safetensors", ".hidden", "a.tmp"])
def test_other_names_are_not_temporary(name: str) -> None:
    assert not is_temporary(name)


def test_an_output_folder_is_refused_with_the_ways_that_exist(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InvalidArgumentError, match=r"not empty; choose another with --out$"):
        check_output_folder(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"with --out, or replace what it holds with --overwrite$"):
        check_output_folder(tmp_path, overwrite=False)
    with pytest.raises(InvalidArgumentError, match=r"--out, go on with --resume, or replace .* --overwrite$"):
        check_output_folder(tmp_path, resume=False, overwrite=False)
    with pytest.raises(InvalidArgumentError, match="give one of them"):
        check_output_folder(tmp_path, resume=True, overwrite=True)
    with pytest.raises(InvalidArgumentError, match="is a file"):
        check_output_folder(tmp_path / "model.safetensors", overwrite=True)
    check_output_folder(tmp_path, resume=True, overwrite=False)
    check_output_folder(tmp_path, worthless={"model.safetensors"})


def test_a_folder_has_one_writer_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from obverse._core.files import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InvalidArgumentError, match="another process is writing to"), locked(tmp_path):
            pass
    finally:
        child.kill()
        child.communicate()
    with locked(tmp_path):
        pass


def test_folders_that_cannot_be_made_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    makers: list[Callable[[], object]] = [
        lambda: write_json(tmp_path / "file" / "a.json", {}),
        lambda: locked(tmp_path / "file").__enter__(),
        lambda: check_output_folder(tmp_path / ("file" * 100)),
    ]
    for make in makers:
        with pytest.raises((FileWriteError, InvalidArgumentError), match="file"):
            make()


def test_several_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    def broken(file: Path) -> None:
        file.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(FileWriteError, match=r"cannot write to .*No space left"):
        write_together(folder, {"a": lambda file: file.write_text("1"), "b": broken})
    assert not folder.exists()
    write_together(folder, {"a": lambda file: file.write_text("1"), "b": lambda file: file.write_text("2")})
    with pytest.raises(FileWriteError, match="No space left"):
        write_together(folder, {"a": lambda file: file.write_text("3"), "b": broken})
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "1", "b": "2"}
