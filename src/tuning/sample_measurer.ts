import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {abs, cast, concat, dispose, keep, reshape, sub, sum, tidy} from '@tensorflow/tfjs-core';
import type {PBSAttentionAttrs} from '../attention/attention_kernels.js';
import {blockGeometry} from '../attention/block_geometry.js';
import {countBlocks} from '../attention/cost_model.js';
import {blockMass, massOfKept} from '../ops/block_mass.js';
import {flashAttention} from '../ops/flash_attention.js';
import {pbsAttention} from '../ops/pbs_attention.js';
import {pbsAttentionPlan} from '../ops/pbs_attention_plan.js';
import type {AttentionSample} from './attention_samples.js';

/** What block-sparse attention does to a sample, over all its rows and heads. */
export interface AttentionMeasures {
  /** Share of the visible blocks that are kept. */
  density: number;
  /** Σ|sparse − exact| / Σ|exact| over the output. */
  relativeL1: number;
  /** Share of the true attention that the kept blocks hold, mean over rows; where it was asked for. */
  attentionMass?: number;
}

/**
 * Measures thresholds on one sample, all other options being the same, against exact attention, which it computes once, as it does
 * the exact mass of each block: the order of keys does not depend on the threshold. What it makes is at most as large as the output, a plan, or keys and values with a head for each query head. What it
 * holds while it waits is kept, since the scope of others may end meanwhile. To be disposed.
 */
export class SampleMeasurer {
  private readonly exact: Tensor4D;
  private exactSums?: number[];
  private mass?: Tensor4D;

  constructor(
    private readonly sample: AttentionSample,
    private readonly withMass: boolean,
    exactOptions: Pick<PBSAttentionAttrs, 'causal' | 'scale' | 'precision'>,
  ) {
    const {query, key, value} = sample;
    this.exact = keep(flashAttention(query, key, value, exactOptions));
  }

  async measure(attrs: PBSAttentionAttrs): Promise<AttentionMeasures> {
    const {query, key, value} = this.sample;
    const plan = pbsAttentionPlan(query, key, attrs);
    [plan.keyIndices, plan.blockMask].forEach((x) => keep(x));
    try {
      if (this.withMass) {
        this.mass ??= await blockMass(query, key, plan.keyIndices, attrs, {causal: attrs.causal, scale: attrs.scale});
      }
      const sums = tidy(() => {
        const sparse = pbsAttention(query, key, value, {...attrs, plan});
        const differences = sum(abs(sub(sparse, this.exact)), [2, 3]);
        const kept = sum(cast(plan.blockMask, 'float32'), [2, 3]);
        const parts = [kept, differences];
        if (this.mass) {
          parts.push(massOfKept(this.mass, plan.blockMask, query.shape[2], attrs.blockSize));
        }
        return stacked(parts);
      });
      const [kept, differences, masses] = await rowsOf(sums);
      this.exactSums ??= (await rowsOf(tidy(() => stacked([sum(abs(this.exact), [2, 3])]))))[0];
      return summarise(this.visibleBlocks(attrs), kept, differences, this.exactSums, masses);
    } finally {
      dispose([plan.keyIndices, plan.blockMask]);
    }
  }

  dispose(): void {
    this.exact.dispose();
    this.mass?.dispose();
  }

  private visibleBlocks(attrs: PBSAttentionAttrs): number {
    const {query, key} = this.sample;
    return countBlocks(blockGeometry(query, key, attrs), attrs.causal).visible;
  }
}

/** One read for all: `[quantities, batch · heads]`. */
function stacked(parts: Tensor[]): Tensor {
  return concat(
    parts.map((x) => reshape(x, [1, x.size])),
    0,
  );
}

async function rowsOf(x: Tensor): Promise<number[][]> {
  const [rows, columns] = x.shape;
  keep(x);
  try {
    const values = Array.from(await x.data());
    return Array.from({length: rows}, (_, row) => values.slice(row * columns, (row + 1) * columns));
  } finally {
    x.dispose();
  }
}

/** From quantities of each head of each batch entry to those of all. */
function summarise(
  visibleBlocks: number,
  kept: number[],
  differences: number[],
  exact: number[],
  masses?: number[],
): AttentionMeasures {
  const total = (values: number[]) => values.reduce((a, b) => a + b, 0);
  // An output of zeros that stays one has no error.
  const difference = total(differences);
  return {
    density: total(kept) / (kept.length * visibleBlocks),
    relativeL1: difference === 0 ? 0 : difference / total(exact),
    ...(masses && {attentionMass: total(masses) / kept.length}),
  };
}
