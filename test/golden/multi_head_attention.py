"""
Makes multi_head_attention.json: Keras's MultiHeadAttention, in float32, with gradients of sum(dy * output) by autograd; what
src/layers/multi_head_attention_layer.ts is compared with.

    pip install keras==3.15.1 torch==2.14.1
    KERAS_BACKEND=torch python test/golden/multi_head_attention.py
"""

import json
from pathlib import Path

import keras
import numpy as np
import torch

random = np.random.default_rng(31)


def draw(*shape):
    return np.round(random.standard_normal(shape), 2).astype(np.float32)


def listed(x):
    return {"shape": list(x.shape), "values": [float(str(v)) for v in np.asarray(x, dtype=np.float32).ravel()]}


def case(args, query, value, key=None, mask=None, causal=False):
    """`args` as Keras names them."""
    layer = keras.layers.MultiHeadAttention(**args)
    inputs = [torch.tensor(x, requires_grad=True) for x in (query, value, key) if x is not None]
    call = dict(zip(("query", "value", "key"), inputs))
    layer.build(query.shape, value.shape, None if key is None else key.shape)
    layer.set_weights([draw(*w.shape) for w in layer.get_weights()])
    masks = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    output = layer(**call, **masks, use_causal_mask=causal)
    dy = draw(*output.shape)
    (output * torch.tensor(dy)).sum().backward()
    numpy = lambda x: x.detach().cpu().numpy()
    return {
        "inputs": [listed(numpy(x)) for x in inputs],
        "weights": [listed(w) for w in layer.get_weights()],
        **({} if mask is None else {"mask": listed(mask.astype(np.float32))}),
        "output": listed(numpy(output)),
        "dy": listed(dy),
        "inputGradients": [listed(numpy(x.grad)) for x in inputs],
        "weightGradients": [listed(numpy(w.value.grad)) for w in layer.trainable_variables],
    }


x = draw(2, 5, 6)
mask = random.random((2, 4, 7)) < 0.7
mask[:, :, 0] = True
cases = {
    "causal": case(dict(num_heads=2, key_dim=3), x, x.copy(), causal=True),
    "another value, key and mask": case(
        dict(num_heads=3, key_dim=4, value_dim=2, output_shape=5), draw(2, 4, 6), draw(2, 7, 3), draw(2, 7, 4), mask=mask
    ),
    "without bias": case(dict(num_heads=2, key_dim=3, use_bias=False, output_shape=(2, 3)), draw(1, 4, 5), draw(1, 6, 5)),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
