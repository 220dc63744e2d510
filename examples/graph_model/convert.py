"""Makes model/: a small causal transformer of Keras 3, with random weights, by tensorflowjs_converter.

    pip install tensorflowjs==4.22.0   # brings TensorFlow and Keras 3
    python examples/graph_model/convert.py

Reads tokens, int32 [batch, length], and gives logits [batch, length, 64].
"""

import os
import sys
import tempfile
import types

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # Its fused ops are none that tfjs knows.
# An optional part of TensorFlow that tensorflowjs imports, and that may be there in a version that does not fit.
sys.modules.setdefault("tensorflow_decision_forests", types.ModuleType("tensorflow_decision_forests"))

import keras
import tensorflow as tf
from tensorflowjs.converters import tf_saved_model_conversion_v2 as converter

HEADS, HEAD_DIM, LAYERS, VOCABULARY = 2, 16, 2, 64
WIDTH = HEADS * HEAD_DIM

keras.utils.set_random_seed(1)
tokens = keras.Input([None], dtype="int32")
x = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="random_normal")(tokens)


class Causal(keras.layers.Layer):
    """True where key <= query. `use_causal_mask` becomes MatrixBandPart, of which tfjs 4.22 leaves out the upper bound."""

    def call(self, x):
        position = keras.ops.arange(keras.ops.shape(x)[1])
        return keras.ops.expand_dims(keras.ops.expand_dims(position, 1) >= position, 0)


causal = Causal()(x)
for _ in range(LAYERS):
    y = keras.layers.LayerNormalization()(x)
    x = x + keras.layers.MultiHeadAttention(HEADS, HEAD_DIM, flash_attention=False)(y, y, attention_mask=causal)
    y = keras.layers.Dense(4 * WIDTH, "relu")(keras.layers.LayerNormalization()(x))
    x = x + keras.layers.Dense(WIDTH)(y)
model = keras.Model(tokens, keras.layers.Dense(VOCABULARY)(x))

module = tf.Module()
module.model = model
spec = tf.TensorSpec([None, None], tf.int32, "tokens")
module.run = tf.function(lambda tokens: {"logits": model(tokens, training=False)}, input_signature=[spec])
with tempfile.TemporaryDirectory() as saved:
    tf.saved_model.save(module, saved, signatures=module.run.get_concrete_function())
    out = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model")
    converter.convert_tf_saved_model(
        saved, out, control_flow_v2=False, strip_debug_ops=True, quantization_dtype_map={"float16": "*"}
    )
