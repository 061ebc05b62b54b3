"""Models of torchvision with ten classes; wide ones are made narrower by their own arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["MODELS"]

TEN = {"weights": None, "num_classes": 10}
AUX = {**TEN, "init_weights": False, "aux_logits": False}


def entry(name: str, shape: tuple[int, ...] = (2, 3, 64, 64), place: str = "", **options: Any) -> Any:
    def build() -> tuple[nn.Module, Any]:
        from torchvision import models

        room = getattr(models, place) if place else models
        return getattr(room, name)(**{**TEN, **options}), torch.randn(shape)

    return build


def built(make: Callable[[Any], nn.Module], shape: tuple[int, ...] = (2, 3, 64, 64)) -> Any:
    def build() -> tuple[nn.Module, Any]:
        from torchvision import models

        return make(models), torch.randn(shape)

    return build


def vgg(models: Any) -> nn.Module:
    from torchvision.models.vgg import make_layers

    made: nn.Module = models.VGG(nn.Identity(), num_classes=10, init_weights=False)
    made.features = make_layers([16, "M", 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"], batch_norm=True)
    sizes = {0: (128 * 49, 256), 3: (256, 256), 6: (256, 10)}
    for place, (inside, outside) in sizes.items():
        made.classifier[place] = nn.Linear(inside, outside)
    return made


def swin(models: Any, **options: Any) -> nn.Module:
    made: nn.Module = models.SwinTransformer(
        patch_size=[4, 4], embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4], num_classes=10, **options
    )
    return made


def swin_v2(models: Any) -> nn.Module:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

    return swin(models, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)


def maxvit(models: Any) -> nn.Module:
    made: nn.Module = models.MaxVit(
        input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[16, 32], block_layers=[1, 1],
        head_dim=8, stochastic_depth_prob=0.1, num_classes=10,
    )  # fmt: skip
    return made


def vit(models: Any) -> nn.Module:
    made: nn.Module = models.VisionTransformer(64, 8, 3, 4, 128, 512, num_classes=10)
    return made


def narrow(base: str, width: int) -> Any:
    return built(lambda models: getattr(models, base)(weights=None, num_classes=10, width_per_group=width))


MODELS = {
    "resnet18": entry("resnet18"),
    "resnet50": narrow("resnet50", 16),
    "resnext50 32x4d": entry("resnext50_32x4d"),
    "wide resnet50 2": narrow("resnet50", 32),
    "vgg11 bn": built(vgg),
    "alexnet": entry("alexnet"),
    "googlenet": entry("googlenet", init_weights=False, aux_logits=False),
    "inception v3": entry("inception_v3", (2, 3, 96, 96), init_weights=False, aux_logits=False),
    "densenet121": built(lambda models: models.DenseNet(8, (6, 12, 24, 16), 16, num_classes=10)),
    "mobilenet v2": entry("mobilenet_v2", width_mult=0.5),
    "mobilenet v3 small": entry("mobilenet_v3_small"),
    "mobilenet v3 large": entry("mobilenet_v3_large"),
    "efficientnet b0": entry("efficientnet_b0"),
    "efficientnet v2 s": entry("efficientnet_v2_s"),
    "mnasnet0 5": entry("mnasnet0_5"),
    "shufflenet v2 x0 5": entry("shufflenet_v2_x0_5"),
    "squeezenet1 1": entry("squeezenet1_1"),
    "regnet y 400mf": entry("regnet_y_400mf"),
    "regnet x 400mf": entry("regnet_x_400mf"),
    "convnext of two stages": built(
        lambda models: models.ConvNeXt(
            [models.convnext.CNBlockConfig(16, 32, 2), models.convnext.CNBlockConfig(32, None, 2)], num_classes=10
        )
    ),
    "swin": built(swin),
    "swin v2": built(swin_v2),
    "vit": built(vit),
    "maxvit": built(maxvit),
    "fcn resnet50": entry("fcn_resnet50", place="segmentation", weights_backbone=None),
    "deeplabv3 resnet50": entry("deeplabv3_resnet50", place="segmentation", weights_backbone=None),
    "lraspp": entry("lraspp_mobilenet_v3_large", place="segmentation", weights_backbone=None),
    "r3d 18": entry("r3d_18", (1, 3, 4, 32, 32), place="video"),
    "r2plus1d 18": entry("r2plus1d_18", (1, 3, 4, 32, 32), place="video"),
    "mvit v1": built(
        lambda models: models.video.MViT(
            (32, 32),
            4,
            [
                models.video.mvit.MSBlockConfig(1, 16, 32, [], [3, 3, 3], [], [1, 2, 2]),
                models.video.mvit.MSBlockConfig(2, 32, 32, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
            ],
            False, False, False, False, num_classes=10,
        ),
        (1, 3, 4, 32, 32),
    ),
}  # fmt: skip
