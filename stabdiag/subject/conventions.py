"""Arguments that a constructor needs and no call in the file tells: defaults of its argparse, else what they usually are."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from stabdiag.subject.usage import tree_of

_USUAL: dict[Any, str] = {
    3: "in_channels input_channels in_chans in_ch num_channels n_channels channels image_channels img_channels nc kernel_size",
    10: "num_classes n_classes nclass n_class classes num_class output_dim out_dim output_size out_size "
    "num_outputs out_features num_labels n_labels output_channels",
    1000: "vocab_size n_vocab ntoken num_embeddings num_tokens n_tokens src_vocab_size tgt_vocab_size src_vocab "
    "tgt_vocab vocab",
    64: "hidden_dim hidden_size n_hidden nhid hidden hidden_channels hidden_units h_dim d_model embed_dim "
    "embedding_dim emb_dim emb_size embed_size embedding_size n_embd dim width model_dim nfeat filters "
    "base_channels ngf ndf out_channels max_len max_seq_len seq_len block_size context_length max_length",
    32: "input_dim input_size in_dim in_features num_features n_features feature_dim nfeatures n_inputs num_inputs "
    "image_size img_size n_input",
    16: "latent_dim z_dim nz zdim latent_size code_dim bottleneck noise_dim",
    8: "state_dim obs_dim observation_dim state_size n_states",
    4: "num_heads n_heads nhead heads n_head num_actions action_dim n_actions action_size patch_size num_experts n_experts",
    2: "num_layers n_layers nlayers depth num_blocks n_blocks layers n_layer blocks num_block",
    128: "ff_dim d_ff dim_feedforward mlp_dim ffn_dim num_users num_items n_users n_items num_nodes",
    0.1: "dropout dropout_rate dropout_p drop drop_rate drop_prob p",
}
_VALUES = {name: value for value, names in _USUAL.items() for name in names.split()} | {"input_shape": (3, 32, 32)}


def guessed(target: Callable[..., Any], module: ModuleType, given: dict[str, Any]) -> dict[str, Any] | None:
    """A value for every argument without one; None where one is left that nothing tells."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    own = _argparse_defaults(module)
    found: dict[str, Any] = {}
    for parameter in required:
        name = parameter.name.lower()
        if parameter.name in given:
            continue
        if name in own:
            found[parameter.name] = own[name]
        elif name in _VALUES:
            found[parameter.name] = _VALUES[name]
        else:
            return None
    return found


def _argparse_defaults(module: ModuleType) -> dict[str, Any]:
    """The defaults in the file's calls of `add_argument("--name", default=…)`."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree_of(module)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument"):
            continue
        names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        default = next((k.value for k in node.keywords if k.arg == "default"), None)
        if isinstance(default, ast.Constant) and default.value is not None:
            found |= {name.lstrip("-").replace("-", "_").lower(): default.value for name in names if name.startswith("--")}
    return found
