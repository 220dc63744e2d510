import type {BackendName} from '../options';
import {
  type AgreementResult,
  type DecodeResult,
  type GradientResult,
  type MemoryResult,
  METHODS,
  timeOnDevice,
} from '../results';
import type {Timing} from '../statistics';
import {milliseconds, table} from '../table';
import {CLOCK_TEXTS} from './clock_texts';

export function decodeTable(results: DecodeResult[], backend: BackendName): string[] {
  if (results.length === 0) return [];
  const onGPU = (gpu: number | undefined) => (gpu === undefined ? '' : gpu.toPrecision(3));
  const rows = results.map(({shape, length, rows, call, gpu, bytes, streamed, packed, composed}) => {
    const read = bytes / timeOnDevice({call, gpu}, backend);
    const share = (rate: number) => `${Math.round((100 * rate) / streamed)}%`;
    return [
      ...[shape, length.toLocaleString('en'), String(rows), milliseconds(call), onGPU(gpu)],
      ...[(read / 1e6).toPrecision(3), share(read)],
      ...(packed ? [milliseconds(packed.call), onGPU(packed.gpu)] : ['', '']),
      packed ? share(bytes / 2 / timeOnDevice(packed, backend)) : '',
      composed ? milliseconds(composed) : '',
      composed ? `${(composed.median / call.median).toFixed(2)}×` : '',
    ];
  });
  const {column} = CLOCK_TEXTS[backend];
  return [
    'Exact attention of the last query rows over a cache. Calls this short are mostly recording, on the processor' +
      (backend === 'webgl' ? '; waiting for each draw takes longer than the call.' : '.') +
      ' Keys and values are read once; their bytes a second, and those beside what tfjs’s sum of both reads and writes in the same run,' +
      ` are of the time on the GPU${backend === 'webgl' ? ', which WebGL does not tell: by the clock' : ''}.`,
    table(
      [
        ...['heads', 'keys', 'rows', 'ours, float32', column, 'GB/s', 'of a sum'],
        ...['packed float16', column, 'of a sum', 'tfjs composed, float32', 'to ours'],
      ],
      rows,
    ),
  ];
}

export function gradientTable(results: GradientResult[]): string[] {
  if (results.length === 0) return [];
  const ratio = (a: Timing | undefined, b: Timing | undefined) =>
    a && b ? `${(a.median / b.median).toFixed(2)}×` : '';
  const rows = results.map(({data, layer, shape, length, exact, sparse, composed}) => [
    layer === undefined ? data : `${data}, layer ${layer}`,
    shape,
    length.toLocaleString('en'),
    milliseconds(exact),
    composed ? milliseconds(composed) : '',
    ratio(composed, exact),
    sparse ? milliseconds(sparse) : '',
    ratio(exact, sparse),
  ]);
  return [
    'Causal attention and its gradients by query, key and value, float32.',
    table(['data', 'heads', 'tokens', 'exact', 'tfjs composed', 'to exact', 'sparse', 'exact to sparse'], rows),
  ];
}

export function memoryTables(results: MemoryResult[]): string[] {
  if (results.length === 0) return [];
  const mebibytes = (bytes: number | undefined) => (bytes === undefined ? '' : (bytes / 2 ** 20).toFixed(1));
  const about =
    'MiB held at one time beyond the inputs, the output (which every way needs) included, counted where tfjs hands out ' +
    'buffers. Where the composed way did not run, one score matrix shows what it would need at least.';
  const head = ['heads', 'tokens', 'output', 'exact', 'PBS-Attn', 'tfjs composed', 'one score matrix'];
  const rows = results.map((result) => [
    result.shape,
    result.length.toLocaleString('en'),
    ...[result.output, result.exact, result.sparse, result.composed, result.scoreMatrix].map(mebibytes),
  ]);
  return [about, table(head, rows)];
}

/** float16 is within 1e-3 of float32; what is beyond this is another function. */
const WRONG = 1e-2;

export function agreementTable(results: AgreementResult[]): string[] {
  if (results.length === 0) return [];
  const rows = results.map(({method, shape, length, difference, note}) => [
    {
      ...METHODS,
      'ort-cpu-f32': 'the same model on ONNX Runtime’s CPU provider, float32',
      'ort-cpu-f16': 'the same, float16',
    }[method],
    shape,
    length.toLocaleString('en'),
    difference === undefined ? `— ${note}` : difference.toExponential(1) + (difference > WRONG ? ' **wrong**' : ''),
  ]);
  return [
    'Relative L1 difference of each output to ours in float32: a peer that is far off computes something else.',
    table(['method', 'heads', 'tokens', 'difference'], rows),
  ];
}
