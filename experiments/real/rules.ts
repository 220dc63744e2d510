import type {Tensor4D} from '@tensorflow/tfjs-core';
import {paperOptions, type PBSAttentionPlan, pbsAttentionPlan, type PBSAttentionSettings} from '../../src/index';
import {defaultOptions} from '../../src/internal';
import {oracleMask} from './oracle';

const BASES: Record<string, PBSAttentionSettings> = {
  default: {},
  paper: paperOptions,
  'causal-safe': {causalSafe: true},
  unsorted: {permute: false},
  oracle: {},
};

export const RULE_FORM = `NAME[-QxK][-unsorted][@THRESHOLD], NAME one of ${Object.keys(BASES).join(', ')}`;

/** One way of choosing blocks. */
export interface Rule {
  /** As it was asked for. */
  name: string;
  /** What `pbsAttention` takes; of the oracle what its key order and its blocks are made with. */
  options: PBSAttentionSettings;
  /** Whether blocks are chosen by the true mass of each: the limit of every rule, at a cost above that of exact attention. */
  isOracle: boolean;
}

/** What each layer attends by, under one name. */
export interface LayerRules {
  name: string;
  ofLayer: (layer: number) => Rule;
}

export const inEveryLayer = (rule: Rule): LayerRules => ({name: rule.name, ofLayer: () => rule});

/** `default`, `paper@0.95`, `oracle-128x32-unsorted@0.9`: rows by keys a block, key order, threshold; undefined if it is none. */
export function parseRule(name: string): Rule | undefined {
  const form = new RegExp(`^(${Object.keys(BASES).join('|')})(?:-(\\d+)x(\\d+))?(-unsorted)?(?:@(\\d*\\.?\\d+))?$`);
  const [, base, rows, keys, unsorted, threshold] = form.exec(name) ?? [];
  if (base === undefined || Number(threshold ?? 0) > 1) return undefined;
  return {
    name,
    options: {
      ...BASES[base],
      ...(rows !== undefined && {blockSize: Number(rows), keyBlockSize: Number(keys)}),
      ...(unsorted !== undefined && {permute: false}),
      ...(threshold !== undefined && {threshold: Number(threshold)}),
    },
    isOracle: base === 'oracle',
  };
}

/** A rule at whatever threshold: what a curve is drawn of. */
export const withoutThreshold = (name: string): string => name.split('@')[0];

/** The plan of a layer; the caller disposes its tensors. */
export function planOf({options, isOracle}: Rule, query: Tensor4D, key: Tensor4D): PBSAttentionPlan {
  const plan = pbsAttentionPlan(query, key, options);
  if (!isOracle) return plan;
  const blockMask = oracleMask(query, key, plan, options.threshold ?? defaultOptions.threshold);
  plan.blockMask.dispose();
  return {...plan, blockMask};
}
