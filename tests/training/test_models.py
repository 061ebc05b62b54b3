"""Models take the data's shape, and a user's own factory is checked before it is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from obverse.errors import InvalidArgumentError, UnknownNameError
from obverse.training import MODELS, build_model
from obverse.training._models import TEXT_MODELS


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 17, 23)])
def test_models_fit_image_shapes(name, shape):
    model = build_model(name, shape, 7)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["mlp", "lenet-300-100"])
def test_dense_models_take_features(name):
    assert build_model(name, (5,), 2)(torch.zeros(3, 5)).shape == (3, 2)


def count(name, shape):
    return sum(parameter.numel() for parameter in build_model(name, shape, 10).parameters())


def test_sizes_are_the_published_ones():
    assert count("lenet-300-100", (1, 28, 28)) == 266_610
    assert count("lenet-5", (1, 28, 28)) == 431_080
    # 0.27 M with identity shortcuts; two projections with their norms come on top.
    assert count("resnet20", (3, 32, 32)) == 269_722 + 16 * 32 + 64 + 32 * 64 + 128


@pytest.mark.parametrize("name", ["lenet-5", "resnet20"])
def test_image_models_refuse_features(name):
    with pytest.raises(InvalidArgumentError, match="needs images"):
        build_model(name, (5,), 2)


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="did you mean 'lenet-5'"):
        build_model("lenet5", (1, 28, 28), 10)


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n"
        "def sized(input_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], num_classes))\n"
        "def fixed():\n    return nn.Linear(4, 3)\n"
        "def open_ended(**kw):\n    return nn.Linear(kw['input_shape'][0], kw['num_classes'])\n"
        "def wrong():\n    return 'a model'\n"
        "def boom():\n    raise RuntimeError('no\\nidea')\n"
        "def leaves():\n    raise SystemExit(3)\n"
        "def needs(width):\n    return nn.Linear(width, 3)\n"
        "constant = 3\n"
    )
    (tmp_path / "nets_half_typed.py").write_text("def f(:\n")
    (tmp_path / "nets_that_divide.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "nets_of_mine", raising=False)


@pytest.mark.usefixtures("package")
class TestFactory:
    @pytest.mark.parametrize("name", ["sized", "fixed", "open_ended"])
    def test_keywords_are_offered(self, name):
        model = build_model(f"nets_of_mine:{name}", (4,), 3)
        assert isinstance(model, nn.Module)
        assert model.training

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("nets_of_mine:absent", "cannot import"),
            ("no_such_module_here:f", "cannot import"),
            ("nets_of_mine:wrong", "returned str"),
            ("nets_of_mine:constant", "not callable"),
            ("nets_of_mine:boom", "cannot be built: RuntimeError: no$"),
            ("nets_of_mine:leaves", "cannot be built: SystemExit: 3"),
            ("nets_of_mine:needs", "missing a required argument: 'width'; a factory is called with"),
            ("nets_half_typed:f", "cannot import .*: SyntaxError"),
            ("nets_that_divide:f", "cannot import .*: ZeroDivisionError: division by zero"),
        ],
    )
    def test_what_is_refused(self, name, match):
        with pytest.raises(InvalidArgumentError, match=match) as caught:
            build_model(name, (4,), 3)
        assert "\n" not in str(caught.value)

    def test_shapes_are_checked(self):
        with pytest.raises(InvalidArgumentError, match=r"expected shape \(2, 5\)"):
            build_model("nets_of_mine:fixed", (4,), 5)
        with pytest.raises(InvalidArgumentError, match="cannot take inputs"):
            build_model("nets_of_mine:fixed", (9,), 3)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_width_scales_the_hidden_layers(name):
    full, half, least = (build_model(name, (1, 16, 16), 7, width) for width in (1.0, 0.5, 1e-6))
    assert [p.shape for p in full.parameters()] == [p.shape for p in build_model(name, (1, 16, 16), 7).parameters()]
    sizes = [sum(p.numel() for p in model.parameters()) for model in (full, half, least)]
    assert sizes[0] > 1.9 * sizes[1] > sizes[2]
    assert all(model(torch.zeros(2, 1, 16, 16)).shape == (2, 7) for model in (half, least))


def test_a_factory_needs_the_keyword_for_another_width(package):
    with pytest.raises(InvalidArgumentError, match="takes no keyword 'width'"):
        build_model("nets_of_mine:fixed", (4,), 3, 0.5)


@pytest.mark.parametrize("width", [1e5, 1e9, 1e18])
@pytest.mark.parametrize("name", [*MODELS, *TEXT_MODELS])
def test_a_model_that_does_not_fit_is_refused_before_it_is_made(name, width):
    texts = name in TEXT_MODELS
    before = torch.get_rng_state()
    with pytest.raises(
        InvalidArgumentError, match=f"model {name} at width .* weights need .* lower the width"
    ) as caught:
        build_model(name, (30,) if texts else (1, 28, 28), 10, width, 32_768 if texts else None)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)


def test_sizing_a_model_does_not_change_its_weights():
    torch.manual_seed(0)
    sized = build_model("mlp", (12,), 3, width=2.5)
    torch.manual_seed(0)
    plain = MODELS["mlp"]((12,), 3, 2.5)
    assert all(torch.equal(a, b) for a, b in zip(sized.parameters(), plain.parameters(), strict=True))
