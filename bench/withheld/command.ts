import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {backend, dispose, tensor4d} from '@tensorflow/tfjs-core';
import {openDawn} from '../../hosts/dawn';
import {exactAttention, whyNot} from '../our_attention';
import {randomFloats} from '../random_data';
import {table} from '../table';
import {openWebGPU} from '../webgpu/device';
import {timePrograms} from '../webgpu/dispatch_timing';

/*
 * node build/gpu/withheld.mjs [tokens …]: what it costs that rows do not see NaN behind their causal end (withheld_values.ts). GPU ms of exact
 * attention, 8 heads of 64: by shaders that are told that all rows see every key, which look at no value, and as they are, of values none, the
 * last, and every 16th of which is NaN.
 */
const given = process.argv.slice(2).map(Number);
const lengths = given.length > 0 ? given : [1024, 4096, 16_384];
const SHAPE = {heads: 8, headDim: 64};
const SECONDS = 1;

/** Steps between values that are NaN. */
type Step = 'none' | 'last' | 16;

/** A column of times, by tokens and precision. */
async function measure(step: Step, isChecked = true): Promise<string[]> {
  await openWebGPU([]);
  const webgpu = backend() as WebGPUBackend;
  const {device} = webgpu;
  let changed = 0;
  if (!isChecked) {
    const create = device.createShaderModule.bind(device);
    device.createShaderModule = ({code, ...descriptor}) => {
      const unchecked = code.replace(/let seenByAll = [^;]*;/, 'let seenByAll = 2147483647;');
      changed += Number(unchecked !== code);
      return create({...descriptor, code: unchecked});
    };
  }
  const column: string[] = [];
  for (const length of lengths) {
    const shape = [1, SHAPE.heads, length, SHAPE.headDim] as [number, number, number, number];
    const size = shape.reduce((a, b) => a * b);
    const [query, key, value] = [1, 2, 3].map((seed) => randomFloats(size, seed));
    const first = step === 'last' ? length - 1 : step === 'none' ? length : 0;
    for (let row = first; row < length; row += step === 16 ? 16 : 1) {
      for (let head = 0; head < SHAPE.heads; ++head) value[(head * length + row) * SHAPE.headDim] = NaN;
    }
    const inputs = {query: tensor4d(query, shape), key: tensor4d(key, shape), value: tensor4d(value, shape)};
    for (const precision of ['float32', 'float16'] as const) {
      const reason = whyNot(precision, device);
      const programs = reason
        ? undefined
        : await timePrograms(webgpu, () => exactAttention(inputs, precision), SECONDS);
      const ms = programs?.reduce((sum, {gpu}) => sum + gpu.median, 0);
      column.push(ms?.toFixed(3) ?? reason ?? 'the device has no timestamps');
    }
    dispose(inputs);
  }
  if (!isChecked && changed === 0) throw new Error('withheld: no shader has seenByAll');
  return column;
}

openDawn();
const columns = [await measure('none', false), await measure('none'), await measure('last'), await measure(16)];
const cases = lengths.flatMap((length) => [`${length}, float32`, `${length}, float16`]);
const head = ['tokens', 'no checks', 'as it is', 'last value NaN', 'every 16th value NaN'];
console.log(
  table(
    head,
    cases.map((name, i) => [name, ...columns.map((column) => column[i])]),
  ),
);
process.exit(0);
