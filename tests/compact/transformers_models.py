"""Models of Hugging Face transformers, tiny, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

TEXT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50,
    "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2}
PICTURE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
PAIRS = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
}  # fmt: skip


def text() -> dict[str, Any]:
    ids = torch.randint(5, 50, (2, 7))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def pairs() -> dict[str, Any]:
    return {**text(), "decoder_input_ids": torch.randint(5, 50, (2, 4))}


def image(size: int = 32) -> Any:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


# name -> (configuration, class, options, inputs, least share that is removable)
MODELS: dict[str, tuple[str, str, dict[str, Any], Any, float]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", TEXT, text, 0.75),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", TEXT, text, 0.7),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 50, "max_position_embeddings": 32},
        text,
        0.75,
    ),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification", {**TEXT, "embedding_size": 16}, text, 0.7),
    "electra": ("ElectraConfig", "ElectraForSequenceClassification", {**TEXT, "embedding_size": 16}, text, 0.7),
    "deberta v2": (
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
        text,
        0.6,
    ),
    "mobilebert": (
        "MobileBertConfig",
        "MobileBertForSequenceClassification",
        {**TEXT, "embedding_size": 16, "true_hidden_size": 32, "intra_bottleneck_size": 32},
        text,
        0.95,
    ),
    "modernbert": ("ModernBertConfig", "ModernBertForSequenceClassification", {**TEXT, "pad_token_id": 0}, text, 0.8),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 32},
        text,
        0.8,
    ),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "vocab_size": 50,
         "word_embed_proj_dim": 32, "max_position_embeddings": 32},
        text,
        0.75,
    ),
    "gpt neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", TEXT, text, 0.7),
    "llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED, text, 0.99),
    "mistral": ("MistralConfig", "MistralForCausalLM", GROUPED, text, 0.99),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED, text, 0.99),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**GROUPED, "head_dim": 8}, text, 0.99),
    "phi": ("PhiConfig", "PhiForCausalLM", TEXT, text, 0.8),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
        pairs,
        0.9,
    ),
    "bart": ("BartConfig", "BartForConditionalGeneration", {**PAIRS, "max_position_embeddings": 32}, pairs, 0.7),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {**PAIRS, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        lambda: {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": torch.randint(5, 50, (2, 4))},
        0.85,
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        "Wav2Vec2ForCTC",
        {**TEXT, "conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
         "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        lambda: {"input_values": torch.randn(2, 400)},
        0.65,
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", PICTURE, image(), 0.65),
    "deit": ("DeiTConfig", "DeiTForImageClassification", PICTURE, image(), 0.65),
    "convnext": (
        "ConvNextConfig",
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 32},
        image(),
        0.6,
    ),
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]},
        image(),
        0.99,
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4],
         "decoder_hidden_size": 16, "sr_ratios": [4, 2, 1, 1]},
        image(64),
        0.6,
    ),
    "clip vision": ("CLIPVisionConfig", "CLIPVisionModel", PICTURE, image(), 0.65),
    "clip text": ("CLIPTextConfig", "CLIPTextModel", TEXT, text, 0.7),
    "mobilevit": (
        "MobileViTConfig",
        "MobileViTForImageClassification",
        {"image_size": 64, "patch_size": 2, "hidden_sizes": [24, 32, 40], "num_attention_heads": 4,
         "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]},
        image(64),
        0.95,
    ),
}  # fmt: skip

# One of each kind, for the suite that always runs.
CORE = ("bert", "llama", "t5", "vit", "wav2vec2", "resnet")


def built(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode and one batch."""
    import transformers

    torch.manual_seed(0)
    config, kind, options, inputs, _ = MODELS[name]
    return getattr(transformers, kind)(getattr(transformers, config)(**options)).eval(), inputs()
