"""A language model from a GGUF file as transformers' Llama, and tokens for it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from packaged.packages import imported
from packaged.pictures import words

LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""Name in a block of the file -> in a layer of the module."""
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def llama(path: Path) -> nn.Module:
    """The module of a file of the architecture Llama, with tied embeddings; it has no cache."""
    gguf, transformers = imported("gguf"), imported("transformers")
    reader = gguf.GGUFReader(path)

    def value(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, shared = value("attention.head_count"), value("attention.head_count_kv")
    config = transformers.LlamaConfig(
        vocab_size=value("vocab_size"),
        hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base"),
        max_position_embeddings=value("context_length"),
        tie_word_embeddings=True,
        use_cache=False,
    )
    weights = {}
    for tensor in reader.tensors:
        weight = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type))).float()
        *block, kind, _ = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            weight = _unpaired(weight, heads if kind == "attn_q" else shared)
        name = f"model.layers.{block[1]}.{LAYER[kind]}" if block else OUTSIDE[kind]
        weights[f"{name}.weight"] = weight
    network: nn.Module = transformers.LlamaForCausalLM(config)
    missing = network.load_state_dict(weights, strict=False)
    assert missing.missing_keys == ["lm_head.weight"], missing
    assert not missing.unexpected_keys, missing
    return network.eval()


def windows(rng: Generator, path: Path, length: int) -> NDArray[Any]:
    """Tokens of Python's manual, int64 [1, length], by the tokenizer in a GGUF file."""
    return np.array([_tokenizer(path).encode(" ".join(words(rng, length))).ids[:length]])


@cache
def _tokenizer(path: Path) -> Any:
    gguf, tokenizers = imported("gguf"), imported("tokenizers")
    fields = gguf.GGUFReader(path).fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    pairs = [tuple(merge.split(" ")) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    splits = tokenizers.pre_tokenizers
    tokenizer.pre_tokenizer = splits.Sequence(
        [splits.Digits(individual_digits=True), splits.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def _unpaired(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys in the order of transformers, from that of llama.cpp, which pairs them."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
