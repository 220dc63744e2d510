import {AttentionProgram, i32} from '../runtime/program.js';
import type {Uniforms} from '../runtime/program_spec.js';
import type {HeadDims} from '../runtime/device_limits.js';
import type {WebGPUCall} from '../webgpu_call.js';
import {packFloat16} from '../wgsl/float16.js';
import {paddedHeadDim} from '../wgsl/matrix_units.js';
import {readRow, rowInputs} from '../wgsl/rows.js';

/** Words of 16 bytes of a row of float16, filled up to whole fragments. */
export const float16Words = (dim: number): number => paddedHeadDim(dim) / 8;

/** Rows behind the queries that a tile may reach into. */
const spareRows = 128;

/** Where queries, if they are wanted, keys and values stand in the output of `Float16RowsProgram`, in words of 16 bytes. */
export function float16Layout(
  {geometry}: Pick<WebGPUCall, 'geometry'>,
  hasQueries: boolean,
): {keys: number; values: number; end: number} {
  const {batch, heads, keyValueHeads, queryLength, keyLength, headDim, valueDim} = geometry;
  const keys = hasQueries ? (batch * heads * queryLength + spareRows) * float16Words(headDim) : 0;
  const values = keys + batch * keyValueHeads * keyLength * float16Words(headDim);
  return {keys, values, end: values + batch * keyValueHeads * keyLength * float16Words(valueDim)};
}

/** What programs that read that output know it by. */
export function rowUniforms(call: Pick<WebGPUCall, 'geometry'>, hasQueries: boolean): Uniforms {
  const {keys, values} = float16Layout(call, hasQueries);
  return {firstKey: i32(keys), firstValue: i32(values)};
}

interface RowsVariant extends HeadDims {
  hasQueries: boolean;
}

/**
 * Rows of keys and values, and for matrix units of queries, as float16 products take them, which many workgroups read: float16, two a word,
 * each row filled up with zeros to whole fragments, the queries in units of log2; int32 `[words]`, laid out by `float16Layout`. Finite
 * numbers that float16 does not reach become the largest that it has, and what is not finite stays so.
 */
export class Float16RowsProgram extends AttentionProgram<RowsVariant> {
  constructor(call: WebGPUCall, hasQueries: boolean) {
    const {query, key, value, geometry} = call;
    const {end} = float16Layout(call, hasQueries);
    super({
      name: 'Float16Rows',
      inputs: rowInputs({...(hasQueries && {query}), key, value}),
      outputShape: [4 * end],
      outputType: 'int32',
      outputComponents: 4,
      call,
      uniforms: rowUniforms(call, hasQueries),
      variant: {headDim: geometry.headDim, valueDim: geometry.valueDim, hasQueries},
    });
  }

  protected shader({headDim, valueDim, hasQueries}: RowsVariant): string {
    const pack = (read: string, first: string, dim: number) => {
      const row = `(index - ${first}) / ${float16Words(dim)}`;
      const vector = `2 * ((index - ${first}) % ${float16Words(dim)})`;
      return [`${read}(${row}, ${vector})`, `${read}(${row}, ${vector} + 1)`];
    };
    const [queryA, queryB] = pack('readQuery', '0', headDim);
    const [keyA, keyB] = pack('readKey', 'uniforms.firstKey', headDim);
    const [valueA, valueB] = pack('readValue', 'uniforms.firstValue', valueDim);
    return `
// An invocation brings eight values of a row to float16.
${hasQueries ? `${readRow('readQuery', 'query', headDim, paddedHeadDim(headDim))}\n` : ''}${readRow('readKey', 'key', headDim, paddedHeadDim(headDim))}
${readRow('readValue', 'value', valueDim, paddedHeadDim(valueDim))}

${packFloat16}

fn main(index : i32) {
  var a = vec4<f32>();
  var b = vec4<f32>();
  if (index >= uniforms.invocations) {
    return;
  } else if (index >= uniforms.firstValue) {
    a = ${valueA};
    b = ${valueB};
  } else if (index >= uniforms.firstKey) {
    a = ${keyA};
    b = ${keyB};
  }${
    hasQueries
      ? ` else if (index < uniforms.firstKey - ${spareRows * float16Words(headDim)}) {
    a = uniforms.logitScale * ${queryA};
    b = uniforms.logitScale * ${queryB};
  }`
      : ''
  }
  result[index] = bitcast<vec4<i32>>(vec4<u32>(packedFloat16(a), packedFloat16(b)));
}`;
  }
}
