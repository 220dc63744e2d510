import type {PBSAttentionSettings} from '../../src/ops/options';
import type {Experimenter} from '../experimenter';
import type {Rule} from '../options';
import {withCaptured} from '../measure/capture';
import {sweep, type SweptVariant} from '../measure/sweep';
import {pbsVariant} from '../measure/variant';
import type {Prompt} from '../prompts/tasks';
import {type Candidate, costShare} from '../selection/candidate';
import {candidateVariant} from '../selection/candidate_variant';
import {matchDensity} from '../selection/match_density';

/** Segment sizes; blocks are never longer than a segment. */
export async function segmentSize(experimenter: Experimenter): Promise<void> {
  const {segmentSizes, blockSizes, thresholds} = experimenter.options;
  await sweep(experimenter, (length) =>
    segmentSizes
      .filter((segmentSize) => segmentSize < length)
      .flatMap((segmentSize) =>
        thresholds.map((threshold) => {
          const blockSize = Math.min(blockSizes[0], segmentSize);
          const options = {segmentSize, blockSize, threshold};
          return {variant: pbsVariant(`S ${segmentSize}, τ ${threshold}`, options), settings: options};
        }),
      ),
  );
}

/** What the library adds to the paper's choice of blocks, taken away part by part. */
const RULES: Record<Rule, Omit<PBSAttentionSettings, 'auto' | 'causal' | 'scale'>> = {
  default: {},
  'not permuted': {permute: false},
  'no remainder': {remainder: false},
  'no probe rows': {probeRows: 0},
  'exact last block alone': {probeRows: 0, remainder: false},
  paper: {probeRows: 0, remainder: false, exactLastBlock: false},
  'paper not permuted': {probeRows: 0, remainder: false, exactLastBlock: false, permute: false},
};

/** Thresholds, by the rules asked for. */
export async function threshold(experimenter: Experimenter): Promise<void> {
  const {thresholds, segmentSizes, blockSizes, rules} = experimenter.options;
  const [segmentSize, blockSize] = [segmentSizes[0], blockSizes[0]];
  await sweep(experimenter, () =>
    rules.flatMap((rule) =>
      thresholds.map((threshold) => {
        const options = {threshold, ...RULES[rule], segmentSize, blockSize};
        return {variant: pbsVariant(`τ ${threshold}, ${rule}`, options), settings: {threshold, rule}};
      }),
    ),
  );
}

export async function blockSize(experimenter: Experimenter): Promise<void> {
  const {blockSizes, segmentSizes, thresholds} = experimenter.options;
  await sweep(experimenter, () =>
    blockSizes.flatMap((blockSize) =>
      thresholds.map((threshold) => {
        const options = {blockSize, segmentSize: segmentSizes[0], threshold};
        return {variant: pbsVariant(`B ${blockSize}, τ ${threshold}`, options), settings: options};
      }),
    ),
  );
}

/** Candidates for the choice of blocks, at one threshold or at one density. */
export async function selection(experimenter: Experimenter): Promise<void> {
  const {options, subject, place} = experimenter;
  const grid = {blockSize: options.blockSizes[0], segmentSize: options.segmentSizes[0]};
  const layers = Array.from({length: subject.model.config.layers}, (_, i) => i);
  const variantsOf = async (length: number, prompts: readonly Prompt[]) => {
    const density = options.densities[options.lengths.indexOf(length)];
    const variantsAt = async (thresholdsOf: (candidate: Candidate) => Promise<number[]> | number[]) => {
      const variants: SweptVariant[] = [];
      for (const {candidate, threshold: given} of options.candidates) {
        for (const threshold of given !== undefined ? [given] : await thresholdsOf(candidate)) {
          place.log(`        ${candidate.name}: threshold ${threshold.toFixed(3)}`);
          variants.push({
            variant: candidateVariant(candidate, threshold, grid),
            settings: {candidate: candidate.name, threshold, cost: costShare(candidate, grid.blockSize, length)},
          });
        }
      }
      return variants;
    };
    if (density === undefined) return variantsAt(() => options.thresholds);
    return withCaptured(subject, prompts[0].ids, layers, (captured) =>
      variantsAt(async (candidate) => [await matchDensity(candidate, captured, density, grid)]),
    );
  };
  await sweep(experimenter, variantsOf, false);
}
