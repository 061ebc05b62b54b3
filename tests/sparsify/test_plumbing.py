"""What surrounds a training step in real life: compilers, precision, accumulation, averages, processes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sparsify_matrix import METHODS, MODELS, STEPS, Run, start

HERE = Path(__file__).parent
LEARNED = ["variational", "hard-concrete", "concrete-dropout", "learned-eta"]


def _same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# Torch's tracer makes an instance of a class that it asks others not to instantiate.
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*:DeprecationWarning")
@pytest.mark.parametrize(
    "method",
    [
        name if name in ("proximal", "dropout", "hard-concrete") else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
    ],
)
def test_the_loss_compiles_whole(method: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = {"dropout": "residual", "variational": "transformer"}.get(method, "mlp")
    run, plain = start(model, method), start(model, method)

    def loss_of(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(run.model(inputs), labels) + run.sparsifier.penalty()

    compiled = torch.compile(loss_of, backend="aot_eager", fullgraph=True)
    run.model.train()
    for _ in range(STEPS):  # past the freeze, where the noise ends
        compiled(run.inputs, run.labels).backward()
        run.optimizer.step()
        run.sparsifier.step()
        run.optimizer.zero_grad()
    plain.step(STEPS)
    assert _same(run.model, plain.model)
    # One graph while it ramps, one after the freeze; learned eta has one before its unit is known.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= (3 if method == "learned-eta" else 2)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_with_a_gradient_scaler(method: str) -> None:
    run = start("residual", method)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(run.model(run.inputs).float(), run.labels) + run.sparsifier.penalty()
        scaler.scale(loss).backward()
        if step == 3:
            run.model.stem.weight.grad[0] = torch.inf  # a step that the scaler leaves out, and nobody counts
        scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_([*run.model.parameters(), *run.sparsifier.parameters()], 1.0)
        scaler.step(run.optimizer)
        scaler.update()
        run.sparsifier.step()
        run.optimizer.zero_grad()
    assert run.sparsifier._step == STEPS
    run.sparsifier.finish()
    assert abs(run.sparsifier.sparsity - 0.7) < 0.01
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


@pytest.mark.parametrize("method", ["proximal", "reweighted", "learned-eta", "magnitude", "random"])
def test_accumulated_gradients_equal_one_batch(method: str) -> None:
    whole, parts = start("mlp", method), start("mlp", method)
    whole.step(8)
    for _ in range(8):
        for half in (slice(0, 8), slice(8, 16)):
            loss = F.cross_entropy(parts.model(parts.inputs[half]), parts.labels[half])
            ((loss + parts.sparsifier.penalty()) / 2).backward()
            parts.sparsifier.step()  # before the optimizer's own step it counts for nothing
        parts.optimizer.step()
        parts.sparsifier.step()
        parts.optimizer.zero_grad()
    for ours, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [*LEARNED, "dropout"])
def test_an_average_of_the_weights_is_a_plain_model(method: str) -> None:
    run = start("residual", method)
    average = torch.optim.swa_utils.AveragedModel(
        run.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for _ in range(10):
        run.step()
        average.update_parameters(run.model)
    state = {name.removeprefix("module."): value for name, value in average.state_dict().items()}
    del state["n_averaged"]
    plain = MODELS["residual"][0]()
    plain.load_state_dict(state, strict=True)
    assert torch.equal(average.eval()(run.inputs), plain.eval()(run.inputs))


@pytest.mark.parametrize("method", LEARNED)
def test_a_copied_model_trains_by_itself(method: str) -> None:
    run = start("residual", method)
    run.step(5)
    copied = copy.deepcopy(run.model).train()
    before = copy.deepcopy(run.model.state_dict())
    optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
    F.cross_entropy(copied(run.inputs), run.labels).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), run.model.state_dict().values(), strict=True))
    run.step(STEPS - 5)
    run.sparsifier.finish()
    assert abs(run.sparsifier.sparsity - 0.7) < 0.01


def _start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.PIPE)


def _end(running: list[subprocess.Popen[bytes]]) -> None:
    for process in running:
        _, complaint = process.communicate(timeout=240)
        assert process.returncode == 0, complaint.decode()[-2000:]


def _processes(kinds: tuple[str, ...], method: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    worlds = {kind: 1 if kind == "one" else 2 for kind in kinds}
    places = [(kind, rank) for kind, world in worlds.items() for rank in range(world)]
    _end([_start("sparsify_processes.py", kind, method, rank, worlds[kind], folder) for kind, rank in places])
    found = {place: torch.load(folder / "{}-{}.pt".format(*place), weights_only=True) for place in places}
    # The first kind is what the others are compared with.
    return [found[place] for place in places if place != (kinds[0], 1)]


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("fsdp", "proximal"),
        pytest.param("ddp", "hard-concrete", marks=pytest.mark.slow),
        pytest.param("fsdp", "changing", marks=pytest.mark.slow),
        pytest.param("ddp", "proximal", marks=pytest.mark.slow),
        pytest.param("ddp", "learned-eta", marks=pytest.mark.slow),
        pytest.param("ddp", "variational-weights", marks=pytest.mark.slow),
        pytest.param("fsdp", "reweighted", marks=pytest.mark.slow),
        pytest.param("fsdp", "magnitude", marks=pytest.mark.slow),
        pytest.param("fsdp", "random", marks=pytest.mark.slow),
        pytest.param("fsdp", "hard-concrete", marks=pytest.mark.slow),
        pytest.param("fsdp", "learned-eta", marks=pytest.mark.slow),
        pytest.param("fsdp", "variational-weights", marks=pytest.mark.slow),
        pytest.param("fsdp", "targeted-dropout", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(kind: str, method: str, tmp_path: Path) -> None:
    one, first, second = _processes(("one", kind), method, tmp_path)
    for name, expected in one.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(first[name] == 0, expected == 0)
    assert len({(tmp_path / f"{kind}-{rank}.txt").read_text() for rank in (0, 1)}) == 1


@pytest.mark.parametrize("method", [pytest.param(name, marks=pytest.mark.slow) for name in ("variational", "dropout")])
def test_sharded_training_equals_data_parallel_training(method: str, tmp_path: Path) -> None:
    """Noise on activations differs from process to process, so that two processes are not one."""
    expected, first, second = _processes(("ddp", "fsdp"), method, tmp_path)
    for name in expected:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(first[name] == 0, expected[name] == 0)


@pytest.mark.parametrize("kind", ["fsdp", pytest.param("ddp", marks=pytest.mark.slow)])
def test_a_metric_is_measured_over_all_processes(kind: str, tmp_path: Path) -> None:
    """What is common to a group comes from samples of every process, which come near those of one."""
    one, first, second = _processes(("one", kind), "measured", tmp_path)
    assert sum(int((weights == 0).sum()) for weights in one.values()) > 50
    for name, expected in one.items():
        assert torch.equal(first[name], second[name])
        assert float((first[name] - expected).abs().mean()) < 1e-2
        assert float(((first[name] == 0) == (expected == 0)).float().mean()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dropout", "standout", "variational", "dropout-bernoulli", "variational-weights"])
def test_gradients_of_two_processes_are_distributed_as_those_of_one(method: str, tmp_path: Path) -> None:
    """Noise on weights is the same; noise on activations is independent, so that the gradient's law is the same."""
    _end([_start("noise_processes.py", method, rank, world, tmp_path) for rank, world in ((0, 1), (0, 2), (1, 2))])
    one, first, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert first["draws"] == one["draws"]
    assert torch.equal(first["mean"], second["mean"])
    assert float(one["variance"].min()) > 0
    if method in ("dropout-bernoulli", "variational-weights"):
        torch.testing.assert_close(first["mean"], one["mean"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(first["variance"], one["variance"], rtol=1e-3, atol=1e-9)
        return
    error = ((one["variance"] + first["variance"]) / one["draws"]).sqrt()
    assert float(((first["mean"] - one["mean"]) / error).abs().max()) < 4
    # Rows of the two processes are equal: with the same noise this would be 2.
    assert float((first["variance"] / one["variance"]).mean()) == pytest.approx(1, abs=0.1)


def test_noise_on_activations_differs_from_process_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
        run: Run = start("mlp", "variational")
        run.model.train()
        outputs.append(run.model(run.inputs).detach())
    assert not torch.equal(*outputs)
