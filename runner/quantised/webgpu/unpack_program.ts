import type {TensorInfo} from '@tensorflow/tfjs-core';
import {AttentionProgram, workgroupIndex} from '../../../src/internal';
import {GROUP} from '../../gguf/block_values';
import type {PackedTensors} from '../ops';
import type {PackedType} from '../packed_type';
import {unpackText} from './unpack';

const THREADS = 64;

/** A packed matrix as float32, transposed, as tfjs multiplies fastest: `[inputs, outputs]`. */
export class UnpackProgram extends AttentionProgram<{type: PackedType}> {
  constructor({type, shape, quants, scales}: PackedTensors<TensorInfo>) {
    const [outputs, inputs] = shape;
    super({
      name: 'Unpack',
      inputs: {quants: {tensor: quants}, scales: {tensor: scales}},
      outputShape: [inputs, outputs],
      threads: THREADS,
      workgroups: Math.ceil((outputs * inputs) / (GROUP * THREADS)),
      variant: {type},
    });
  }

  protected shader({type}: {type: PackedType}): string {
    return `
// An invocation unpacks one group of a row. Neighbours take neighbouring rows, so that what they write lies together.
${workgroupIndex}
${unpackText(type)}

fn main(index : i32) {
  let item = workgroupIndex() * ${THREADS} + i32(localIndex);
  let outputs = uniforms.outShape.y;
  let groups = uniforms.outShape.x / ${GROUP};
  let row = item % outputs;
  let groupOfRow = item / outputs;
  if (groupOfRow >= groups) {
    return;
  }
  let group = row * groups + groupOfRow;
  let scale = scaleOf(group);
  for (var part = 0; part < ${GROUP / 4}; part++) {
    let values = unpack4(group, part, scale);
    let first = (groupOfRow * ${GROUP} + 4 * part) * outputs + row;
    result[first] = values.x;
    result[first + outputs] = values.y;
    result[first + 2 * outputs] = values.z;
    result[first + 3 * outputs] = values.w;
  }
}`;
  }
}

/** Rows of a packed matrix by their numbers, times `scale`: float32 `[ids, inputs]`. Numbers before its first row and past its last are left out. */
export class UnpackRowsProgram extends AttentionProgram<{type: PackedType}> {
  constructor({type, shape, quants, scales}: PackedTensors<TensorInfo>, ids: TensorInfo, firstRow = 0, scale = 1) {
    const [outputs, inputs] = shape;
    super({
      name: 'UnpackRows',
      inputs: {quants: {tensor: quants}, scales: {tensor: scales}, ids: {tensor: ids}},
      outputShape: [ids.shape[0], inputs],
      outputComponents: 4,
      threads: THREADS,
      workgroups: Math.ceil((ids.shape[0] * inputs) / (4 * THREADS)),
      uniforms: {
        firstRow: {type: 'i32', value: firstRow},
        rows: {type: 'i32', value: outputs},
        scale: {type: 'f32', value: scale},
      },
      variant: {type},
    });
  }

  protected shader({type}: {type: PackedType}): string {
    return `
// An invocation unpacks four values of a row.
${workgroupIndex}
${unpackText(type)}

fn main(index : i32) {
  let item = workgroupIndex() * ${THREADS} + i32(localIndex);
  let vectors = uniforms.outShape.y / 4;
  let id = item / vectors;
  if (id >= uniforms.outShape.x) {
    return;
  }
  let row = ids[id] - uniforms.firstRow;
  if (row < 0 || row >= uniforms.rows) {
    return;
  }
  let vector = item % vectors;
  let group = row * (vectors / ${GROUP / 4}) + vector / ${GROUP / 4};
  result[item] = uniforms.scale * unpack4(group, vector % ${GROUP / 4}, scaleOf(group));
}`;
  }
}
