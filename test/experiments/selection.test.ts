import * as tf from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import {costShare, parseCandidate} from '../../experiments/selection/candidate';
import {
  candidateGeometry,
  candidateVariant,
  orderKeys,
  planCandidate,
} from '../../experiments/selection/candidate_variant';
import {massOfRows, massOfVectors, permutedKeys, pooled} from '../../experiments/selection/block_sums';
import {matchDensity} from '../../experiments/selection/match_density';
import {chooseRows, scoreCandidate, smoothed} from '../../experiments/selection/score';
import {currentStages} from '../../experiments/selection/stages';
import {flashAttention, pbsAttentionDensity, type PBSAttentionPlan, pbsAttentionPlan} from '../../src/index';
import {dot, keyRow} from '../../src/kernels/cpu/permute';
import {scoredBlocks, visibleBlocks} from '../../src/kernels/block_geometry';
import {rejection} from '../model/tiny_checkpoint';
import {paper, randomInputs, tensors} from '../reference';

const GRID = {blockSize: 16, segmentSize: 32};
const SHAPE = {heads: 4, keyValueHeads: 2, length: 192, headDim: 8};

describe('candidates for selection [cpu]', () => {
  before(async () => {
    await tf.setBackend('cpu');
  });
  const inputs = randomInputs(SHAPE, 3);

  /** Runs in a scope of its own; what it gives is read. */
  const valuesOf = (make: (query: tf.Tensor4D, key: tf.Tensor4D, value: tf.Tensor4D) => tf.Tensor) =>
    tf.tidy(() => make(...tensors(inputs)).dataSync());

  const geometry = {
    batch: 1,
    ...SHAPE,
    ...GRID,
    queryLength: SHAPE.length,
    keyLength: SHAPE.length,
    queryOffset: 0,
    valueDim: SHAPE.headDim,
    queryBlocks: 12,
    keyBlocks: 12,
    permutedLength: 192,
    proxyRows: 16,
  };
  const scale = 1 / Math.sqrt(SHAPE.headDim);

  /** What every row really pays to each key block, `[head][row][block]`, its own segment included. */
  function trueShares(keyIndices: ArrayLike<number>): number[][][] {
    const {heads, length, headDim, blockSize, keyBlocks: blocks} = geometry;
    return Array.from({length: heads}, (_, head) =>
      Array.from({length}, (_, row) => {
        const shares = new Array<number>(blocks).fill(0);
        let sum = 0;
        for (let i = 0; i < length; ++i) {
          const position = keyIndices[head * length + i];
          if (position > row) continue;
          const query = (head * length + row) * headDim;
          const key = keyRow(geometry, head, position) * headDim;
          const weight = Math.exp(scale * dot(inputs.query, query, inputs.key, key, headDim));
          shares[Math.floor(i / blockSize)] += weight;
          sum += weight;
        }
        return shares.map((share) => share / sum);
      }),
    );
  }

  it('the pooled estimate gives the plan of the library', () => {
    for (const [name, options] of [
      ['pooled', {}],
      ['pooled+paper', {exactLastBlock: false}],
      ['pooled+unpermuted', {permute: false}],
    ] as const) {
      const mask = valuesOf((q, k) => {
        const stages = currentStages();
        const {blockLists} = planCandidate(parseCandidate(name), stages, q, k, geometry, scale, 0.8);
        return stages.blockMask(blockLists, geometry);
      });
      const library = valuesOf(
        (q, k) => pbsAttentionPlan(q, k, {...GRID, ...paper, ...options, threshold: 0.8}).blockMask,
      );
      expect([...mask], name).to.deep.equal([...library]);
    }
  });

  it('pooling by whole blocks is the pooled estimate', () => {
    const [fine, library] = ['pool-16x16', 'pooled'].map((name) =>
      valuesOf((q, k) => {
        const stages = currentStages();
        const order = orderKeys(parseCandidate(name), stages, q, k, geometry, scale);
        return scoreCandidate(parseCandidate(name), stages, q, k, order, geometry, scale, 0.8);
      }),
    );
    fine.forEach((score, i) => expect(score).to.be.closeTo(library[i], 1e-5));
  });

  it('the mass of rows is what attention pays, in pieces or at once', () => {
    const order = valuesOf((q, k) => currentStages().permute(q, k, geometry, scale, true).keyIndices);
    const expected = trueShares(order);
    for (const mostScores of [undefined, 4 * 4 * 192]) {
      const mass = valuesOf((q, k) => {
        const {keyIndices} = currentStages().permute(q, k, geometry, scale, true);
        const queries = tf.reshape(q, [4, 192, 8]) as tf.Tensor3D;
        const rows = chooseRows({choice: 'strided', count: 4}, queries, k, geometry);
        return massOfRows(queries, permutedKeys(k, keyIndices), keyIndices, rows, geometry, scale, mostScores);
      });
      let at = 0;
      for (let head = 0; head < 4; ++head) {
        for (let block = 0; block < 12; ++block) {
          for (const row of [3, 7, 11, 15]) {
            for (let keyBlock = 0; keyBlock < 12; ++keyBlock) {
              const competes = keyBlock < scoredBlocks(geometry, true, block);
              const share = competes ? expected[head][16 * block + row][keyBlock] : 0;
              expect(mass[at++]).to.be.closeTo(share, 1e-5);
            }
          }
        }
      }
    }
  });

  it('the mass of vectors does not depend on the pieces', () => {
    const [whole, pieces] = [undefined, 4 * 4 * 48].map((mostScores) =>
      valuesOf((q, k) => {
        const {keyIndices} = currentStages().permute(q, k, geometry, scale, true);
        const queries = pooled(tf.reshape(q, [4, 192, 8]), 4);
        return massOfVectors(queries, pooled(permutedKeys(k, keyIndices), 4), geometry, mostScores);
      }),
    );
    pieces.forEach((share, i) => expect(share).to.be.closeTo(whole[i], 1e-6));
    const row = Array.from(whole.slice(11 * 12, 12 * 12));
    expect(row.reduce((a, b) => a + b)).to.be.closeTo(1, 1e-5);
    expect(row.slice(10)).to.deep.equal([0, 0]);
  });

  it('rows are chosen by what their names say', () => {
    const {headDim, blockSize} = geometry;
    const lengths = (row: number) => dot(inputs.query, row * headDim, inputs.query, row * headDim, headDim);
    const sinks = (row: number) => -dot(inputs.query, row * headDim, inputs.key, 0, headDim);
    for (const [choice, measure] of [
      ['longest', lengths],
      ['sinkless', sinks],
    ] as const) {
      const rows = valuesOf((q, k) => chooseRows({choice, count: 3}, tf.reshape(q, [4, 192, 8]), k, geometry));
      for (let block = 0; block < 12; ++block) {
        const own = Array.from({length: blockSize}, (_, i) => block * blockSize + i);
        const best = own.sort((a, b) => measure(b) - measure(a)).slice(0, 3);
        // Head 0 alone: its rows come first.
        expect(Array.from(rows.slice(3 * block, 3 * block + 3))).to.deep.equal(best);
      }
    }
  });

  it('with +own the kept blocks and the own segment reach the threshold, and no block is needless', () => {
    const threshold = 0.8;
    const [mask, order] = (['mask', 'order'] as const).map((what) =>
      valuesOf((q, k) => {
        const stages = currentStages();
        const plan = planCandidate(parseCandidate('mass+own+paper'), stages, q, k, geometry, scale, threshold);
        return what === 'mask' ? stages.blockMask(plan.blockLists, geometry) : plan.keyIndices;
      }),
    );
    const shares = trueShares(order);
    for (let head = 0; head < 4; ++head) {
      const sink = Math.floor(Array.from(order.slice(head * 192, (head + 1) * 192)).indexOf(0) / 16);
      for (let block = 0; block < 12; ++block) {
        const mean = Array.from({length: 12}, (_, keyBlock) => {
          const rows = shares[head].slice(16 * block, 16 * (block + 1));
          return rows.reduce((sum, row) => sum + row[keyBlock], 0) / 16;
        });
        const isKept = (keyBlock: number) => mask[(head * 12 + block) * 12 + keyBlock] === 1;
        const kept = mean.filter((_, keyBlock) => isKept(keyBlock));
        const total = kept.reduce((a, b) => a + b, 0);
        expect(total).to.be.at.least(threshold - 1e-4);
        const chosen = mean.filter((_, i) => isKept(i) && i !== sink && i < scoredBlocks(geometry, true, block));
        // The sink block may be kept besides, so only what lies above it in the order counts as needless.
        if (chosen.length > 1)
          expect(total - Math.min(...chosen) - (isKept(sink) ? mean[sink] : 0)).to.be.below(threshold);
      }
    }
  });

  it('smooth averages with the neighbours for which a block competes, and keeps the sum', () => {
    const four = {
      ...geometry,
      heads: 1,
      length: 64,
      queryLength: 64,
      keyLength: 64,
      queryBlocks: 4,
      keyBlocks: 4,
      permutedLength: 64,
      blockSize: 16,
      segmentSize: 16,
    };
    // Query block 2 sees key blocks 0 and 1, block 3 sees 0 to 2, block 1 sees 0.
    const shares = [
      [0, 0, 0, 0],
      [0.8, 0, 0, 0],
      [0.2, 0.4, 0, 0],
      [0.1, 0.3, 0.2, 0],
    ];
    const result = tf.tidy(() => smoothed(tf.tensor3d([shares]), four).arraySync()[0]);
    // Row 2: block 0 of rows 1, 2 and 3, block 1 of rows 2 and 3.
    const [a, b] = [(0.4 + 0.2 + 0.05) / 2, (0.4 + 0.15) / 1.5];
    expect(result[2][0]).to.be.closeTo((0.6 * a) / (a + b), 1e-6);
    expect(result[2][1]).to.be.closeTo((0.6 * b) / (a + b), 1e-6);
    expect(result[0]).to.deep.equal([0, 0, 0, 0]);
    expect(result[1][0]).to.be.closeTo(0.8, 1e-6);
    expect(result[3].reduce((x, y) => x + y)).to.be.closeTo(0.6, 1e-6);
  });

  it('a candidate that keeps every block is exact attention', async () => {
    const [query, key, value] = tensors(inputs);
    const variant = candidateVariant(parseCandidate('strided-4/outlying-2+peak'), 1, GRID);
    let plan: PBSAttentionPlan | undefined;
    const output = variant.attend(query, key, value, (made) => {
      plan = {keyIndices: tf.keep(made.keyIndices), blockMask: tf.keep(made.blockMask)};
    });
    const exact = flashAttention(query, key, value);
    const [values, expected] = [output.dataSync(), exact.dataSync()];
    const density = await pbsAttentionDensity(plan!, GRID);
    tf.dispose([query, key, value, output, exact, plan!.keyIndices, plan!.blockMask]);
    // A threshold of 1 keeps all but blocks whose share is lost to rounding.
    expect(density).to.be.above(0.95);
    values.forEach((x, i) => expect(x).to.be.closeTo(expected[i], 1e-3));
  });

  it('brings a candidate to a density, from below', async () => {
    const [query, key, value] = tensors(inputs);
    const before = tf.memory().numTensors;
    for (const name of [
      'pooled',
      'mass+own',
      'strided-4/outlying-2+peak+own',
      'outlying-4+group+mix',
      'strided-4+smooth+pooled',
    ]) {
      const candidate = parseCandidate(name);
      const threshold = await matchDensity(candidate, [{query, key, value}], 0.6, GRID);
      const kept = valuesOf((q, k) => {
        const stages = currentStages();
        const {blockLists} = planCandidate(candidate, stages, q, k, geometry, scale, threshold);
        return tf.sum(tf.cast(stages.blockMask(blockLists, geometry), 'float32'));
      });
      let visible = 0;
      for (let block = 0; block < 12; ++block) visible += 4 * visibleBlocks(geometry, true, block);
      expect(kept[0] / visible, name).to.be.within(0.5, 0.6);
    }
    const unreachable = await rejection(matchDensity(parseCandidate('pooled'), [{query, key, value}], 0.1, GRID));
    expect(unreachable).to.match(/^density 0.1: the blocks that are always kept are 0\.\d+; accepted: more$/);
    expect(tf.memory().numTensors).to.equal(before);
    tf.dispose([query, key, value]);
  });

  it('names, costs, and what is refused', () => {
    expect(costShare(parseCandidate('mass'), 128, 4096)).to.equal(0.5);
    expect(costShare(parseCandidate('strided-8'), 128, 4096)).to.equal(8 / 256);
    expect(costShare(parseCandidate('strided-8/outlying-4'), 128, 4096)).to.be.closeTo(12 / 256 + 1 / 4096, 1e-12);
    expect(costShare(parseCandidate('pool-8x8'), 128, 4096)).to.equal(1 / 128);
    for (const name of ['strided', 'strided-0', 'pool-8', 'best', 'pooled+better', 'strided-4/other-2', '']) {
      expect(() => parseCandidate(name), name).to.throw(`candidate is "${name}"; accepted: pooled, mass`);
    }
    expect(() => parseCandidate('strided-8+peak')).to.throw('accepted with +peak: strided and other rows');
    tf.tidy(() => {
      const [query, key] = tensors(randomInputs({...SHAPE, length: 190}, 1));
      expect(() => candidateGeometry(query, key, GRID)).to.throw(
        'got 190 tokens; takes a multiple of the segment size, 32',
      );
    });
  });
});
