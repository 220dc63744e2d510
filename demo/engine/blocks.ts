import * as tf from '@tensorflow/tfjs-core';
import {pbsAttentionPlan} from '../../src/index';
import {type BlockGrid, defaultOptions, visibleBlocks} from '../../src/internal';
import type {PrefillOptions} from '../../runner/llama/attention';
import type {Prompt, TokenRange} from './prompt';
import type {BlockMask, BlockPicture, KeptBlocks} from './protocol';

/** Most bytes of queries and keys that are held until a run is over, to look at their blocks afterwards. */
const MOST_HELD_BYTES = 2 ** 30;

/** One plan of one layer, read back. */
interface LayerPlan {
  /** `[heads, queryBlocks, keyBlocks]`: 1 where kept. */
  mask: Uint8Array;
  /** `[heads, length]`: place in the order of the run to original key. */
  keyIndices: Int32Array;
}

interface LayerPlans {
  heads: number;
  unpermuted: LayerPlan;
  permuted: LayerPlan;
}

/** Holds queries and keys of a prefill while its clock runs, which costs no work. */
export class HeldLayers {
  private readonly layers: Array<{query: tf.Tensor4D; key: tf.Tensor4D}> = [];
  private bytes = 0;

  /** The first layer is always held; others that no longer fit are let go. */
  hold(query: tf.Tensor4D, key: tf.Tensor4D): void {
    this.bytes += 4 * (query.size + key.size);
    if (this.bytes > MOST_HELD_BYTES && this.layers.length > 0) return;
    this.layers.push({query: tf.keep(tf.clone(query)), key: tf.keep(tf.clone(key))});
  }

  /** Plans over what is held: `pbsAttention` itself never gives its blocks away. */
  async look(prompt: Prompt, options: PrefillOptions): Promise<RunBlocks> {
    const layers: LayerPlans[] = [];
    for (const {query, key} of this.layers) {
      const unpermuted = await readPlan(query, key, {...options, permute: false});
      const permuted = await readPlan(query, key, {...options, permute: true});
      layers.push({heads: query.shape[1], unpermuted, permuted});
    }
    return new RunBlocks(prompt, options, layers);
  }

  dispose(): void {
    tf.dispose(this.layers);
    this.layers.length = 0;
  }
}

async function readPlan(query: tf.Tensor4D, key: tf.Tensor4D, options: PrefillOptions): Promise<LayerPlan> {
  const {keyIndices, blockMask} = pbsAttentionPlan(query, key, options);
  try {
    const [indices, mask] = await Promise.all([keyIndices.data<'int32'>(), blockMask.data()]);
    return {keyIndices: Int32Array.from(indices), mask: Uint8Array.from(mask)};
  } finally {
    tf.dispose([keyIndices, blockMask]);
  }
}

/** The blocks that a prefill with PBS attention kept. */
export class RunBlocks {
  private readonly grid: BlockGrid;
  /** Blocks that a head could keep. */
  private readonly visible: number;

  constructor(
    private readonly prompt: Prompt,
    private readonly options: PrefillOptions,
    private readonly layers: readonly LayerPlans[],
  ) {
    const {blockSize = defaultOptions.blockSize, segmentSize = defaultOptions.segmentSize} = options;
    const {keyBlockSize = Math.min(defaultOptions.keyBlockSize, blockSize)} = options;
    const length = prompt.ids.length;
    this.grid = {
      ...{blockSize, keyBlockSize, segmentSize, queryLength: length, queryOffset: 0},
      queryBlocks: Math.ceil(length / blockSize),
      keyBlocks: Math.ceil(length / keyBlockSize),
    };
    this.visible = 0;
    for (let row = 0; row < this.grid.queryBlocks; ++row) this.visible += visibleBlocks(this.grid, true, row);
  }

  /** By the options of the run. */
  kept(): KeptBlocks {
    const order = (this.options.permute ?? defaultOptions.permute) ? 'permuted' : 'unpermuted';
    const sides = this.layers.map((layer) =>
      Array.from({length: layer.heads}, (_, head) => this.side(layer[order], head)),
    );
    const heads = sides.map((layer) => layer.map(({density}) => density));
    const factBlocks = sides.map((layer) => layer.map((side) => this.factBlocksRead(side)));
    const all = heads.flat();
    return {heads, factBlocks, density: all.reduce((sum, density) => sum + density, 0) / all.length};
  }

  picture(layer: number, head: number): BlockPicture {
    const plans = this.layers[layer];
    if (plans === undefined || !(head >= 0 && head < plans.heads)) {
      throw new Error(`no blocks of layer ${layer}, head ${head}: ${this.layers.length} layers were looked at`);
    }
    const {blockSize, keyBlockSize, segmentSize, queryBlocks, keyBlocks} = this.grid;
    return {
      ...{blockSize, keyBlockSize, segmentSize, queryBlocks, keyBlocks},
      unpermuted: this.side(plans.unpermuted, head),
      permuted: this.side(plans.permuted, head),
      question: this.questionBlocks(),
    };
  }

  private questionBlocks(): number[] {
    return this.blocksOf(this.prompt.question, this.grid.blockSize, (position) => position);
  }

  private side(plan: LayerPlan, head: number): BlockMask {
    const kept = this.maskOf(plan, head);
    const first = head * this.prompt.ids.length;
    const needle = this.blocksOf(
      this.prompt.fact,
      this.grid.keyBlockSize,
      (position) => plan.keyIndices[first + position],
    );
    return {kept, density: this.density(kept), needle};
  }

  /** Blocks of the fact that the last block of the question keeps; 0 where there is no question. */
  private factBlocksRead({kept, needle}: BlockMask): number {
    const question = this.questionBlocks();
    if (question.length === 0) return 0;
    const last = Math.max(...question) * this.grid.keyBlocks;
    return needle.filter((key) => kept[last + key] !== 0).length;
  }

  private maskOf({mask}: LayerPlan, head: number): Uint8Array {
    const size = this.grid.queryBlocks * this.grid.keyBlocks;
    return mask.slice(head * size, (head + 1) * size);
  }

  private density(kept: Uint8Array): number {
    return kept.reduce((sum, one) => sum + one, 0) / this.visible;
  }

  /** Blocks of `size` positions with one whose token is in the range. */
  private blocksOf(range: TokenRange | undefined, size: number, tokenAt: (position: number) => number): number[] {
    const found = new Set<number>();
    if (range === undefined) return [];
    for (let position = 0; position < this.prompt.ids.length; ++position) {
      const token = tokenAt(position);
      if (token >= range.start && token < range.end) found.add(Math.floor(position / size));
    }
    return [...found];
  }
}
