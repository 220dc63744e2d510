import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {openDawn} from '../../hosts/dawn';
import '../../runner/llama/kernels/webgpu/index';
import {unpackFloat16, type ProductInputs} from '../../runner/quantised/product_ops';
import {unpackTransposed} from '../../runner/quantised/ops';
import {ProductFloat32Program} from '../../runner/quantised/webgpu/product_float32';
import {ProductMatrixProgram} from '../../runner/quantised/webgpu/product_matrix';
import {PRODUCT_TILES, productUnits, tileFits} from '../../runner/quantised/webgpu/product_tiles';
import {table} from '../table';
import {openWebGPU} from '../webgpu/device';
import {timePrograms} from '../webgpu/dispatch_timing';

/*
 * node build/gpu/products.mjs [rows …]: products of the shapes of Qwen2.5-Coder-0.5B in float32, ours and tfjs's, and on matrix units, by
 * each tile; and how far their values are from those of tfjs.
 */

/** Of one layer: by heads, added to the residual stream, gated. */
const SHAPES = [
  {what: 'queries and keys', inputs: 896, outputs: 1024, headDim: 64},
  {what: 'gate and up', inputs: 896, outputs: 4864, gated: true},
  {what: 'down', inputs: 4864, outputs: 896, added: true},
] as const;
const SECONDS = 0.15;

openDawn();
await openWebGPU([]);
await tf.setBackend('webgpu');
await tf.ready();
const webgpu = tf.backend() as WebGPUBackend;
const allRows = process.argv.slice(2).map(Number);

const toTensor = (info: tf.TensorInfo) => tf.engine().makeTensorFromTensorInfo(info) as tf.Tensor;
const random = (rows: number, columns: number, scale: number) =>
  tf.mul(tf.randomNormal([rows, columns], 0, 1, 'float32', rows + columns), scale) as tf.Tensor2D;
/** float32 values as a matrix that stays as it is, which `unpackFloat16` reads. */
const stored = async (x: tf.Tensor2D) => ({
  type: 'F32' as const,
  shape: x.shape,
  quants: tf.tensor2d(new Int32Array(((await x.data()) as Float32Array).slice().buffer), x.shape, 'int32'),
  scales: tf.tensor2d(new Int32Array(Float32Array.of(1).buffer), [1, 1], 'int32'),
});

async function gpuTime(call: () => tf.Tensor): Promise<number> {
  const programs = await timePrograms(webgpu, call, SECONDS);
  if (!programs) throw new Error('the device has no timestamps');
  return programs.reduce((sum, {gpu}) => sum + gpu.median, 0);
}

const units = productUnits(webgpu.device);
for (const rows of allRows.length > 0 ? allRows : [2048, 16_384]) {
  for (const shape of SHAPES) {
    const {inputs, outputs} = shape;
    const [gated, added] = ['gated' in shape, 'added' in shape];
    const headDim = 'headDim' in shape ? shape.headDim : 0;
    const x = random(rows, inputs, 1);
    const matrices = await Promise.all(
      Array.from({length: gated ? 2 : 1}, () => stored(random(outputs, inputs, 1 / Math.sqrt(inputs)))),
    );
    const residual = added ? random(rows, outputs, 1) : undefined;
    const [weight, up] = matrices.map(unpackFloat16);
    const given: ProductInputs<tf.TensorInfo> = {x: unpackFloat16(await stored(x)), weight, up, residual};
    const flops = 2 * rows * inputs * outputs * matrices.length;
    const line = (name: string, ms: number, error: string) => {
      return [name, ms.toFixed(3), (flops / ms / 1e9).toFixed(1), error];
    };
    // What float32 takes: the product alone.
    const transposed = matrices.map(unpackTransposed);
    const float32 = await gpuTime(() => tf.matMul(x, transposed[0]));
    const expected = tf.tidy(() => {
      const [product, other] = transposed.map((matrix) => tf.matMul(x, matrix) as tf.Tensor2D);
      if (gated) return tf.mul(tf.mul(product, tf.sigmoid(product)), other);
      if (headDim) return tf.transpose(tf.reshape(product, [rows, outputs / headDim, headDim]), [1, 0, 2]);
      return residual ? tf.add(product, residual) : product;
    });
    const lines = [line('float32, tfjs', float32 * matrices.length, '')];
    const inFloat32 = {x, weight: transposed[0], up: transposed[1], residual};
    const programs: Array<[name: string, program: () => {run(backend: WebGPUBackend): tf.TensorInfo}]> = [
      ['float32', () => new ProductFloat32Program(inFloat32, headDim)],
      ...Object.entries(units ? PRODUCT_TILES : {})
        .filter(([, tile]) => tileFits(tile, webgpu.device))
        .map(([name, tile]): [string, () => ProductMatrixProgram] => [
          name,
          () => new ProductMatrixProgram(given, headDim, {tile, units: units!}),
        ]),
    ];
    for (const [name, program] of programs) {
      try {
        const run = () => toTensor(program().run(webgpu));
        const got = run();
        let error = '';
        if (!gated) {
          const worst = tf.tidy(() => tf.max(tf.abs(tf.sub(got, expected))));
          error = (await worst.data())[0].toExponential(1);
        }
        got.dispose();
        lines.push(line(name, await gpuTime(run), error));
      } catch (error) {
        lines.push([name, (error as Error).message, '', '']);
      }
    }
    console.log(`\n## ${rows} rows, ${shape.what}: ${inputs} to ${matrices.length} x ${outputs}\n`);
    console.log(table(['tile', 'GPU ms', 'TFLOP/s', 'largest error'], lines));
    tf.dispose([x, residual, expected, transposed, weight, up].filter((tensor) => tensor !== undefined));
  }
}
process.exit(0);
