import * as tf from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import {expect} from 'chai';
import {float16Table} from '../../../runner/float16';
import {type ElementType, hasProducts, type ProductInputs} from '../../../runner/quantised/product_ops';
import {
  JoinHeadsFloat16Program,
  NormaliseFloat16Program,
  UnpackFloat16Program,
} from '../../../runner/quantised/webgpu/float16_programs';
import {PackedMatrix} from '../../../runner/quantised/packed_matrix';
import {PACKED_TYPES, type PackedType} from '../../../runner/quantised/packed_type';
import {packBlocks} from '../../../runner/quantised/packing';
import {ProductFloat32Program} from '../../../runner/quantised/webgpu/product_float32';
import {ProductMatrixProgram} from '../../../runner/quantised/webgpu/product_matrix';
import {
  LANES,
  PRODUCT_TILES,
  productUnits,
  tileFits,
  type ProductTile,
} from '../../../runner/quantised/webgpu/product_tiles';
import type {Activation} from '../../../runner/llama/kernels/gated_activation';
import {listMatrixUnits} from '../../../src/internal';
import {BLOCK_TYPES} from '../../../runner/gguf/block_types';
import {dequantise} from '../../../runner/gguf/dequantise';
import {testBackends} from '../../setup/environment';
import {readBlocksReference} from '../gguf/references';
import {OTHER_UNITS, UNITS} from '../../reference/emulated_matrix_units';
import {EmulatedProductProgram} from './emulated_product';

/** A small tile, since without float16 it takes twice the memory, and emulated fragments take their time. */
const SMALL_TILE: ProductTile = {rows: 32, columns: 32, ofSubgroup: [16, 32]};

if (testBackends().includes('webgpu')) {
  describe('float16 of the runner [webgpu]', function () {
    this.timeout(120_000);
    let backend: WebGPUBackend;
    before(async () => {
      await tf.setBackend('webgpu');
      backend = tf.backend() as WebGPUBackend;
    });

    /** The output of a program, float16 as numbers. */
    async function valuesOf(program: {run(backend: WebGPUBackend): tf.TensorInfo}): Promise<Float32Array> {
      const output = program.run(backend);
      const data = (await backend.read(output.dataId)) as Float32Array | Int32Array;
      backend.disposeData(output.dataId);
      if (data instanceof Float32Array) return data;
      const table = float16Table();
      return Float32Array.from(new Uint16Array(data.buffer, data.byteOffset, 2 * data.length), (half) => table[half]);
    }

    const random = (shape: number[], seed: number, deviation = 1) =>
      tf.randomNormal(shape, 0, deviation, 'float32', seed);

    /** Random numbers as float16, and what they are. */
    async function float16(rows: number, columns: number, seed: number) {
      const values = random([rows, columns], seed);
      const words = new Int32Array((rows * columns) / 2);
      const halves = new Uint16Array(words.buffer);
      const table = float16Table();
      // The 10 upper bits of the fraction: cut off, not rounded.
      const cut = Float32Array.from(await values.data(), (x, i) => {
        const view = new DataView(new ArrayBuffer(4));
        view.setFloat32(0, x);
        const bits = view.getUint32(0);
        const exponent = ((bits >>> 23) & 255) - 112;
        halves[i] = ((bits >>> 16) & 0x8000) | (exponent > 0 ? (exponent << 10) | ((bits >>> 13) & 1023) : 0);
        return table[halves[i]];
      });
      values.dispose();
      return {tensor: tf.tensor2d(words, [rows, columns / 2], 'int32'), values: cut};
    }

    function expectClose(got: Float32Array, expected: ArrayLike<number>, tolerance: number) {
      expect(got.length).to.equal(expected.length);
      let worst = 0;
      for (let i = 0; i < got.length; ++i) {
        const error = Math.abs(got[i] - expected[i]) / (1 + Math.abs(expected[i]));
        // Also where one of them is no number.
        if (!(error <= worst)) worst = error;
      }
      expect(worst).to.be.at.most(tolerance);
    }

    for (const type of PACKED_TYPES) {
      it(`${type} is unpacked to float16 and to float32`, async () => {
        const blocks = (await readBlocksReference()).find((of) => of.of.startsWith('synthetic') && of.type === type);
        const [rows, inputs] = [3, 512];
        const {values: ofBlock, bytes: blockBytes} = BLOCK_TYPES[type];
        const bytes = new Uint8Array((rows * inputs * blockBytes) / ofBlock);
        bytes.forEach((_, i) => (bytes[i] = blocks ? blocks.raw[i % blocks.raw.length] : 0));
        if (!blocks) fillPlain(type, bytes);
        const dense = new Float32Array(rows * inputs);
        dequantise(type, bytes, dense);
        const {quants, scales} = packBlocks(type, bytes);
        const matrix = {
          ...{type, shape: [rows, inputs] as [number, number]},
          quants: tf.tensor2d(quants, [rows, quants.length / rows], 'int32'),
          scales: tf.tensor1d(scales, 'int32'),
        };
        const got = await valuesOf(new UnpackFloat16Program(matrix));
        tf.dispose([matrix.quants, matrix.scales]);
        const clamped = dense.map((x) => Math.max(-65504, Math.min(65504, x)));
        // float16 has 11 bits.
        expectClose(got, clamped, 2 ** -10);

        const readRows = (first: number, end: number) =>
          Promise.resolve(bytes.slice((first * bytes.length) / rows, (end * bytes.length) / rows));
        const whole = await PackedMatrix.upload(type, [rows, inputs], readRows, 2 ** 27);
        const read = whole.rows([2, 0, 1]);
        const order = [2, 0, 1].flatMap((row) => [...dense.subarray(row * inputs, (row + 1) * inputs)]);
        expectClose((await read.data()) as Float32Array, order, 1e-6);
        read.dispose();
        whole.dispose();
      });
    }

    it('rows are normalised, and what float16 does not reach is brought to its largest', async () => {
      for (const [rows, columns] of [
        [1, 8],
        [5, 96],
        [3, 896],
        [2, 8192],
      ]) {
        const [x, norm] = [random([rows, columns], rows), random([columns], 9)];
        const expected = tf.tidy(() => {
          const large = tf.mul(norm, 1000);
          const normed = tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), 1e-5)));
          return tf.clipByValue(tf.mul(normed, large), -65504, 65504);
        });
        const large = tf.mul(norm, 1000);
        expectClose(await valuesOf(new NormaliseFloat16Program(x, large, 1e-5)), await expected.data(), 2 ** -9);
        const [zeros, most] = [tf.zeros([rows, columns]), tf.fill([columns], 1e30)];
        expectClose(
          await valuesOf(new NormaliseFloat16Program(zeros, most, 1e-5)),
          new Float32Array(rows * columns),
          0,
        );
        const full = await valuesOf(new NormaliseFloat16Program(x, most, 1e-5));
        expect(full.every((value) => Math.abs(value) === 65504)).to.equal(true);
        tf.dispose([x, norm, large, expected, zeros, most]);
      }
    });

    it('heads are joined', async () => {
      for (const [heads, rows, headDim] of [
        [1, 3, 8],
        [14, 17, 64],
        [3, 5, 24],
      ]) {
        const x = random([1, heads, rows, headDim], heads);
        const expected = tf.transpose(x, [0, 2, 1, 3]);
        expectClose(await valuesOf(new JoinHeadsFloat16Program(x)), await expected.data(), 2 ** -10);
        tf.dispose([x, expected]);
      }
    });

    type Epilogue = {name: string; gated?: Activation; biased?: boolean; added?: boolean; headDim?: number};
    const GATED: Epilogue = {name: 'GeGLU with a bias', gated: 'gelu', biased: true};
    const EPILOGUES: Epilogue[] = [
      {name: 'sums alone'},
      {name: 'a bias', biased: true},
      {name: 'a residual', added: true},
      {name: 'a bias and a residual', biased: true, added: true},
      {name: 'a bias, by heads', biased: true, headDim: 8},
      {name: 'SwiGLU', gated: 'silu'},
      GATED,
    ];

    type ProgramOf = (
      inputs: ProductInputs<tf.TensorInfo>,
      headDim: number,
      activation?: Activation,
    ) => {run(backend: WebGPUBackend): tf.TensorInfo};

    async function checkProduct(
      programOf: ProgramOf,
      [rows, outputs, inputs]: [number, number, number],
      {gated, biased, added, headDim = 0}: Epilogue,
      type: ElementType = 'float16',
    ) {
      const [x, weight, up] = [
        await float16(rows, inputs, 1),
        await float16(outputs, inputs, 2),
        await float16(outputs, inputs, 3),
      ];
      const bias = random([gated ? 2 * outputs : outputs], 4);
      const residual = random([rows, outputs], 5);
      // The same numbers in float32, weights by inputs.
      const inFloat32 = (values: Float32Array, columns: number) =>
        tf.tensor2d(values, [values.length / columns, columns]);
      const byInputs = ({values}: {values: Float32Array}) => tf.tidy(() => tf.transpose(inFloat32(values, inputs)));
      const operands: ProductInputs<tf.Tensor> = {
        ...(type === 'float16'
          ? {x: x.tensor, weight: weight.tensor, ...(gated && {up: up.tensor})}
          : {x: inFloat32(x.values, inputs), weight: byInputs(weight), ...(gated && {up: byInputs(up)})}),
        ...(biased && {bias}),
        ...(added && {residual}),
      };
      const got = await valuesOf(programOf(operands, headDim, gated));
      const [biases, residuals] = [await bias.data(), await residual.data()];
      const sum = (matrix: Float32Array, row: number, output: number) => {
        let sum = 0;
        for (let i = 0; i < inputs; ++i) sum += x.values[row * inputs + i] * matrix[output * inputs + i];
        return sum;
      };
      const expected = new Float32Array(rows * outputs);
      for (let row = 0; row < rows; ++row) {
        for (let output = 0; output < outputs; ++output) {
          const first = sum(weight.values, row, output) + (biased ? biases[output] : 0);
          const second = gated ? sum(up.values, row, output) + (biased ? biases[outputs + output] : 0) : 0;
          const argument = gated === 'gelu' ? Math.sqrt(8 / Math.PI) * (first + 0.044715 * first ** 3) : first;
          const value = gated ? (first / (1 + Math.exp(-argument))) * second : first;
          const at = headDim
            ? (Math.floor(output / headDim) * rows + row) * headDim + (output % headDim)
            : row * outputs + output;
          expected[at] = value + (added ? residuals[row * outputs + output] : 0);
        }
      }
      tf.dispose([x.tensor, weight.tensor, up.tensor, bias, residual, Object.values(operands)]);
      // WGSL's exp is exact to 3 + 2 |x| units in the last place, and gates reach 40.
      const gatedTolerance = type === 'float16' ? 2 ** -10 : 1e-4;
      expectClose(got, expected, gated ? gatedTolerance : 1e-5);
    }

    describe('products in float32', () => {
      const programOf: ProgramOf = (inputs, headDim, activation) =>
        new ProductFloat32Program(inputs, headDim, activation);
      for (const epilogue of EPILOGUES) {
        it(epilogue.name, async () => {
          // Rows and outputs that are no whole tiles, more than one tile of both, and fewer.
          await checkProduct(programOf, [77, 136, 96], epilogue, 'float32');
          await checkProduct(programOf, [9, 8, 32], epilogue, 'float32');
        });
      }
    });

    describe('products, with matrix units emulated', () => {
      before(function () {
        // Where there are some, the next suite runs; and the emulation takes more workgroup memory than NVIDIA's driver accepts.
        if (hasProducts('float16')) this.skip();
      });
      const others = OTHER_UNITS.filter(([, {lanes}]) => lanes === LANES);
      // The others are parts of these, and on matrix units all are tried below.
      const few = EPILOGUES.filter(({biased, added, gated}) => gated || (biased && added));
      const tried = few
        .map((epilogue) => ({epilogue, name: 'fragments of 16', units: UNITS}))
        .concat(others.map(([name, units]) => ({epilogue: GATED, name: `fragments of ${name}`, units})));
      for (const {epilogue, name, units} of tried) {
        it(`${epilogue.name}, ${name}`, async () => {
          const programOf: ProgramOf = (inputs, headDim, activation) =>
            new EmulatedProductProgram(inputs, headDim, {tile: SMALL_TILE, units}, activation);
          // Rows and outputs that are no whole tiles.
          await checkProduct(programOf, [37, 40, 64], epilogue);
        });
      }
    });

    describe('products on matrix units', () => {
      before(function () {
        if (!hasProducts('float16')) this.skip();
      });
      for (const [name, tile] of Object.entries(PRODUCT_TILES)) {
        it(`${name}, of each size that the adapter lists`, async function () {
          if (!tileFits(tile, backend.device)) this.skip();
          for (const units of listMatrixUnits(backend.device)) {
            const programOf: ProgramOf = (inputs, headDim, activation) =>
              new ProductMatrixProgram(inputs, headDim, {tile, units}, activation);
            await checkProduct(programOf, [77, 40, 64], GATED);
          }
        });

        it(name, async function () {
          if (!tileFits(tile, backend.device)) this.skip();
          for (const epilogue of EPILOGUES) {
            const programOf: ProgramOf = (inputs, headDim, activation) =>
              new ProductMatrixProgram(inputs, headDim, {tile, units: productUnits(backend.device)!}, activation);
            await checkProduct(programOf, [300, 136, 192], epilogue);
            await checkProduct(programOf, [9, 8, 64], epilogue);
          }
        });
      }
    });
  });
}

/** Numbers that all three types have, and one that float16 has not. */
function fillPlain(type: PackedType, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < bytes.length / BLOCK_TYPES[type].bytes; ++i) {
    const x = i === 7 && type !== 'F16' ? 1e6 : ((i % 61) - 30) / 8;
    if (type === 'F32') view.setFloat32(4 * i, x, true);
    else if (type === 'BF16') view.setUint16(2 * i, float32Bits(x) >>> 16, true);
    else view.setUint16(2 * i, float16Table().indexOf(x), true);
  }
}

function float32Bits(x: number): number {
  return new Uint32Array(Float32Array.of(x).buffer)[0];
}
