"""Published architectures from small configurations, in three lines and with no example inputs."""

import pytest

from stabdiag.subject.load import load

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VISION = SMALL | {"image_size": 32, "patch_size": 8, "num_labels": 4}
ENCODER_DECODER = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
AUDIO = (
    ENCODER_DECODER
    | {"num_mel_bins": 20, "max_source_positions": 50, "pad_token_id": 0, "decoder_start_token_id": 3}
    | {
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
)
SEGFORMER = {"depths": [1] * 4, "hidden_sizes": [8, 16, 16, 16], "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}


MODELS = {
    "BertForMaskedLM": ("BertConfig", SMALL | {"vocab_size": 99}, "the model's own loss"),
    "BertForSequenceClassification": ("BertConfig", SMALL | {"vocab_size": 99, "num_labels": 3}, "the model's own loss"),
    "LlamaForCausalLM": ("LlamaConfig", SMALL | {"vocab_size": 99}, "the model's own loss"),
    "MambaForCausalLM": ("MambaConfig", {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2}, "the model's own loss"),
    "T5ForConditionalGeneration": (
        "T5Config",
        {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
        "the model's own loss",
    ),
    "T5Model": ("T5Config", {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1}, "mean square"),
    "BartForConditionalGeneration": ("BartConfig", ENCODER_DECODER, "the model's own loss"),
    "WhisperForConditionalGeneration": ("WhisperConfig", AUDIO, "the model's own loss"),
    "ViTForImageClassification": ("ViTConfig", VISION, "the model's own loss"),
    "ViTModel": ("ViTConfig", VISION, "mean square"),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", VISION | {"num_frames": 4}, "the model's own loss"),
    "ResNetForImageClassification": (
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        "the model's own loss",
    ),
    "SegformerForSemanticSegmentation": ("SegformerConfig", SEGFORMER, "the model's own loss"),
    "ASTForAudioClassification": ("ASTConfig", SMALL | {"max_length": 64, "num_mel_bins": 32}, "the model's own loss"),
    "PatchTSTForPrediction": (
        "PatchTSTConfig",
        {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 16, "ffn_dim": 16,
         "num_hidden_layers": 1, "num_attention_heads": 2},
        "mean square",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_loads_in_three_lines(name, write):
    pytest.importorskip("transformers")
    configuration, arguments, objective = MODELS[name]
    path = write(
        f"from transformers import {configuration}, {name}\nconfig = {configuration}(**{arguments!r})\nmodel = {name}(config)",
        imports="",
    )
    subject = load(str(path))
    assert subject.facts.objective.startswith(objective)
    inputs = subject.batch(1)
    loss = subject.loss(subject.model(*inputs.args, **inputs.kwargs), inputs)
    assert loss.shape == () and loss.isfinite() and loss.requires_grad


def test_a_model_class_with_a_configuration_of_defaults(write):
    pytest.importorskip("transformers")
    path = write(
        "from transformers import GPT2Config, GPT2LMHeadModel\n\nclass Small(GPT2LMHeadModel):\n    pass\n", imports=""
    )
    small = {"n_layer": "1", "n_embd": "16", "n_head": "2", "vocab_size": "50"}
    assert load(str(path), arguments=small).model.config.vocab_size == 50
