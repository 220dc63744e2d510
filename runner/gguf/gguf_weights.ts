import type {LlamaConfig} from '../llama/config';
import type {StoredBlocks, WeightSource} from '../llama/weight_source';
import {isPacked} from '../quantised/packed_type';
import {ROTARY_FACTORS} from './gguf_config';
import type {GGUFFile} from './gguf_file';

/** Names of GGUF by those of transformers, outside the layers. */
const OUTSIDE: Readonly<Record<string, string>> = {
  'model.embed_tokens.weight': 'token_embd.weight',
  'model.norm.weight': 'output_norm.weight',
  'lm_head.weight': 'output.weight',
};

/** Parts of a layer, likewise. */
const PARTS: Readonly<Record<string, string>> = {
  input_layernorm: 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'self_attn.o_proj': 'attn_output',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
};

/** Norms of a layer that have other names where it has one after attention and after the MLP, too. */
const NORMS: Readonly<Record<string, string>> = {post_attention_layernorm: 'ffn_norm'};
const NORMS_WITH_POST_NORMS: Readonly<Record<string, string>> = {
  post_attention_layernorm: 'post_attention_norm',
  pre_feedforward_layernorm: 'ffn_norm',
  post_feedforward_layernorm: 'post_ffw_norm',
};

const LAYER_OF_TRANSFORMERS = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/;

/**
 * The tensors of a GGUF file by the names of transformers. Files of llama hold the rows of queries and keys in an order of
 * their own, in which the pairs that the rotary embedding turns stand together; they are read in that of transformers.
 */
export class GGUFWeights implements WeightSource {
  private readonly nameInFile: ReadonlyMap<string, string>;
  private readonly parts: Readonly<Record<string, string>>;

  constructor(
    private readonly file: GGUFFile,
    private readonly config: LlamaConfig,
  ) {
    this.parts = {...PARTS, ...(config.postNorms ? NORMS_WITH_POST_NORMS : NORMS)};
    const byPart = new Map(Object.entries(this.parts).map(([name, part]) => [part, name]));
    const outside = new Map(Object.entries(OUTSIDE).map(([name, inFile]) => [inFile, name]));
    const nameOf = (inFile: string): string => {
      const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(inFile) ?? [];
      if (part !== undefined && byPart.has(part)) return `model.layers.${layer}.${byPart.get(part)}.${kind}`;
      return outside.get(inFile) ?? inFile;
    };
    // What the config has read already is no weight.
    const weights = file.names().filter((name) => name !== ROTARY_FACTORS);
    this.nameInFile = new Map(weights.map((inFile) => [nameOf(inFile), inFile]));
  }

  names(): string[] {
    return [...this.nameInFile.keys()];
  }

  fileOf(): string {
    return this.file.fileName;
  }

  shape(name: string): readonly number[] {
    return this.file.shape(this.inFile(name));
  }

  check(name: string, shape: readonly number[]): void {
    const inFile = this.inFile(name);
    const got = this.file.shape(inFile);
    if (got.join() !== shape.join()) {
      throw new Error(
        `${this.file.fileName}: tensor "${inFile}" has shape [${got}]; accepted: [${shape}], by what the metadata say`,
      );
    }
  }

  async read(name: string): Promise<Float32Array> {
    const inFile = this.inFile(name);
    const values = await this.file.read(inFile);
    return this.isTurned(inFile) ? halvesApart(values, this.file.shape(inFile)[0], this.config.headDim) : values;
  }

  blocks(name: string): StoredBlocks | undefined {
    const inFile = this.inFile(name);
    const type = this.file.type(inFile);
    if (!isPacked(type)) return undefined;
    if (!this.isTurned(inFile)) return {type, readRows: (first, end) => this.file.readRows(inFile, first, end)};
    const [rows] = this.file.shape(inFile);
    return {
      type,
      readRows: async (first, end) => {
        const bytes = halvesApart(await this.file.readBlocks(inFile), rows, this.config.headDim);
        return bytes.subarray((first * bytes.length) / rows, (end * bytes.length) / rows);
      },
    };
  }

  private isTurned(inFile: string): boolean {
    return this.config.architecture === 'LlamaForCausalLM' && /\.attn_[qk]\./.test(inFile);
  }

  /** A name that no tensor has stands for what it would be called in the file. */
  private inFile(name: string): string {
    const known = this.nameInFile.get(name);
    if (known !== undefined) return known;
    const [, layer, part, kind] = LAYER_OF_TRANSFORMERS.exec(name) ?? [];
    const inFile = part === undefined ? (OUTSIDE[name] ?? name) : `blk.${layer}.${this.parts[part] ?? part}.${kind}`;
    throw new Error(
      `${this.file.fileName}: tensor "${inFile}" is missing; the file has ${this.file.names().length} others`,
    );
  }
}

/** Rows 0, 1, 2, 3, … of each head, of which 2 i and 2 i + 1 make a pair, as rows 0, 2, 4, … and then 1, 3, 5, … */
function halvesApart<Values extends Float32Array | Uint8Array>(values: Values, rows: number, headDim: number): Values {
  const columns = values.length / rows;
  const arranged = values.slice() as Values;
  for (let row = 0; row < rows; ++row) {
    const inHead = row % headDim;
    const to = row - inHead + (inHead % 2) * (headDim / 2) + Math.floor(inHead / 2);
    arranged.set(values.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return arranged;
}
