"""What a process may use of the machine, read from a machine made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from obverse._core import resources
from obverse._core.resources import available_cores, available_memory, byte_size, check_memory, is_out_of_memory
from obverse.errors import InvalidArgumentError

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight cores and eight free GiB, without limits."""
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    monkeypatch.setattr(resources, "_free_address_space", lambda: iter(()))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_without_limits(machine: Path) -> None:
    assert available_cores() == 8
    assert available_memory() == 8 * GIB


def test_a_system_that_says_nothing(machine: Path) -> None:
    (machine / "proc" / "meminfo").unlink()
    assert available_memory() is None
    check_memory(2**80, "all the sheep", "sleep")


@pytest.mark.parametrize(
    ("own", "parent", "cores"),
    [
        ("max 100000", "max 100000", 8),
        ("200000 100000", "max 100000", 2),
        ("max 100000", "150000 100000", 1),
        ("50000 100000", "max 100000", 1),
        ("1600000 100000", "max 100000", 8),
        ("nonsense", "", 8),
    ],
)
def test_the_time_of_a_container(machine: Path, own: str, parent: str, cores: int) -> None:
    write(machine / "proc" / "self" / "cgroup", "0::/a/b\n")
    write(machine / "cgroup" / "a" / "b" / "cpu.max", own + "\n")
    write(machine / "cgroup" / "a" / "cpu.max", parent + "\n")
    assert available_cores() == cores


def test_the_limits_of_the_first_version_of_control_groups(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "3:cpu,cpuacct:/x\n2:memory:/x\n1:name=systemd:/\n")
    write(machine / "cgroup" / "cpu" / "x" / "cpu.cfs_quota_us", "300000\n")
    write(machine / "cgroup" / "cpu" / "x" / "cpu.cfs_period_us", "100000\n")
    write(machine / "cgroup" / "memory" / "x" / "memory.limit_in_bytes", f"{3 * GIB}\n")
    write(machine / "cgroup" / "memory" / "x" / "memory.usage_in_bytes", f"{2 * GIB}\n")
    write(machine / "cgroup" / "memory" / "memory.limit_in_bytes", "9223372036854771712\n")
    write(machine / "cgroup" / "memory" / "memory.usage_in_bytes", f"{2 * GIB}\n")
    assert available_cores() == 3
    assert available_memory() == GIB


def test_cached_files_count_as_free(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "0::/\n")
    write(machine / "cgroup" / "memory.max", f"{4 * GIB}\n")
    write(machine / "cgroup" / "memory.current", f"{3 * GIB}\n")
    write(machine / "cgroup" / "memory.stat", f"anon 5\ninactive_file {GIB}\nactive_file 7\n")
    assert available_memory() == 2 * GIB


def test_what_does_not_fit_is_refused_with_both_sizes(machine: Path) -> None:
    check_memory(8 * GIB, "8 images", "use fewer")
    with pytest.raises(
        InvalidArgumentError, match=r"9 images need 9\.0 GiB of memory and 8\.0 GiB are available: use fewer"
    ):
        check_memory(9 * GIB, "9 images", "use fewer")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**63, "8192.0 PiB")]
)
def test_sizes_for_a_reader(count: int, text: str) -> None:
    assert byte_size(count) == text


def test_errors_of_exhausted_memory() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    allocator = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to ..."
    assert all(map(is_out_of_memory, (MemoryError(), OutOfMemoryError(), RuntimeError(allocator))))
    assert not any(map(is_out_of_memory, (RuntimeError("shapes differ"), ValueError(allocator), OSError())))
