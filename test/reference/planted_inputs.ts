import {Random} from '../fuzz/random';
import type {Inputs} from './attention';
import type {OracleOptions} from './attention_oracle';
import {attentionOracle} from './attention_oracle';

/**
 * Inputs in which some rows of query, key and value hold NaN or infinities, and of each row of the output whether that may matter to it: it is
 * one of these rows, or sees such a key.
 */
export function plantedInputs(
  inputs: Inputs,
  options: OracleOptions,
  seed: number,
): {planted: Inputs; isSeen: boolean[]} {
  const random = new Random(seed);
  const planted = {...inputs, query: inputs.query.slice(), key: inputs.key.slice(), value: inputs.value.slice()};
  const keys = inputs.keyShape.slice(0, 3).reduce((a, b) => a * b);
  const queries = inputs.queryShape.slice(0, 3).reduce((a, b) => a * b);
  /** Plants in a row: in one column, or in all. */
  const plant = (part: 'query' | 'key' | 'value', row: number) => {
    const dim = inputs[`${part}Shape`][3];
    const x = random.pick([NaN, Infinity, -Infinity]);
    const column = random.below(dim);
    planted[part].fill(x, row * dim + (random.chance(0.5) ? 0 : column), row * dim + column + 1);
  };
  const harmful = new Float32Array(keys);
  for (let left = 1 + random.count(6); left > 0; --left) {
    const row = random.below(keys);
    harmful[row] = 1;
    plant(random.pick(['key', 'value']), row);
  }
  const ofQuery = new Set<number>();
  for (let left = random.count(2); left > 0; --left) ofQuery.add(random.below(queries));
  ofQuery.forEach((row) => plant('query', row));
  // What a row sees of a value that is 1 there and 0 elsewhere.
  const [batch, keyHeads, keyLength] = inputs.keyShape;
  const seen = attentionOracle({...inputs, value: harmful, valueShape: [batch, keyHeads, keyLength, 1]}, options);
  return {planted, isSeen: Array.from(seen.output, (x, row) => x !== 0 || ofQuery.has(row))};
}
