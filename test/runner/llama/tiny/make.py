"""Makes the tiny checkpoints of this folder and what transformers computes with them.

    python3 -m venv /tmp/tiny && /tmp/tiny/bin/pip install torch==2.13.0 transformers==5.24.0 safetensors==0.8.0 gguf==0.19.0
    /tmp/tiny/bin/python test/runner/llama/tiny/make.py

Each folder gets what a checkpoint of Hugging Face has, config.json and model.safetensors, and expected.json: ids of a
prompt, logits after some of its tokens, and the 16 tokens of a greedy continuation. Weights are random float16 values,
which transformers reads into float32 to compute in. Those named ..._gguf are one file, model.gguf, of the same values in Q8_0, and
expected.json. config.json is written here by hand, with the fields and the gaps of
published ones, so that transformers reads the same file as the runner. The script fails where a checkpoint would prove
little: where a part of the decoder could be left out unnoticed, attention is flat, or rounding decides a greedy token.
"""

import json
import tempfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from gguf_file import q8_values, write_gguf

VERSIONS = {"torch": "2.13.0", "transformers": "5.24.0", "safetensors": "0.8.0"}

FOLDER = Path(__file__).parent
PROMPT_LENGTH, NEW_TOKENS = 40, 16
# Logits are some tens in size; a GPU's may differ by 0.01.
LEAST_LEAD = 0.05
POSITIONS = [0, 11, 26, PROMPT_LENGTH - 1]

BASE = {
    "vocab_size": 131,
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    # The continuations are to have their full length.
    "eos_token_id": None,
    "torch_dtype": "float16",
}

# Of waves of 6 to about 200 tokens, the first stay, the second are blended, the others are stretched.
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# A window in two of three layers, shorter than the prompt.
GEMMA3 = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_act": ...,
    "hidden_activation": "gelu_pytorch_tanh",
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "sliding_window": 12,
}

CHECKPOINTS = {
    # As SmolLM2 has it: rotary base at the top, tied head. The epsilon is left to its default.
    "llama_tied": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_theta": 100.0,
        "rope_scaling": None,
        "rms_norm_eps": ...,
        "tie_word_embeddings": True,
    },
    # As Llama 3 has it: fields of transformers 4, untied head. Heads are wider than hidden / heads.
    "llama3": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 16,
        "rope_theta": 500.0,
        "rope_scaling": LLAMA3_SCALING,
        "tie_word_embeddings": False,
    },
    # Every bias; linear scaling by its older name; pairs of a head that make no vectors of four.
    "llama_biased": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": 1,
        "head_dim": 12,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_theta": 100.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
        "tie_word_embeddings": True,
    },
    # A window much shorter than the prompt; the head is untied by default.
    "mistral": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 12,
        "rope_theta": 200.0,
    },
    # A window that is not used, as Qwen2.5 has it; its biases are in no field.
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "max_window_layers": 2,
        "rope_theta": 300.0,
        "sliding_window": 8,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    # As Qwen3 has it; heads wider than hidden / heads.
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 16,
        "max_window_layers": 2,
        "rope_theta": 300.0,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    # As transformers 5 writes it; with biases, a window in one layer, and the original context of the scaling left to its default.
    "qwen3_biased": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": True,
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 9,
        "use_sliding_window": True,
        "max_position_embeddings": 64,
        "rope_parameters": {**LLAMA3_SCALING, "original_max_position_embeddings": ..., "rope_theta": 500.0},
        "tie_word_embeddings": False,
    },
    # As Gemma 3 of 4 billion parameters has it, in fields of transformers 4; matrices whole groups wide, as the GPU keeps them.
    "gemma3": {
        **GEMMA3,
        "query_pre_attn_scalar": 24,
        "rope_theta": 3000.0,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
    },
    # The same in a file of llama.cpp, which has no field for the scalar; in fields of transformers 5 before that.
    "gemma3_gguf": {
        **GEMMA3,
        "query_pre_attn_scalar": 16,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    },
    "mistral_gguf": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "intermediate_size": 64,
        "sliding_window": 12,
        "rope_theta": 200.0,
    },
}


def without_gaps(config: dict) -> dict:
    """Leaves out the fields that hold `...`."""
    return {
        name: without_gaps(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if value is not ...
    }


def load(folder: Path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def random_weights(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """float16 weights under the names and in the shapes of a model's; a tied head is left out."""
    is_gemma = model.config.model_type == "gemma3_text"

    def values(name: str, shape: torch.Size) -> torch.Tensor:
        uniform = torch.rand(shape, generator=generator) * 2 - 1
        # Gemma adds 1 to the weights of its norms, and multiplies the embedding by the root of its size.
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            # Above 1, since queries and keys of unit size attend evenly.
            return (0.5 if is_gemma else 1.5) + 0.9 * uniform
        if name.endswith("norm.weight"):
            return (0 if is_gemma else 1) + 0.5 * uniform
        if name.endswith(".bias"):
            return uniform
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            return 0.5 * uniform
        if name.endswith("_proj.weight"):
            return 0.4 * uniform
        return (0.3 if is_gemma else 1.5) * uniform

    tied = model.config.tie_word_embeddings
    return {
        name: values(name, tensor.shape).half()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }


@torch.no_grad()
def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


@torch.no_grad()
def check_parts(folder: Path, ids: list[int], expected: torch.Tensor) -> None:
    """Each part changes the logits: every bias and norm, and what is done to positions."""
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    parts = sorted({name.split(".", 3)[-1] if ".layers." in name else name for name in weights})
    for part in parts:
        # A norm that adds 1 is neutral at 0.
        is_zero = part.endswith(".bias") or ("norm" in part and "gemma3" in folder.name)
        neutral = torch.zeros if is_zero else torch.ones if "norm" in part else None
        if neutral is None:
            continue
        model = load(folder)
        for name, tensor in model.named_parameters():
            if name.endswith(part):
                tensor.copy_(neutral(tensor.shape))
        report(f"  without {part}", relative_error(logits_of(model, ids)[-1], expected), least=0.01)
    check_rotary(folder, ids, expected)
    model = load(folder)
    if getattr(model.config, "sliding_window", None) is not None:
        model.config.sliding_window = 1000
        report("  without the window", relative_error(logits_of(model, ids)[-1], expected), least=0.01)


@torch.no_grad()
def check_rotary(folder: Path, ids: list[int], expected: torch.Tensor) -> None:
    names = [name for name, _ in load(folder).model.rotary_emb.named_buffers() if name.endswith("inv_freq")]
    for name in [name for name in names if "original" not in name]:
        model = load(folder)
        inverse_frequencies = getattr(model.model.rotary_emb, name)
        dim = 2 * len(inverse_frequencies)
        parameters = model.config.rope_parameters
        theta = parameters.get(name.removesuffix("_inv_freq"), parameters)["rope_theta"]
        unscaled = theta ** -(torch.arange(0, dim, 2) / dim)
        if not torch.allclose(unscaled, inverse_frequencies):
            inverse_frequencies.copy_(unscaled)
            report(f"  {name} without scaling", relative_error(logits_of(model, ids)[-1], expected), least=0.01)
        inverse_frequencies.copy_(10_000 ** -(torch.arange(0, dim, 2) / dim))
        report(f"  {name} of the default base", relative_error(logits_of(model, ids)[-1], expected), least=0.01)


def report(what: str, value: float, least: float = float("-inf"), most: float = float("inf")) -> None:
    print(f"{what}: {value:.2g}")
    assert least <= value <= most, f"{what} is {value}; accepted: {least} to {most}"


@torch.no_grad()
def draw_prompt(model: torch.nn.Module, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """A prompt and its greedy continuation, in which no rounding decides a token and which does not go round in a circle."""
    for _ in range(1000):
        ids = torch.randint(model.config.vocab_size, (PROMPT_LENGTH,), generator=generator).tolist()
        tokens = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, PROMPT_LENGTH, dtype=torch.int64),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )[0].tolist()
        greedy = tokens[PROMPT_LENGTH:]
        best = logits_of(model, tokens)[PROMPT_LENGTH - 1 : -1].topk(2).values
        if float((best[:, 0] - best[:, 1]).min()) >= LEAST_LEAD and len(set(greedy)) >= NEW_TOKENS / 3:
            assert len(greedy) == NEW_TOKENS
            return ids, greedy
    raise ValueError(f"no prompt of 1000 leads to greedy tokens that lead by {LEAST_LEAD}")


@torch.no_grad()
def make(name: str, fields: dict, seed: int) -> None:
    print(name)
    target = FOLDER / name
    target.mkdir(exist_ok=True)
    is_gguf = name.endswith("_gguf")
    folder = Path(tempfile.mkdtemp(suffix=name)) if is_gguf else target
    config = without_gaps({**BASE, **fields})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generator = torch.Generator().manual_seed(seed)
    empty = AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    weights = random_weights(empty, generator)
    if is_gguf:
        weights = {name: q8_values(values) if values.dim() == 2 else values for name, values in weights.items()}
        write_gguf(target / "model.gguf", config, weights)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    model = load(folder)
    ids, greedy = draw_prompt(model, generator)
    logits = logits_of(model, ids)
    report("  float32 against float64", relative_error(logits, logits_of(load(folder).double(), ids)), most=1e-5)
    attended = model(torch.tensor([ids]), output_attentions=True).attentions
    largest = torch.stack(attended)[:, 0, :, PROMPT_LENGTH // 2 :].amax(-1)
    report("  mean of the largest attention of a row", float(largest.mean()), least=0.25, most=0.9)
    check_parts(folder, ids, logits[-1])

    expected = {
        "versions": VERSIONS,
        "ids": ids,
        "positions": POSITIONS,
        # Nine digits hold a float32.
        "logits": [[float(f"{x:.9g}") for x in logits[position].tolist()] for position in POSITIONS],
        "greedy": greedy,
    }
    (target / "expected.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    for module in (torch, transformers, safetensors):
        wanted = VERSIONS[module.__name__]
        got = module.__version__.split("+")[0]
        assert got == wanted, f"{module.__name__} is {got}; accepted: {wanted}"
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    for seed, (name, fields) in enumerate(CHECKPOINTS.items(), start=1):
        make(name, fields, seed)
