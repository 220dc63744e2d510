import {compareRules} from './compare_rules';
import type {Measurer} from './measurer';
import {inEveryLayer} from './rules';

/** Exact attention against each rule, over lengths and texts. */
export async function quality(measurer: Measurer): Promise<void> {
  const {lengths, texts, rules} = measurer.options;
  const {quality: rows} = measurer.run;
  for (const length of lengths) {
    for (const {name: text} of texts) {
      const pending = rules.filter(({name: rule}) => !measurer.has('quality', {length, text, rule}));
      if (pending.length === 0) continue;
      await compareRules(measurer, length, text, pending.map(inEveryLayer), (row) => rows.push(row));
    }
  }
}
