import type {BackendName} from '../options';

/** How the report words what depends on the backend: its name, and how the time of a program was taken. */
interface ClockTexts {
  title: string;
  /** Heads columns of times that programs took on the GPU; on WebGL with what the processor does for each draw. */
  column: string;
  /** What the exact tables show. */
  exact: string;
  /** What the sparse tables show. */
  sparse: string;
}

const DERIVED = (time: string) =>
  `The bound is density × exact time ${time}. “to bound” is PBS-Attn ${time} over the bound and the stages before ` +
  `attention; “overhead” is the share of these stages in PBS-Attn’s time ${time}, and beside our exact time.`;

const COMPOSED = 'tfjs composed: matMul, scale, mask, softmax, matMul. Ratios are to the column named.';

export const CLOCK_TEXTS: Record<BackendName, ClockTexts> = {
  webgpu: {
    title: 'Benchmarks on WebGPU',
    column: 'GPU',
    exact:
      'Random inputs, batch 1. “GPU” is the time between timestamps on the device; the other figures count whatever a ' +
      'page waits for, over many calls in a row less a single one. ONNX Runtime: `GroupQueryAttention` of its WebGPU ' +
      `provider, a chain of nodes less a chain of one. ${COMPOSED}`,
    sparse:
      '“exact” and “PBS-Attn” count whatever a page waits for; stages are times on the GPU alone. ' +
      DERIVED('on the GPU'),
  },
  webgl: {
    title: 'Benchmarks on WebGL',
    column: 'by draws',
    exact:
      'Random inputs, batch 1. “by draws” adds up the draws of a call, each taken by waiting for the GPU after it, less ' +
      'the time of an empty wait (WebGL has no timestamps in most browsers); the other figures count whatever a page ' +
      `waits for, over many calls in a row less a single one. ${COMPOSED}`,
    sparse:
      '“exact” and “PBS-Attn” count whatever a page waits for, over many calls in a row less a single one. “exact, by draws” and stages ' +
      'were taken by waiting after each draw, less the time of an empty wait: they hold what the processor does for a ' +
      'draw, and nothing overlaps, so that short stages seem longer than they are in a whole call. ' +
      DERIVED('by draws'),
  },
};
