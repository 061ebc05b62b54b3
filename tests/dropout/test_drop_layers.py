"""Dropout layers: mean one in training, the very input in evaluation, schedules, and what torch does to modules."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from obverse.dropout._independent import Bernoulli
from obverse.dropout._layers import DropBlock1d, DropBlock2d, DropBlock3d, Dropout, DropPath, MaskLayer
from obverse.dropout._noise import NoiseLayer, follow
from obverse.dropout._schedule import ConstantSchedule, CosineSchedule, LinearSchedule
from obverse.dropout._sliding import SlidingBlock
from obverse.errors import InvalidArgumentError, UnknownNameError


@pytest.fixture(autouse=True)
def forget_compiled() -> None:
    """Layers of all tests share code, and with it the limit on how often that is compiled."""
    torch._dynamo.reset()


LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (lambda **k: Dropout(0.3, **k), (4, 6)),
    (lambda **k: Dropout([0.1, 0.5, 0.0], **k), (4, 3)),
    (lambda **k: Dropout(0.3, noise="gaussian", **k), (4, 6)),
    (lambda **k: Dropout(0.3, noise="rademacher", **k), (4, 6)),
    (lambda **k: DropBlock1d(0.2, 3, **k), (4, 2, 9)),
    (lambda **k: DropBlock2d(0.2, 2, **k), (4, 2, 5, 7)),
    (lambda **k: DropBlock3d(0.2, (1, 2, 3), **k), (4, 2, 3, 5, 7)),
    (lambda **k: DropPath(0.3, **k), (4, 2, 5)),
    (lambda **k: MaskLayer(Bernoulli(0.6), **k), (4, 6)),
]


@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_mean_one_in_training_and_the_input_itself_in_evaluation(build: Any, shape: tuple[int, ...]) -> None:
    layer = build(generator=torch.Generator().manual_seed(0))
    x = torch.ones(6000, *shape[1:])
    noisy = layer(x)
    assert noisy.shape == x.shape
    spread = noisy.var(0)
    truth = torch.as_tensor(layer.law.variance(shape[1:]), dtype=torch.float32)
    assert ((noisy.mean(0) - 1).abs() < 5 * (truth / 6000).sqrt() + 1e-6).all()
    torch.testing.assert_close(spread, truth, rtol=0.2, atol=1e-6)
    layer.eval()
    assert layer(x) is x


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_empty_batch_gradient_and_seed(build: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = build(generator=torch.Generator().manual_seed(0))
    assert layer(torch.ones(0, *shape[1:], dtype=dtype)).shape == (0, *shape[1:])
    x = torch.randn(shape).to(dtype).requires_grad_()
    layer.generator.manual_seed(5)
    noisy = layer(x)
    assert noisy.dtype == dtype
    noisy.sum().backward()
    layer.generator.manual_seed(5)
    assert torch.equal(layer(torch.ones(shape, dtype=dtype)), x.grad)


@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_copies_and_pickles_draw_the_same(build: Any, shape: tuple[int, ...]) -> None:
    layer = build(generator=torch.Generator().manual_seed(0))
    stored = io.BytesIO()
    torch.save(layer, stored)
    stored.seek(0)
    x = torch.randn(shape)
    for other in (copy.deepcopy(layer), torch.load(stored, weights_only=False)):
        layer.generator.manual_seed(1)
        other.generator.manual_seed(1)
        assert torch.equal(layer(x), other(x))
        assert repr(layer) == repr(other)
    assert layer.state_dict() == {}


@pytest.mark.parametrize(("build", "shape"), LAYERS)
def test_compiles_whole(build: Any, shape: tuple[int, ...]) -> None:
    layer = build()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    x = torch.ones(shape)
    values = torch.stack([compiled(x) for _ in range(20)])
    assert values.std(0).amax() > 0
    layer.eval()
    assert torch.equal(compiled(x), x)


def test_a_generator_draws_the_same_compiled_and_not() -> None:
    for share in ((), "batch"):
        layer = DropBlock2d(0.3, 2, share=share, generator=torch.Generator().manual_seed(0))
        x = torch.ones(3, 2, 5, 6, requires_grad=True)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        layer.generator.manual_seed(0)
        assert torch.equal(layer(x), compiled)
        assert torch.equal(torch.autograd.grad(compiled.sum(), x)[0], compiled)


def test_no_rate_no_noise() -> None:
    x = torch.randn(3, 4, 5, 6)
    for layer in (Dropout(0.0), Dropout(np.zeros(6)), DropBlock2d(0.0, 3), DropPath(0.0)):
        assert layer(x) is x


def test_unbatched_inputs_are_one_example() -> None:
    rng = torch.Generator()
    for layer, shape in (
        (DropBlock2d(0.3, 2, generator=rng), (3, 5, 7)),
        (DropBlock1d(0.3, 2, generator=rng), (3, 7)),
        (Dropout([0.1, 0.2, 0.6], generator=rng), (3,)),
    ):
        rng.manual_seed(2)
        one = layer(torch.ones(shape))
        rng.manual_seed(2)
        assert torch.equal(one, layer(torch.ones(1, *shape))[0])


@pytest.mark.parametrize("block", [1, 2, 3, 5, 9, (2, 3), (9, 1)])
def test_blocks_of_any_size_on_maps_that_are_not_square(block: Any) -> None:
    layer = DropBlock2d(0.3, block, scale="none", generator=torch.Generator().manual_seed(0))
    mask = layer(torch.ones(4000, 1, 5, 7))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert 1 - mask.mean().item() == pytest.approx(0.3, abs=0.03)


def test_published_gamma_drops_less_than_it_says_and_exact_gamma_does_not() -> None:
    exact = DropBlock2d(0.25, 7).law.drop_rate((1, 14, 14))
    published = DropBlock2d(0.25, 7, gamma="published").law.drop_rate((1, 14, 14))
    assert exact == pytest.approx(0.25, abs=1e-9)
    assert published == pytest.approx(0.2095, abs=1e-4)
    assert DropBlock2d(0.25, 7).law == SlidingBlock(7, drop_rate=0.25, dims=2)


def test_scale_and_share() -> None:
    torch.manual_seed(0)
    x = torch.ones(8, 4, 6, 6)
    counted = DropBlock2d(0.4, 3, scale="count")(x)
    assert counted.mean().item() == pytest.approx(1.0, rel=1e-5)
    channel = DropBlock2d(0.4, 3, share="channel")(x)
    assert torch.equal(channel, channel[:, :1].expand_as(channel))
    assert channel.std(0).max() > 0
    batch = DropBlock2d(0.4, 3, share=("batch",))(x)
    assert torch.equal(batch, batch[:1].expand_as(batch))
    assert batch.std(1).max() > 0
    path = DropPath(0.5, share="batch")(x)
    assert path.unique().numel() == 1


def test_channels_last_stays_and_autocast_keeps_the_dtype() -> None:
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    assert DropBlock2d(0.3, 2)(x).is_contiguous(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(4, 3, 3, padding=1), DropBlock2d(0.3, 2), DropPath(0.2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype == torch.bfloat16


def test_schedules() -> None:
    linear, cosine = LinearSchedule(10, begin=5), CosineSchedule(10)
    assert [linear.fraction(t) for t in (0, 5, 10, 15, 99)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert [round(cosine.fraction(t), 12) for t in (0, 5, 10, 11)] == [0.0, 0.5, 1.0, 1.0]
    assert cosine.fraction(2) == pytest.approx((1 - math.cos(0.2 * math.pi)) / 2)
    layer = DropBlock2d(0.4, 3, schedule=4)
    x = torch.ones(2, 3, 6, 6)
    assert layer(x) is x
    rates = []
    for _ in range(6):
        layer.step()
        rates.append(layer.law.drop_rate((3, 6, 6)))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], abs=1e-9)
    unequal = Dropout([0.2, 0.6], schedule=2)
    unequal.step()
    np.testing.assert_allclose(1 - unequal.law.mean((2,)), [0.1, 0.3])
    for schedule in (ConstantSchedule(), None):
        assert Dropout(0.3, schedule=schedule).drop_rate == 0.3


def test_a_resumed_schedule_goes_on_where_it_was() -> None:
    layer = Dropout(0.5, schedule=LinearSchedule(10))
    for _ in range(3):
        layer.step()
    state = layer.state_dict()
    assert list(state) == ["steps"]
    resumed = Dropout(0.5, schedule=LinearSchedule(10))
    resumed.load_state_dict(state)
    for one in (layer, resumed, copy.deepcopy(layer)):
        one.step()
        assert one.drop_rate == pytest.approx(0.2)
        assert int(one.steps) == 4


def test_a_schedule_follows_the_optimizer_and_compiles_a_few_times() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Dropout(0.5, schedule=50), nn.Linear(4, 1), DropPath(0.5, schedule=50))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    handle = follow(model, optimizer)
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=count)
    for _ in range(20):
        compiled(torch.ones(5, 3)).sum().backward()
        optimizer.step()
    assert model[1].drop_rate == pytest.approx(0.2)
    assert len(graphs) == 2  # without noise and with it
    handle.remove()
    optimizer.step()
    assert int(model[3].steps) == 20
    with pytest.raises(InvalidArgumentError, match="insert_dropout"):
        follow(nn.Linear(2, 2), optimizer)


def test_repr_says_what_is_unusual() -> None:
    assert repr(Dropout()) == "Dropout(p=0.5)"
    assert repr(Dropout([0.1, 0.2], noise="gaussian")) == "Dropout(p=array of shape (2,), noise='gaussian')"
    shown = repr(DropBlock2d(0.1, 5, gamma="published", scale="count", share="channel", schedule=7))
    for part in ("p=0.1", "block_size=5", "gamma='published'", "scale='count'", "'channel'", "LinearSchedule(steps=7"):
        assert part in shown
    assert repr(MaskLayer(Bernoulli(0.5), scale="none")) == "MaskLayer(Bernoulli(keep_probability=0.5), scale='none')"


def test_deterministic_mode_is_the_identity_in_training() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(Dropout(0.5, mode="deterministic")(x), x)


@pytest.mark.parametrize("layer", [DropBlock1d(0.1), DropBlock2d(0.1), DropBlock3d(0.1)])
def test_wrong_number_of_axes(layer: NoiseLayer) -> None:
    for dims in (1, 6):
        with pytest.raises(InvalidArgumentError, match=r"\(N, C, "):
            layer(torch.ones((2,) * dims))


def test_refusals() -> None:
    for p in (-0.1, 1.0, float("nan"), "half", [0.1, 2.0], []):
        with pytest.raises(InvalidArgumentError, match="p must be"):
            Dropout(p)
    with pytest.raises(InvalidArgumentError, match="one drop probability"):
        DropPath([0.1, 0.2])  # type: ignore[arg-type]
    for options in ({"scale": "mean"}, {"share": "pixel"}, {"mode": "quiet"}, {"noise": "cauchy"}):
        with pytest.raises(UnknownNameError):
            Dropout(0.1, **options)
    with pytest.raises(UnknownNameError):
        DropBlock2d(0.1, gamma="timm")
    for options in ({"schedule": 0}, {"schedule": "linear"}, {"schedule": LinearSchedule}, {"generator": 3}):
        with pytest.raises(InvalidArgumentError):
            Dropout(0.1, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        DropBlock2d(0.1, 0)
    with pytest.raises(InvalidArgumentError, match="schedule needs p"):
        MaskLayer(Bernoulli(0.5), schedule=3)

    class Wild:
        def fraction(self, step: int) -> float:
            return 2.0

    with pytest.raises(InvalidArgumentError, match=r"\[0, 1\]"):
        Dropout(0.1, schedule=Wild())
