"""Models of Hugging Face transformers with their heads: vocabulary 200, width 128, three layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["MODELS"]

TEXT = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "vocab_size": 200,
}
NAMED = {"n_layer": 3, "n_head": 4, "vocab_size": 200}
SHORT = {**TEXT, "max_position_embeddings": 64}
GROUPED = {**SHORT, "num_key_value_heads": 2}
VIT = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "image_size": 32,
    "patch_size": 8,
}
SEQ2SEQ = {
    "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
}  # fmt: skip


def text() -> dict[str, Any]:
    ids = torch.randint(5, 200, (2, 12))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pairs() -> dict[str, Any]:
    return {**text(), "decoder_input_ids": torch.randint(5, 200, (2, 7))}


def images(size: int = 32) -> Callable[[], dict[str, Any]]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def entry(config: str, model: str, options: dict[str, Any], inputs: Callable[[], dict[str, Any]]) -> Any:
    def build() -> tuple[nn.Module, Any]:
        import transformers

        settings = getattr(transformers, config)(**options)
        return getattr(transformers, model)(settings), inputs()

    return build


MODELS = {
    "bert": entry("BertConfig", "BertForSequenceClassification", SHORT, text),
    "bert masked": entry("BertConfig", "BertForMaskedLM", SHORT, text),
    "distilbert": entry(
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"dim": 128, "n_layers": 3, "n_heads": 4, "hidden_dim": 512, "vocab_size": 200, "max_position_embeddings": 64},
        text,
    ),
    "roberta": entry("RobertaConfig", "RobertaForMaskedLM", SHORT, text),
    "albert": entry("AlbertConfig", "AlbertForSequenceClassification", {**SHORT, "embedding_size": 64}, text),
    "electra": entry("ElectraConfig", "ElectraForSequenceClassification", {**SHORT, "embedding_size": 64}, text),
    "deberta v2": entry(
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {**SHORT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": 16},
        text,
    ),
    "mobilebert": entry(
        "MobileBertConfig",
        "MobileBertForSequenceClassification",
        {**SHORT, "embedding_size": 64, "true_hidden_size": 64, "intra_bottleneck_size": 64},
        text,
    ),
    "modernbert": entry("ModernBertConfig", "ModernBertForSequenceClassification", {**SHORT, "pad_token_id": 0}, text),
    "mpnet": entry("MPNetConfig", "MPNetForSequenceClassification", SHORT, text),
    "camembert": entry("CamembertConfig", "CamembertForTokenClassification", SHORT, text),
    "xlm roberta": entry("XLMRobertaConfig", "XLMRobertaForQuestionAnswering", SHORT, text),
    "gpt2": entry("GPT2Config", "GPT2LMHeadModel", {**NAMED, "n_embd": 128, "n_positions": 64}, text),
    "opt": entry(
        "OPTConfig",
        "OPTForCausalLM",
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 512, "vocab_size": 200,
             "word_embed_proj_dim": 128, "max_position_embeddings": 64},
        text,
    ),
    "gpt neox": entry("GPTNeoXConfig", "GPTNeoXForCausalLM", SHORT, text),
    "bloom": entry("BloomConfig", "BloomForCausalLM", {**NAMED, "hidden_size": 128}, text),
    "falcon": entry(
        "FalconConfig",
        "FalconForCausalLM",
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 200},
        text,
    ),
    "llama": entry("LlamaConfig", "LlamaForCausalLM", GROUPED, text),
    "mistral": entry("MistralConfig", "MistralForCausalLM", GROUPED, text),
    "qwen2": entry("Qwen2Config", "Qwen2ForCausalLM", GROUPED, text),
    "qwen3": entry("Qwen3Config", "Qwen3ForCausalLM", {**GROUPED, "head_dim": 32}, text),
    "gemma": entry("GemmaConfig", "GemmaForCausalLM", {**GROUPED, "head_dim": 32}, text),
    "gemma2": entry("Gemma2Config", "Gemma2ForCausalLM", {**GROUPED, "head_dim": 32}, text),
    "phi": entry("PhiConfig", "PhiForCausalLM", SHORT, text),
    "olmo2": entry("Olmo2Config", "Olmo2ForCausalLM", {**GROUPED, "pad_token_id": 0}, text),
    "stablelm": entry("StableLmConfig", "StableLmForCausalLM", GROUPED, text),
    "t5": entry(
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": 200, "d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4},
        pairs,
    ),
    "bart": entry(
        "BartConfig",
        "BartForConditionalGeneration",
        {**SEQ2SEQ, "vocab_size": 200, "max_position_embeddings": 64},
        pairs,
    ),
    "marian": entry(
        "MarianConfig",
        "MarianMTModel",
        {**SEQ2SEQ, "vocab_size": 200, "max_position_embeddings": 64, "pad_token_id": 0, "decoder_start_token_id": 0},
        pairs,
    ),
    "whisper": entry(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {**SEQ2SEQ, "vocab_size": 200, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20,
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        lambda: {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": torch.randint(5, 200, (2, 4))},
    ),
    "wav2vec2": entry(
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        {**TEXT, "conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        lambda: {"input_values": torch.randn(2, 400)},
    ),
    "hubert": entry(
        "HubertConfig",
        "HubertForCTC",
        {**TEXT, "conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        lambda: {"input_values": torch.randn(2, 400)},
    ),
    "vit": entry("ViTConfig", "ViTForImageClassification", VIT, images()),
    "deit": entry("DeiTConfig", "DeiTForImageClassification", VIT, images()),
    "dinov2": entry(
        "Dinov2Config",
        "Dinov2ForImageClassification",
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 4, "image_size": 32,
         "patch_size": 8},
        images(),
    ),
    "swin": entry(
        "SwinConfig",
        "SwinForImageClassification",
        {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4},
        images(),
    ),
    "convnext": entry(
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1], "image_size": 32},
        images(),
    ),
    "resnet": entry(
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 80], "depths": [1, 1, 1, 1]},
        images(),
    ),
    "regnet": entry(
        "RegNetConfig",
        "RegNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 80], "depths": [1, 1, 1, 1], "groups_width": 16},
        images(),
    ),
    "segformer": entry(
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
             "decoder_hidden_size": 32, "sr_ratios": [4, 2, 1, 1]},
        images(64),
    ),
    "mobilevit": entry(
        "MobileViTConfig",
        "MobileViTForImageClassification",
        {"image_size": 64, "patch_size": 2, "hidden_sizes": [24, 32, 40], "num_attention_heads": 4,
         "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]},
        images(64),
    ),
    "clip vision": entry("CLIPVisionConfig", "CLIPVisionModel", VIT, images()),
    "clip text": entry("CLIPTextConfig", "CLIPTextModel", SHORT, text),
}  # fmt: skip
