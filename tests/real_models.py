"""Real architectures from `transformers`, built small from their configurations: no weights, no network."""

from __future__ import annotations

SMALL = "vocab_size=256, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128"

REAL_MODELS = {
    "GPT2": "GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=64, n_embd=64, n_layer=3, n_head=4))",
    "Bert": f"BertForMaskedLM(BertConfig({SMALL}, max_position_embeddings=64))",
    "T5": "T5ForConditionalGeneration(T5Config(vocab_size=256, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, "
    "decoder_start_token_id=0))",
    "Llama": f"LlamaForCausalLM(LlamaConfig({SMALL}, num_key_value_heads=2, max_position_embeddings=64))",
    "Mamba": "MambaForCausalLM(MambaConfig(vocab_size=256, hidden_size=64, state_size=8, num_hidden_layers=3))",
    "ViT": "ViTForImageClassification(ViTConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, "
    "intermediate_size=128, image_size=32, patch_size=8, num_labels=10))",
    "ResNet": "ResNetForImageClassification(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[2, 2, 2], "
    "layer_type='basic', num_labels=10))",
    "Whisper": "WhisperForConditionalGeneration(WhisperConfig(vocab_size=256, num_mel_bins=16, d_model=64, encoder_layers=2, "
    "decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, "
    "max_source_positions=32, max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, "
    "decoder_start_token_id=1))",
    "DistilBert": "DistilBertForMaskedLM(DistilBertConfig(vocab_size=256, dim=64, n_layers=3, n_heads=4, hidden_dim=128, "
    "max_position_embeddings=64))",
    "Mistral": f"MistralForCausalLM(MistralConfig({SMALL}, num_key_value_heads=2))",
    "Qwen2": f"Qwen2ForCausalLM(Qwen2Config({SMALL}, num_key_value_heads=2))",
    "Phi": f"PhiForCausalLM(PhiConfig({SMALL}))",
    "ConvNext": "ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 2, 1], "
    "image_size=64, num_labels=10))",
    "OPT": "OPTForCausalLM(OPTConfig(vocab_size=256, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, ffn_dim=128, "
    "max_position_embeddings=64, word_embed_proj_dim=64))",
}


def source_of(name: str) -> str:
    """The model file an author would write: three lines."""
    call = REAL_MODELS[name]
    model, config = call.split("(")[0], call.split("(")[1]
    return f"from transformers import {config}, {model}\n\nmodel = {call}\n"
