"""Tiny random causal language models of many architectures, built from their configurations."""

from typing import Any

SMALL = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
USUAL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4}
NEOX = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt_neox": NEOX,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
    "phi": NEOX,
    "phi3": USUAL,
    "llama": USUAL,
    "mistral": USUAL,
    "gemma": USUAL,
    "qwen2": USUAL,
    "qwen3": USUAL,
    "olmo": NEOX,
    "olmo2": NEOX,
    "smollm3": USUAL,
}
TARGETS = {
    **{kind: ["q_proj", "v_proj"] for kind in SIZES},
    "gpt2": ["c_attn"],
    "gpt_neox": ["query_key_value"],
    "bloom": ["query_key_value"],
    "falcon": ["query_key_value"],
    "mpt": ["Wqkv"],
    "phi": ["q_proj", "v_proj", "fc1", "fc2"],
    "phi3": ["qkv_proj"],
}


def make(kind: str) -> Any:
    """A random model of the architecture in float32, ready to read from."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL, **SIZES[kind])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
