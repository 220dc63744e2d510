"""Writes a tiny checkpoint as convert_hf_to_gguf.py of llama.cpp writes one, by gguf-py; matrices in Q8_0."""

from pathlib import Path

import gguf
import numpy as np
import torch

GROUP = 32

# Both kinds of post_attention_layernorm: Llama's is the norm before the MLP.
LAYER_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NORMS = {
    "llama": {"post_attention_layernorm": "ffn_norm"},
    "gemma3": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
}
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def q8_values(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix in whole multiples, up to 127, of a power of two, with one of 127 in each group: Q8_0 and float16 hold it exactly."""
    groups = matrix.float().reshape(-1, GROUP)
    scale = 2.0 ** torch.round(torch.log2(groups.abs().amax() / 127))
    whole = torch.round(groups / scale).clamp(-126, 126)
    whole[:, 0] = torch.where(whole[:, 0] < 0, -127, 127)
    return (whole * scale).reshape(matrix.shape).half()


def name_in_file(name: str, arch: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, layer, part = name.split(".", 3)
    stem, kind = part.rsplit(".", 1)
    return f"blk.{layer}.{ {**LAYER_PARTS, **NORMS[arch]}[stem] }.{kind}"


def neighbours(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in the order of llama.cpp's files of llama: the two of a pair side by side."""
    return matrix.reshape(heads, 2, -1, matrix.shape[-1]).swapaxes(1, 2).reshape(matrix.shape)


def write_gguf(path: Path, config: dict, weights: dict[str, torch.Tensor]) -> None:
    is_gemma = config["model_type"] == "gemma3_text"
    arch = "gemma3" if is_gemma else "llama"
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_sliding_window(config["sliding_window"])
    if is_gemma:
        rotary = config["rope_parameters"]
        writer.add_rope_freq_base(rotary["full_attention"]["rope_theta"])
        writer.add_rope_freq_base_swa(rotary["sliding_attention"]["rope_theta"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rotary["full_attention"]["factor"])
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    else:
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_freq_base(config["rope_theta"])
    add_tokenizer(writer, config["vocab_size"])
    for name, tensor in weights.items():
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name_in_file(name, arch), values + is_gemma)
            continue
        for projection, count in (("q_proj", heads), ("k_proj", key_heads)):
            if arch == "llama" and f".{projection}." in name:
                values = neighbours(values, count)
        quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        back = gguf.quants.dequantize(quantised, gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(back, values), f"{name} is not what Q8_0 holds of it"
        writer.add_tensor(name_in_file(name, arch), quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    """Gemma's special tokens, then characters."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    tokens = [*special, *(chr(ord("\u2581") if i == 0 else 32 + i) for i in range(95))]
    tokens += [chr(0x3B1 + i) for i in range(size - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(size)])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([int(control if i < len(special) else normal) for i in range(size)])
    writer.add_bos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)
