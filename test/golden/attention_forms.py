"""
Makes attention_forms.json: attention as Hugging Face transformers computes it, in float64, with gradients by autograd; what
attention_oracle.ts is compared with.

    pip install torch==2.13.0 transformers==5.24.0
    python test/golden/attention_forms.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers.masking_utils import sliding_window_bidirectional_overlay, sliding_window_overlay
from transformers.models.bloom.modeling_bloom import build_alibi_tensor, _get_alibi_slopes
from transformers.models.gemma2 import modeling_gemma2 as gemma2
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss

torch.manual_seed(23)
BATCH, HEADS, KEY_HEADS, ROWS, KEYS, DIM = 1, 4, 2, 4, 7, 4
OFFSET = KEYS - ROWS
SINKS, SOFT_CAP = [1.0, -2.0, 0.5, 3.0], 1.5
SLOPES = _get_alibi_slopes(HEADS, torch.device("cpu")).double()


def draw(*shape):
    return torch.round(2 * torch.randn(*shape, dtype=torch.float64), decimals=2)


query, key, value = draw(BATCH, HEADS, ROWS, DIM), draw(BATCH, KEY_HEADS, KEYS, DIM), draw(BATCH, KEY_HEADS, KEYS, DIM)
dy = draw(BATCH, HEADS, ROWS, DIM)


def mask(window=None, causal=True):
    near = (sliding_window_overlay if causal else sliding_window_bidirectional_overlay)(window or KEYS)
    seen = [[near(0, 0, OFFSET + i, j) and (j <= OFFSET + i or not causal) for j in range(KEYS)] for i in range(ROWS)]
    return torch.zeros(ROWS, KEYS, dtype=torch.float64).masked_fill(~torch.tensor(seen), float("-inf"))[None, None]


def run(attention):
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    output = attention(*inputs).transpose(1, 2)
    gradients = torch.autograd.grad((output * dy).sum(), inputs)
    flat = lambda x: [float(f"{v:.10g}") for v in x.flatten().tolist()]
    return {"output": flat(output), "gradients": {n: flat(g) for n, g in zip(("query", "key", "value"), gradients)}}


module = SimpleNamespace(
    num_key_value_groups=HEADS // KEY_HEADS, training=False, head_dim=DIM, sinks=torch.tensor(SINKS, dtype=torch.float64)
)
# In float32 transformers' softmax would decide the last digits.
gemma2.nn.functional.softmax = lambda x, dim, dtype=None: torch.softmax(x, dim)
SCALE = DIM**-0.5


def with_sinks(bias):
    return lambda q, k, v: gpt_oss.eager_attention_forward(module, q, k, v, bias, SCALE)[0]


def with_cap(bias, soft_cap=SOFT_CAP):
    return lambda q, k, v: gemma2.eager_attention_forward(module, q, k, v, bias, scaling=SCALE, softcap=soft_cap)[0]


# As BloomModel hands it on: slope * j, which differs from -slope * (i - j) by a constant of the row.
alibi = build_alibi_tensor(torch.ones(BATCH, KEYS, dtype=torch.long), HEADS, torch.float64).view(BATCH, HEADS, 1, KEYS)

cases = {
    "gpt-oss: sinks and a window": ({"sinks": SINKS, "window": 3}, with_sinks(mask(3))),
    "gpt-oss: sinks": ({"sinks": SINKS}, with_sinks(mask())),
    "Gemma 2: a soft cap and a window": ({"softCap": SOFT_CAP, "window": 4}, with_cap(mask(4))),
    "Mistral: a window": ({"window": 2}, with_cap(mask(2), None)),
    "BLOOM: slopes": ({"alibiSlopes": SLOPES.tolist()}, with_cap(mask() + alibi, None)),
    # A window of 3 to both sides counts the keys at distance 3, too.
    "a window to both sides": ({"window": 4, "causal": False}, with_cap(mask(3, causal=False), None)),
    "a soft cap, then slopes, with a window": (
        {"softCap": SOFT_CAP, "alibiSlopes": SLOPES.tolist(), "window": 5},
        with_cap(mask(5) + alibi),
    ),
}
shapes = {"query": [*query.shape], "key": [*key.shape], "value": [*value.shape]}
tensors = {name: x.flatten().tolist() for name, x in (("query", query), ("key", key), ("value", value), ("dy", dy))}
made = {name: {"options": options, **run(attention)} for name, (options, attention) in cases.items()}
path = Path(__file__).with_name("attention_forms.json")
path.write_text(json.dumps({"shapes": shapes, **tensors, "cases": made}, separators=(",", ":")) + "\n")
