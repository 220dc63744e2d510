import type {io} from '@tensorflow/tfjs-core';
import {io as tfio, tidy} from '@tensorflow/tfjs-core';
import {check} from '../ops/check_arguments.js';
import type {Constant} from './graph_def.js';
import {quoted} from './graph_def.js';

/** Bytes of a value; of a string in front of its own. */
const valueBytes: Record<string, number> = {
  ...{float32: 4, int32: 4, bool: 1, complex64: 8, string: 4},
  ...{float16: 2, uint16: 2, uint8: 1},
};

/** The weights of a model: one buffer, which the specs divide in their order. */
export class ModelWeights {
  private readonly places = new Map<
    string,
    {spec: io.WeightsManifestEntry; start: number; end: number; size: number}
  >();
  private readonly data: tfio.CompositeArrayBuffer;

  /** @throws Error, in the name of `op`, unless the specs fit into the data. */
  constructor(
    private readonly op: string,
    specs: io.WeightsManifestEntry[],
    data: io.WeightData,
  ) {
    this.data = new tfio.CompositeArrayBuffer(data);
    let start = 0;
    for (const [i, spec] of specs.entries()) {
      const size = this.checkSpec(spec, i);
      const end = this.endOf(spec, start, size);
      this.places.set(spec.name, {spec, start, end, size});
      start = end;
    }
  }

  /** How many values a constant has. */
  size(name: string): number | undefined {
    return this.places.get(name)?.size;
  }

  dtype(name: string): io.WeightsManifestEntry['dtype'] | undefined {
    return this.places.get(name)?.spec.dtype;
  }

  constant(name: string): Constant | undefined {
    const place = this.places.get(name);
    if (!place || !['float32', 'int32', 'bool'].includes(place.spec.dtype)) {
      return undefined;
    }
    const {spec, start, end} = place;
    const bytes = this.data.slice(start, end);
    const values = tidy(() => Object.values(tfio.decodeWeights(bytes, [spec]))[0].dataSync<'float32'>());
    return {shape: spec.shape, values, isBool: spec.dtype === 'bool'};
  }

  /** The same weights without some of them, and with others at the end: int32 vectors, and float32 numbers. */
  changed(
    dropped: Set<string>,
    added: Map<string, number[] | number>,
  ): {specs: io.WeightsManifestEntry[]; data: ArrayBuffer[]} {
    const kept = [...this.places.values()].filter(({spec}) => !dropped.has(spec.name));
    const constants = [...added].map(([name, value]) =>
      typeof value === 'number'
        ? {name, shape: [], dtype: 'float32' as const}
        : {name, shape: [value.length], dtype: 'int32' as const},
    );
    return {
      specs: [...kept.map(({spec}) => spec), ...constants],
      data: [
        ...kept.map(({start, end}) => this.data.slice(start, end)),
        ...[...added.values()].map((value) =>
          typeof value === 'number' ? Float32Array.of(value).buffer : Int32Array.from(value).buffer,
        ),
      ],
    };
  }

  /** Returns the number of values. */
  private checkSpec(spec: io.WeightsManifestEntry | null, i: number): number {
    const {name, dtype, shape, quantization} = (spec ?? {}) as Partial<io.WeightsManifestEntry>;
    check(typeof name === 'string', this.op, 'modelArtifacts', `got weight ${i} without a name`, 'names');
    const type: unknown = quantization ? quantization.dtype : dtype;
    const isType = typeof type === 'string' && Object.hasOwn(valueBytes, type) && typeof dtype === 'string';
    check(isType, this.op, 'modelArtifacts', `got weight ${quoted(name)} of an unknown dtype`, 'those of tfjs');
    const isShape = Array.isArray(shape) && shape.every((length) => Number.isSafeInteger(length) && length >= 0);
    check(
      isShape,
      this.op,
      'modelArtifacts',
      `got weight ${quoted(name)} of a shape that is none`,
      'a list of lengths',
    );
    return shape.reduce((product, length) => product * length, 1);
  }

  /** Where a weight ends in the data. */
  private endOf({name, dtype, quantization}: io.WeightsManifestEntry, start: number, size: number): number {
    const {byteLength} = this.data;
    const type = quantization ? quantization.dtype : dtype;
    let end = start + size * valueBytes[type];
    // Each string is its length in bytes, four bytes, and its bytes.
    if (type === 'string' && end <= byteLength) {
      end = start;
      for (let i = 0; i < size && end <= byteLength; ++i) {
        const hasLength = end + 4 <= byteLength;
        end += 4 + (hasLength ? new DataView(this.data.slice(end, end + 4)).getUint32(0, true) : 0);
      }
    }
    const got = `got ${byteLength} bytes of weightData, in which ${quoted(name)} has no room`;
    check(end <= byteLength, this.op, 'modelArtifacts', got, 'the bytes of all weightSpecs');
    return end;
  }
}
