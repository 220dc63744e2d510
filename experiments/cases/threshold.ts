import {paperOptions, type PBSAttentionSettings} from '../../src/index';
import type {Experimenter} from '../experimenter';
import type {Rule} from '../options';
import {sweep} from '../measure/sweep';
import {pbsVariant} from '../measure/variant';

const RULES: Record<Rule, PBSAttentionSettings> = {
  default: {},
  paper: paperOptions,
  'not permuted': {permute: false},
  'causal-safe': {causalSafe: true},
};

/** Thresholds, by the rules asked for. */
export async function threshold(experimenter: Experimenter): Promise<void> {
  const {thresholds, sizes, rules} = experimenter.options;
  await sweep(experimenter, () =>
    rules.flatMap((rule) =>
      thresholds.map((threshold) => ({
        variant: pbsVariant(`τ ${threshold}, ${rule}`, {...RULES[rule], ...sizes, threshold}),
        settings: {threshold, rule},
      })),
    ),
  );
}
