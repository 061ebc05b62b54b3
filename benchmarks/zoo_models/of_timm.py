"""Models of timm with ten classes: small variants, and attention models made shallow by their own arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["MODELS"]


def entry(name: str, size: int = 64, rows: int = 2, **options: Any) -> Any:
    def build() -> tuple[nn.Module, Any]:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options), torch.randn(rows, 3, size, size)

    return build


def mixer(block: str = "MixerBlock", **options: Any) -> Any:
    def build() -> tuple[nn.Module, Any]:
        from timm.models import mlp_mixer

        named = {key: getattr(mlp_mixer, one) if isinstance(one, str) else one for key, one in options.items()}
        made = mlp_mixer.MlpMixer(
            num_classes=10, img_size=64, patch_size=8, num_blocks=3, embed_dim=128,
            block_layer=getattr(mlp_mixer, block), **named,
        )  # fmt: skip
        return made, torch.randn(2, 3, 64, 64)

    return build


VIT = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 3, "num_heads": 4}

MODELS = {
    name: entry(name)
    for name in (
        "resnet10t", "resnet26", "seresnext26ts", "ecaresnet26t", "resnetv2_18", "nf_resnet26", "efficientnet_b0",
        "efficientnet_lite0", "tf_efficientnetv2_b0", "mobilenetv1_100", "mobilenetv2_050", "mobilenetv3_small_050",
        "mobilenetv4_conv_small", "fbnetc_100", "mnasnet_small", "hardcorenas_a", "regnetx_002", "regnety_002",
        "repvgg_a0", "densenet121", "hrnet_w18_small", "dla34", "ese_vovnet19b_dw", "ghostnet_050", "res2net50_14w_8s",
        "skresnet18", "selecsls42b", "lcnet_050", "tinynet_e", "rexnet_100", "semnasnet_050", "cspdarknet53", "dpn48b",
        "convnext_atto", "convnextv2_atto", "poolformer_s12", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small",
        "fastvit_t8", "repghostnet_050", "starnet_s1", "inception_next_atto", "efficientvit_b0",
    )
} | {
    "vit": entry("vit_tiny_patch16_224", **VIT),
    "vit relative positions": entry("vit_relpos_small_patch16_224", **VIT),
    "deit": entry("deit_tiny_patch16_224", **VIT),
    "deit distilled": entry("deit_tiny_distilled_patch16_224", **VIT),
    "eva02": entry("eva02_tiny_patch14_224", 56, **{**VIT, "img_size": 56}),
    "beit": entry("beit_base_patch16_224", **VIT),
    "cait": entry("cait_xxs24_224", **VIT),
    "xcit": entry("xcit_nano_12_p16_224", **VIT),
    "levit": entry("levit_128s", 224, 1),
    "pit": entry("pit_ti_224", 224, 1),
    "mixer": mixer(),
    "resmlp": mixer("ResBlock", mlp_ratio=4, norm_layer="Affine"),
    "gmlp": mixer("SpatialGatingBlock", mlp_ratio=6, mlp_layer="GatedMlp"),
    "swin": entry("swin_tiny_patch4_window7_224", 56, img_size=56, embed_dim=32, depths=(2, 2), num_heads=(2, 4)),
    "swin v2": entry("swinv2_tiny_window8_256", img_size=64, embed_dim=32, depths=(2, 2), num_heads=(2, 4)),
    "twins": entry("twins_svt_small"),
    "coat": entry("coat_lite_tiny", 64, img_size=64),
    "convit": entry("convit_tiny", **VIT),
    "crossvit": entry("crossvit_tiny_240", 240, 1),
}  # fmt: skip
