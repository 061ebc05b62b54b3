"""Every method on every kind of model: the budget is met, the model stays plain, copies and states are exact."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from sparsify_matrix import METHODS, MODELS, STEPS, start

from obverse.errors import InvalidArgumentError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_a_run(model: str, method: str, tmp_path: Path) -> None:
    run = start(model, method)
    build = MODELS[model][0]
    keys = list(build().state_dict())
    # Midway: plain keys, a strict reload, a copy that computes what its weights say.
    run.step(12)
    assert list(run.model.state_dict()) == keys
    build().load_state_dict(run.model.state_dict(), strict=True)
    copied = copy.deepcopy(run.model).eval()
    plain = build()
    plain.load_state_dict(run.model.state_dict())
    assert torch.equal(copied(run.inputs), plain.eval()(run.inputs))
    snapshot = run.sparsifier.snapshot().eval()
    torch.testing.assert_close(snapshot(run.inputs), run.model.eval()(run.inputs), rtol=1e-5, atol=1e-6)
    # A checkpoint here, taken up in a new process' place, ends bit for bit where the uninterrupted run ends.
    torch.save(
        {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "sparsifier": run.sparsifier.state_dict(),
        },
        tmp_path / "state.pt",
    )
    run.step(STEPS - 12)
    run.sparsifier.finish()
    kept = sum(layer["nonzero"] for layer in run.sparsifier.layers())
    total = sum(layer["weights"] for layer in run.sparsifier.layers())
    assert abs(1 - kept / total - 0.7) <= 1 / total + 0.005
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())
    assert not any("weight" in module.__dict__ for module in run.model.modules())
    reloaded = build()
    reloaded.load_state_dict(run.model.state_dict(), strict=True)
    assert torch.equal(reloaded.eval()(run.inputs), run.model.eval()(run.inputs))

    again = start(model, method, seed=5)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.model.load_state_dict(state["model"])
    again.optimizer.load_state_dict(state["optimizer"])
    again.sparsifier.load_state_dict(state["sparsifier"])
    again.step(STEPS - 12)
    again.sparsifier.finish()
    for (name, ours), theirs in zip(run.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("method", ["variational", "hard-concrete", "concrete-dropout", "learned-eta"])
@pytest.mark.parametrize("model", ["mlp", "residual", "lstm"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_groups_of_weights(model: str, method: str, optimizer: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # whole groups come near a budget, not on it
        run = start(model, method, optimizer, groups="units")
        run.step(STEPS)
        run.sparsifier.finish()
    for layer, member in zip(run.sparsifier.layers(), run.sparsifier._members, strict=True):
        alive = member.grouping.magnitude(member.parameter.detach()) > 0
        assert layer["nonzero"] == int(alive.sum()) * member.group_size
    assert 0.5 < run.sparsifier.sparsity < 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_stated_strength(method: str, optimizer: str) -> None:
    if method in ("random", "targeted-dropout"):
        with pytest.raises(InvalidArgumentError, match="budget"):
            start("mlp", method, optimizer, strength=1e-3).step()
        return
    run = start("mlp", method, optimizer, strength=1e-3)
    run.step(STEPS)
    if method in ("concrete-dropout", "standout"):
        with pytest.warns(UserWarning, match="no exact zeros at any strength"):
            run.sparsifier.finish()
    else:
        run.sparsifier.finish()
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())
    assert not list(run.sparsifier.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_long_wait_in_evaluation_changes_nothing(method: str) -> None:
    run = start("mlp", method)
    run.step(5)
    before = copy.deepcopy(run.model.state_dict())
    run.model.eval()
    first = run.model(run.inputs)
    assert torch.equal(first, run.model(run.inputs))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), run.model.state_dict().values(), strict=True))
