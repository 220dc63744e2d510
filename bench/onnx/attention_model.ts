import {bytes, concatenate, float, integer, message, string, type Field} from './protobuf';

/** Element types by their numbers in `TensorProto.DataType`. */
const DATA_TYPE = {float32: 1, int32: 6, int64: 7, float16: 10} as const;

export interface AttentionModel {
  /** `GroupQueryAttention` nodes, each of which takes the output of the one before as its query. */
  nodes: number;
  dtype: 'float32' | 'float16';
  heads: number;
  keyValueHeads: number;
  /** Tokens. */
  length: number;
  headDim: number;
  /** `local_window_size`: a row sees so many keys, its own among them. */
  window?: number;
  /** Values in the order `[length, heads, headDim]`, as float32 or as bits of float16. */
  query: Float32Array | Uint16Array;
  key: Float32Array | Uint16Array;
  value: Float32Array | Uint16Array;
  /** Whether the output is the whole `[1, length, heads * headDim]`, or only the first eight values of its last row. */
  wholeOutput: boolean;
}

/**
 * The bytes of an ONNX model that runs causal attention of fixed inputs. Query, key and value are constants of the
 * model, so that a run moves nothing to the device and next to nothing back; the session must be made without
 * optimisations, or constant folding would compute the model on the CPU.
 */
export function attentionModel(model: AttentionModel): Uint8Array {
  const {nodes, dtype, heads, keyValueHeads, length, headDim, window, wholeOutput} = model;
  const type = DATA_TYPE[dtype];
  const width = heads * headDim;
  const last = `output${nodes - 1}`;
  return concatenate([
    integer(1, 10), // ir_version
    string(2, 'tfjs-pbs-attention'),
    message(
      7, // graph
      ...Array.from({length: nodes}, (_, i) =>
        node('GroupQueryAttention', {
          inputs: [i === 0 ? 'query' : `output${i - 1}`, 'key', 'value', '', '', 'lastKey', 'totalLength'],
          outputs: [`output${i}`, `presentKey${i}`, `presentValue${i}`],
          attributes: [
            intAttribute('num_heads', heads),
            intAttribute('kv_num_heads', keyValueHeads),
            floatAttribute('scale', 1 / Math.sqrt(headDim)),
            ...(window === undefined ? [] : [intAttribute('local_window_size', window)]),
          ],
          domain: 'com.microsoft',
        }),
      ),
      string(2, 'attention'),
      tensor('query', type, [1, length, width], model.query),
      tensor('key', type, [1, length, keyValueHeads * headDim], model.key),
      tensor('value', type, [1, length, keyValueHeads * headDim], model.value),
      tensor('lastKey', DATA_TYPE.int32, [1], Int32Array.of(length - 1)),
      tensor('totalLength', DATA_TYPE.int32, [], Int32Array.of(length)),
      ...(wholeOutput ? [outputOf(last, type, [1, length, width])] : corner(last, type, length)),
    ),
    message(8, string(1, ''), integer(2, 17)),
    message(8, string(1, 'com.microsoft'), integer(2, 1)),
  ]);
}

/** The first eight values of the last row, as the output. */
function corner(of: string, type: number, length: number): Field[] {
  return [
    node('Slice', {inputs: [of, 'starts', 'ends'], outputs: ['corner']}),
    tensor('starts', DATA_TYPE.int64, [3], BigInt64Array.of(0n, BigInt(length - 1), 0n)),
    tensor('ends', DATA_TYPE.int64, [3], BigInt64Array.of(1n, BigInt(length), 8n)),
    outputOf('corner', type, [1, 1, 8]),
  ];
}

interface Node {
  inputs: string[];
  outputs: string[];
  attributes?: Field[];
  domain?: string;
}

function node(operator: string, {inputs, outputs, attributes = [], domain = ''}: Node): Field {
  return message(
    1,
    ...inputs.map((name) => string(1, name)),
    ...outputs.map((name) => string(2, name)),
    string(3, `${operator}_${outputs[0]}`),
    string(4, operator),
    ...attributes,
    string(7, domain),
  );
}

function intAttribute(name: string, value: number): Field {
  return message(5, string(1, name), integer(3, value), integer(20, 2));
}

function floatAttribute(name: string, value: number): Field {
  return message(5, string(1, name), float(2, value), integer(20, 1));
}

function tensor(name: string, type: number, shape: number[], data: ArrayBufferView): Field {
  const raw = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return message(5, ...shape.map((size) => integer(1, size)), integer(2, type), string(8, name), bytes(9, raw));
}

function outputOf(name: string, type: number, shape: number[]): Field {
  const dimensions = shape.map((size) => message(1, integer(1, size)));
  return message(12, string(1, name), message(2, message(1, integer(1, type), message(2, ...dimensions))));
}
