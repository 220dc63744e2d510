import type {Tensor4D} from '@tensorflow/tfjs-core';
import {dispose, setBackend, tensor, tensor4d} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionPlan} from '../../src/index';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../src/index';
import {blockGeometry, isExact} from '../../src/attention/block_geometry';
import {pbsAttentionAttrs} from '../../src/ops/check_arguments';
import type {Inputs} from '../reference/attention';
import {randomInputs, tensors} from '../reference/attention';
import {grads4D} from '../reference/attention_gradients';
import type {OracleOptions} from '../reference/attention_oracle';
import {attentionOracle, oracleGradients} from '../reference/attention_oracle';
import {difference} from '../reference/difference';
import {expectInWindow, expectPlanOfCPU} from '../reference/plan_checks';
import {plantedInputs} from '../reference/planted_inputs';
import {planMask, valuesOf} from '../reference/plan_values';
import {caseText, few, forRandomCases} from '../reference/random_cases';
import {flashOptions, randomForm} from '../reference/random_forms';
import {attentionByPlan, wildPlan} from '../reference/wild_plans';
import {describeAllBackends} from '../setup/environment';

const names = ['query', 'key', 'value'] as const;
type Attention = (...x: Tensor4D[]) => Tensor4D;

/** What is checked of a random call: of how many by default, and how; it returns the relative error of a seed. */
interface Check {
  onCPU: number;
  elsewhere: number;
  errorOf(seed: number): Promise<number>;
}

/** The call of a seed. */
function randomCall(seed: number) {
  const {shape, options, blocks} = randomForm(seed, {few});
  return {options, blocks, inputs: randomInputs(shape, seed), name: caseText(seed, {shape, ...options, ...blocks})};
}

describeAllBackends('forms of scores, by chance', (backend) => {
  const isCPU = backend === 'cpu';
  const tolerance = isCPU ? 1e-6 : 1e-5;
  /**
   * Of scores in float32, as GPUs have them and the CPU beside a float32 mask: slopes put those of far keys so far from 0 that 24 bits hold less
   * of what tells keys apart.
   */
  const toleranceOf = ({mask, alibiSlopes = [], queryOffset = 0}: OracleOptions, {queryShape, keyShape}: Inputs) => {
    const farthest = Math.max(Math.max(...[queryOffset].flat()) + queryShape[2], keyShape[2]);
    const isFloat32 = !isCPU || mask?.dtype === 'float32';
    return tolerance + (isFloat32 ? 2 ** -24 * farthest * Math.max(0, ...alibiSlopes) : 0);
  };

  before(() => setBackend(backend));

  /** Values of what is computed of the inputs, and that is freed. */
  async function valuesBy(inputs: Inputs, compute: (q: Tensor4D, k: Tensor4D, v: Tensor4D) => Tensor4D[]) {
    const given = tensors(inputs);
    const outputs = compute(...given);
    const values = await Promise.all(outputs.map((x) => x.data()));
    dispose([given, outputs]);
    return values;
  }

  /** Exact attention on the backend. */
  async function attend(inputs: Inputs, options: OracleOptions, precision?: 'float16'): Promise<ArrayLike<number>> {
    const given = {...flashOptions(options), precision};
    const [output] = await valuesBy(inputs, (q, k, v) => [flashAttention(q, k, v, given)]);
    given.mask?.dispose();
    return output;
  }

  async function errorOfGradients(
    attention: Attention,
    inputs: Inputs,
    options: OracleOptions,
    seed: number,
    name: string,
  ) {
    const [batch, heads, length] = inputs.queryShape;
    const dy = randomInputs({batch, heads, length, headDim: inputs.valueShape[3]}, seed + 1000).value;
    const expected = oracleGradients(inputs, options, dy);
    const dyTensor = tensor4d(dy, [batch, heads, length, inputs.valueShape[3]]);
    const found = await valuesBy(inputs, (...x) => grads4D(attention)(x, dyTensor));
    dyTensor.dispose();
    const errors = names.map((of, i) => difference(found[i], expected[of], expected.magnitudes[of]));
    errors.forEach((error, i) =>
      expect(error, `${name}, gradient of ${names[i]}`).to.be.below(2 * toleranceOf(options, inputs)),
    );
    return Math.max(...errors);
  }

  const checks: Record<string, Check> = {
    'in any combination are the oracle': {
      ...{onCPU: 200, elsewhere: 28},
      async errorOf(seed) {
        const {inputs, options, name} = randomCall(seed);
        const error = difference(await attend(inputs, options), attentionOracle(inputs, options).output);
        expect(error, name).to.be.below(toleranceOf(options, inputs));
        return error;
      },
    },
    'in float16 are the oracle to the digits of that': {
      ...{onCPU: 6, elsewhere: 6},
      async errorOf(seed) {
        const {inputs, options, name} = randomCall(seed);
        const error = difference(await attend(inputs, options, 'float16'), attentionOracle(inputs, options).output);
        expect(error, name).to.be.below(5e-3);
        return error;
      },
    },
    'have the gradients of the oracle': {
      ...{onCPU: 60, elsewhere: 7},
      async errorOf(seed) {
        const {inputs, options, name} = randomCall(seed);
        const given = flashOptions(options);
        const attention: Attention = (q, k, v) => flashAttention(q, k, v, given);
        const error = await errorOfGradients(attention, inputs, options, seed, name);
        given.mask?.dispose();
        return error;
      },
    },
    'are those of the blocks of a plan in block-sparse attention, which lie in the window': {
      ...{onCPU: 100, elsewhere: 8},
      async errorOf(seed) {
        const {inputs, options, blocks, name} = randomCall(seed);
        const [q, k, v] = tensors(inputs);
        const sparse = {...flashOptions(options), ...blocks, auto: false};
        const plan = pbsAttentionPlan(q, k, sparse);
        const values = await valuesOf(plan);
        // Exact attention has no blocks to choose, and the paper's rule leaves out whole segments.
        const attrs = pbsAttentionAttrs('test', sparse, q, k);
        if (blocks.estimate === 'sampled' && !isExact(blockGeometry(q, k, attrs), attrs)) {
          expectInWindow(values, options, name);
        }
        if (!isCPU) {
          await expectPlanOfCPU(inputs, {options, blocks}, values, name);
        }
        const byPlan = {...options, mask: planMask(values, options.mask)};
        const expected = attentionOracle(inputs, byPlan).output;
        const errors: number[] = [];
        for (const given of [sparse, {...sparse, plan}]) {
          const output = pbsAttention(q, k, v, given);
          errors.push(difference(await output.data(), expected));
          expect(errors.at(-1), name).to.be.below(toleranceOf(options, inputs));
          output.dispose();
        }
        if (seed % 5 === 3) {
          errors.push(
            await errorOfGradients((...x) => pbsAttention(x[0], x[1], x[2], sparse), inputs, byPlan, seed, name),
          );
        }
        dispose([q, k, v, plan.keyIndices, plan.blockMask, ...(sparse.mask ? [sparse.mask] : [])]);
        return Math.max(...errors);
      },
    },
    'are those of any plan that is made by hand': {
      ...{onCPU: 60, elsewhere: 8},
      async errorOf(seed) {
        const {inputs, options: all, blocks, name} = randomCall(seed);
        const options = {...all, mask: undefined};
        const [q, k, v] = tensors(inputs);
        const sparse = {...options, ...blocks, auto: false};
        const made = pbsAttentionPlan(q, k, sparse);
        const wild = wildPlan(await valuesOf(made), seed);
        const plan: PBSAttentionPlan = {
          ...made,
          keyIndices: tensor(wild.keyIndices, made.keyIndices.shape, 'int32'),
          blockMask: tensor(wild.blockMask, made.blockMask.shape, made.blockMask.dtype),
        };
        const output = pbsAttention(q, k, v, {...sparse, plan});
        const error = difference(await output.data(), attentionByPlan(inputs, options, wild));
        expect(error, name).to.be.below(toleranceOf(options, inputs));
        dispose([q, k, v, output, made.keyIndices, made.blockMask, plan.keyIndices, plan.blockMask]);
        return error;
      },
    },
    'hold in rows that see nothing of what is not finite': {
      ...{onCPU: 60, elsewhere: 14},
      async errorOf(seed) {
        const {inputs, options, name} = randomCall(seed);
        const {planted, isSeen} = plantedInputs(inputs, options, seed);
        if (isSeen.every(Boolean)) return 0;
        const output = await attend(planted, options);
        const expected = attentionOracle(inputs, options).output;
        const dim = inputs.valueShape[3];
        const isClean = (_: unknown, i: number) => !isSeen[Math.floor(i / dim)];
        const error = difference(Array.from(output).filter(isClean), expected.filter(isClean));
        expect(error, name).to.be.below(toleranceOf(options, inputs));
        return error;
      },
    },
  };

  const all = Object.entries(checks);
  for (const [name, {onCPU, elsewhere, errorOf}] of all) {
    it(name, () => forRandomCases(isCPU ? onCPU : elsewhere, all.length, errorOf)).timeout(few ? 600_000 : 0);
  }
});
