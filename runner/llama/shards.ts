import {cut} from '../message_text';
import type {Safetensors} from './safetensors';
import type {StoredBlocks, WeightSource} from './weight_source';

/** The tensors of one or several safetensors files, found by name wherever they lie. */
export class Shards implements WeightSource {
  private readonly shardOf = new Map<string, Safetensors>();

  constructor(private readonly shards: readonly Safetensors[]) {
    for (const shard of shards) {
      for (const name of shard.names()) {
        const other = this.shardOf.get(name);
        if (other !== undefined) {
          throw new Error(
            `tensor "${cut(name)}" is in ${other.fileName} and in ${shard.fileName}; accepted: one of them`,
          );
        }
        this.shardOf.set(name, shard);
      }
    }
  }

  names(): string[] {
    return [...this.shardOf.keys()];
  }

  fileOf(name: string): string {
    return this.shard(name).fileName;
  }

  shape(name: string): readonly number[] {
    return this.shard(name).shape(name);
  }

  check(name: string, shape: readonly number[]): void {
    const shard = this.shard(name);
    const got = shard.shape(name);
    if (got.join() !== shape.join()) {
      throw new Error(
        `${shard.fileName}: tensor "${name}" has shape [${cut(got.join())}]; accepted: [${shape}], by what config.json says`,
      );
    }
  }

  private shard(name: string): Safetensors {
    const shard = this.shardOf.get(name);
    if (shard === undefined) {
      const [first, ...others] = this.shards.map(({fileName}) => fileName);
      const files = others.length === 0 ? first : `${first} to ${others.at(-1)}`;
      throw new Error(`${files}: tensor "${name}" is missing; there are ${this.shardOf.size} others`);
    }
    return shard;
  }

  read(name: string): Promise<Float32Array> {
    return this.shard(name).read(name);
  }

  blocks(name: string): StoredBlocks {
    const shard = this.shard(name);
    return {type: shard.dtype(name), readRows: (first, end) => shard.readRows(name, first, end)};
  }
}
