"""Makes decoders.safetensors and decoders.json: small random models of four architectures, and their logits by transformers.

    python3 -m venv /tmp/decoders && /tmp/decoders/bin/pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0
    /tmp/decoders/bin/python test/golden/decoders.py

Weights are float16 values, computed with in float32. The script fails where the logits would prove little: where a form of attention
could be left out unnoticed.
"""

import json
from pathlib import Path

import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, GptOssConfig, MistralConfig
from transformers.models.bloom import modeling_bloom
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

FOLDER = Path(__file__).parent
LENGTH, VOCABULARY = 40, 53
POSITIONS = [0, 14, LENGTH - 1]

SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}
ROTARY = {"rope_type": "default", "rope_theta": 100.0}
ALTERNATING = ["sliding_attention", "full_attention"]

CONFIGS = {
    "mistral": MistralConfig(**SIZES, sliding_window=12, rope_parameters=ROTARY),
    # Both experts take part in every token.
    "gpt_oss": GptOssConfig(
        **SIZES,
        sliding_window=12,
        layer_types=ALTERNATING,
        num_local_experts=2,
        num_experts_per_tok=2,
        rope_parameters=ROTARY,
    ),
    "gemma2": Gemma2Config(
        **SIZES,
        sliding_window=12,
        layer_types=ALTERNATING,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
        query_pre_attn_scalar=12,
        rope_parameters=ROTARY,
    ),
    "bloom": BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4, pad_token_id=None),
}


def random_weights(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    def values(name: str, shape: torch.Size) -> torch.Tensor:
        uniform = torch.rand(shape, generator=generator) * 2 - 1
        if "norm" in name and name.endswith("weight"):
            # Gemma adds 1.
            return (0 if model.config.model_type == "gemma2" else 1) + 0.5 * uniform
        if name.endswith("sinks"):
            return 2 + uniform
        return (0.8 if any(part in name for part in ("q_proj", "k_proj", "query_key_value")) else 0.5) * uniform

    tied = model.config.tie_word_embeddings
    return {
        name: values(name, tensor.shape).half()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


def load(config, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    model.load_state_dict({name: values.float() for name, values in weights.items()}, strict=False)
    model.tie_weights()
    return model


@torch.no_grad()
def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]), use_cache=False).logits[0]


@torch.no_grad()
def check_forms(name: str, config, weights: dict[str, torch.Tensor], ids: list[int], expected: torch.Tensor) -> None:
    """Without each form of its attention a model gives other logits."""
    changes = {"sliding_window": 1000, "attn_logit_softcapping": None}
    for field, value in changes.items():
        if getattr(config, field, None) is not None:
            report(f"{name} without {field}", load(type(config)(**{**config.to_dict(), field: value}), weights), ids, expected)
    sinks = [part for part in weights if part.endswith("sinks")]
    if sinks:
        changed = {**weights, **{part: torch.full_like(weights[part], -1e4) for part in sinks}}
        report(f"{name} without sinks", load(config, changed), ids, expected)
    if name == "bloom":
        slopes = modeling_bloom._get_alibi_slopes
        modeling_bloom._get_alibi_slopes = lambda *given: 0 * slopes(*given)
        report("bloom without slopes", load(config, weights), ids, expected)
        modeling_bloom._get_alibi_slopes = slopes


def report(what: str, model: torch.nn.Module, ids: list[int], expected: torch.Tensor) -> None:
    error = float((logits_of(model, ids)[-1] - expected[-1]).norm() / expected[-1].norm())
    print(f"{what}: {error:.2g}")
    assert error > 0.01, f"{what}: logits differ by {error}; accepted: more than 0.01"


def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (LENGTH,), generator=generator).tolist()
    tensors, models = {}, {}
    for name, config in CONFIGS.items():
        weights = random_weights(AutoModelForCausalLM.from_config(config), generator)
        tensors.update({f"{name}.{part}": values for part, values in weights.items()})
        logits = logits_of(load(config, weights), ids)
        check_forms(name, config, weights, ids, logits)
        # Nine digits hold a float32.
        models[name] = {"logits": [[float(f"{x:.9g}") for x in logits[position].tolist()] for position in POSITIONS]}
    slopes = build_alibi_tensor(torch.ones(1, 2), CONFIGS["bloom"].n_head, torch.float32)[:, 0, 1].tolist()
    safetensors.torch.save_file(tensors, FOLDER / "decoders.safetensors", metadata={"format": "pt"})
    made = {"ids": ids, "positions": POSITIONS, "bloomSlopes": slopes, "models": models}
    (FOLDER / "decoders.json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
