import {milliseconds, table} from '../table';
import type {KernelTime, PrefillRun} from './profile';

/** What a kernel of tfjs is for in a prefill. */
const CLASSES: Array<[name: string, kernels: RegExp]> = [
  ['attention', /^(FlashAttention|PBSAttention)$/],
  ['matrix products', /^(_FusedMatMul|BatchMatMul|Product|GatedProduct|PackedProduct)$/],
  ['moved values', /^(Transpose|Slice|SplitV|Concat|Reverse|GatherV2|Reshape|Identity|JoinHeadsFloat16)$/],
  ['norms, rotary embedding, gates', /^(RMSNorm|NormaliseFloat16|RotaryEmbedding|GatedActivation)$/],
  ['unpacking', /^Unpack/],
  ['elementwise and sums', /./],
];

/** Lines that a person reads: times to first token, then where the time of the GPU goes. */
export function reportRun({
  length,
  attention,
  precision,
  firstToken,
  record,
  decode,
  nextQuestion,
  gpuBytes,
  profile,
}: PrefillRun): string {
  const lines = [
    '',
    `## ${length.toLocaleString('en')} tokens, ${attention}, ${precision}`,
    '',
    `first token ${milliseconds(firstToken)} ms, of which recording ${milliseconds(record)} ms; ${firstToken.timings} prefills`,
    `${nextQuestion ? `second question ${milliseconds(nextQuestion)} ms; ` : ''}${decode ? `then ${milliseconds(decode)} ms a token; ` : ''}${(gpuBytes / 1e6).toFixed(0)} MB of GPU memory`,
  ];
  if (profile === undefined) return lines.join('\n');
  const dispatches = sum(profile, (entry) => entry.dispatches);
  const gpuMs = sum(profile, (entry) => entry.gpuMs);
  const classes = CLASSES.map(([name], i) => {
    const own = profile.filter(({kernel}) => CLASSES.findIndex(([, kernels]) => kernels.test(kernel)) === i);
    const ms = sum(own, (entry) => entry.gpuMs);
    return [name, String(sum(own, (entry) => entry.dispatches)), ms.toFixed(2), `${((100 * ms) / gpuMs).toFixed(0)}%`];
  });
  lines.push(
    '',
    table(['', 'dispatches', 'GPU ms', 'share'], [...classes, ['all', String(dispatches), gpuMs.toFixed(2), '']]),
    '',
    table(
      ['kernel', 'program', 'shapes', 'times', 'ms each', 'GPU ms'],
      profile.map(({kernel, program, shapes, dispatches: times, gpuMs: ms}) => [
        ...[kernel, program, shapes || '–', String(times), (ms / times).toFixed(4), ms.toFixed(3)],
      ]),
    ),
  );
  return lines.join('\n');
}

function sum(entries: readonly KernelTime[], of: (entry: KernelTime) => number): number {
  return entries.reduce((total, entry) => total + of(entry), 0);
}
