import {pbsAttention} from '../../src/index';
import {causalMask, composedAttention} from '../composed_attention';
import {exactAttention, sparseOptions} from '../our_attention';
import {queryBytes, scoreBytes, shapeName} from '../shapes';
import type {CaseRunner} from './case_runner';
import {disposeInputs, randomInputs} from './inputs';

const MEMORY_LENGTHS = [4096, 16_384, 65_536];

/** Bytes on the GPU of each way, for the first of the shapes. */
export async function measureMemory(runner: CaseRunner): Promise<void> {
  const {peakBytes, scoreLimit} = runner.device;
  if (!peakBytes) {
    runner.skip('memory', 'bytes are counted on WebGPU alone');
    return;
  }
  const {lengths, threshold, shapes} = runner.options;
  const shape = shapes[0];
  for (const length of lengths ?? MEMORY_LENGTHS) {
    await runner.case(`memory ${shapeName(shape)} ${length}`, async () => {
      const inputs = randomInputs(shape, length, 3);
      const {query, key, value} = inputs;
      const options = sparseOptions(threshold);
      const composedFits = scoreBytes(shape, length) <= scoreLimit.bytes;
      const composed = async () => {
        const mask = causalMask(length);
        const bytes = await peakBytes(() => composedAttention(inputs, mask));
        mask.dispose();
        return bytes;
      };
      try {
        return [
          {
            kind: 'memory' as const,
            shape: shapeName(shape),
            length,
            output: queryBytes(shape, length),
            exact: await peakBytes(() => exactAttention(inputs, 'float32')),
            sparse: await peakBytes(() => pbsAttention(query, key, value, options)),
            composed: composedFits ? await composed() : undefined,
            scoreMatrix: scoreBytes(shape, length),
          },
        ];
      } finally {
        disposeInputs(inputs);
      }
    });
  }
}
