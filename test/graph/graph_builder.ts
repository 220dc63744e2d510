import {io} from '@tensorflow/tfjs-core';
import type {IAttrValue, INodeDef} from '@tensorflow/tfjs-converter';

type Shape = Array<number | -1>;

/**
 * Builds graph models as the TensorFlow converter writes them: a GraphDef in JSON, attributes in the form of protocol
 * buffers, constants beside it as weights.
 */
export class GraphBuilder {
  readonly nodes: INodeDef[] = [];
  readonly weights: Array<{spec: io.WeightsManifestEntry; bytes: ArrayBuffer}> = [];
  functions: Array<{signature: {name: string}; nodeDef: INodeDef[]}> = [];

  node(op: string, name: string, input: string[], attr: Record<string, unknown> = {}): string {
    this.nodes.push({name, op, input, attr: attr as Record<string, IAttrValue>});
    return name;
  }

  placeholder(name: string, shape: Shape): string {
    const dim = shape.map((size) => ({size: String(size)}));
    return this.node('Placeholder', name, [], {dtype: {type: 'DT_FLOAT'}, shape: {shape: {dim}}});
  }

  constant(name: string, shape: number[], values: ArrayLike<number>, dtype: 'float32' | 'int32' | 'bool' = 'float32') {
    const type = {float32: Float32Array, int32: Int32Array, bool: Uint8Array}[dtype];
    return this.weight({name, shape, dtype}, type.from(values).buffer);
  }

  weight(spec: io.WeightsManifestEntry, bytes: ArrayBuffer): string {
    this.weights.push({spec, bytes});
    const type = {
      float32: 'DT_FLOAT',
      int32: 'DT_INT32',
      bool: 'DT_BOOL',
      string: 'DT_STRING',
      complex64: 'DT_COMPLEX64',
    };
    return this.node('Const', spec.name, [], {dtype: {type: type[spec.dtype]}, value: {tensor: {}}});
  }

  int(name: string, ...values: number[]): string {
    return this.constant(name, [values.length], values, 'int32');
  }

  scalar(name: string, value: number, dtype: 'float32' | 'int32' = 'float32'): string {
    return this.constant(name, [], [value], dtype);
  }

  einsum(name: string, input: string[], equation: string): string {
    return this.node('Einsum', name, input, {equation: {s: btoa(equation)}, N: {i: '2'}, T: {type: 'DT_FLOAT'}});
  }

  artifacts(...outputs: string[]): io.ModelArtifacts {
    return {
      format: 'graph-model',
      modelTopology: {
        node: this.nodes,
        library: {function: this.functions},
        versions: {producer: 1882, minConsumer: 12},
      },
      signature: {outputs: Object.fromEntries(outputs.map((name, i) => [`output_${i}`, {name: `${name}:0`}]))},
      weightSpecs: this.weights.map(({spec}) => spec),
      weightData: io.concatenateArrayBuffers(this.weights.map(({bytes}) => bytes)),
    };
  }
}

/** 0 where key <= query and `hidden` after it, row by row. */
export function causalMask(length: number, hidden: number, visible = 0): Float32Array {
  return Float32Array.from({length: length * length}, (_, i) =>
    i % length <= Math.floor(i / length) ? visible : hidden,
  );
}
