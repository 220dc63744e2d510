import type {AttentionName, LoadProgress, Machine, ModelInfo, RunProgress, RunResult} from '../engine/protocol';
import type {BackendName} from '../backend_names';

export const BACKEND_TITLES: Record<BackendName, string> = {webgpu: 'WebGPU', webgl: 'WebGL', cpu: 'CPU'};

export const ATTENTION_TITLES: Record<AttentionName, string> = {exact: 'Exact attention', pbs: 'PBS attention'};

const STEP_WORDS: Record<RunProgress['step'], string> = {
  'warm-up': 'warming up',
  prefill: 'reading',
  write: 'writing',
  'look at blocks': 'looking at the blocks',
};

export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en');
}

export function formatTokens(tokens: number): string {
  return `${formatCount(tokens)} ${tokens === 1 ? 'token' : 'tokens'}`;
}

/** "105 MB", "1.2 GB": in the units that hosts and shops count by. */
export function formatBytes(bytes: number): string {
  if (bytes >= 999.5e6) return `${(bytes / 1e9).toFixed(1)} GB`;
  if (bytes >= 9.95e6) return `${formatCount(bytes / 1e6)} MB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Three significant digits: "77.9 ms", "1.20 s", "75.0 s", "213 s". */
export function formatDuration(ms: number): string {
  const [value, unit] = ms < 999.5 ? [ms, 'ms'] : [ms / 1000, 's'];
  return `${value < 999.5 ? value.toPrecision(3) : formatCount(value)} ${unit}`;
}

/** Whole percent; what is neither nothing nor all is never shown as such. */
export function formatPercent(share: number): string {
  const percent = Math.round(share * 100);
  if (percent === 0 && share > 0) return 'under 1%';
  if (percent === 100 && share < 1) return 'over 99%';
  return `${percent}%`;
}

/** Tokens a second: whole where there are many. */
export function formatRate(perSecond: number): string {
  return perSecond >= 100 ? formatCount(perSecond) : perSecond.toPrecision(2);
}

export function formatTimeLeft(seconds: number): string {
  if (seconds < 1) return 'under a second left';
  if (seconds < 90) return `about ${Math.round(seconds)} s left`;
  return `about ${formatCount(seconds / 60)} min left`;
}

export function describeProgress({
  attention,
  step,
  layersDone,
  layers,
  tokensPerSecond,
  secondsLeft,
}: RunProgress): string {
  const parts = [`${ATTENTION_TITLES[attention]}: ${STEP_WORDS[step]}`];
  if (step === 'warm-up' || step === 'prefill') parts.push(`layer ${layersDone} of ${layers}`);
  if (tokensPerSecond > 0) parts.push(`${formatRate(tokensPerSecond)} tokens a second`);
  if (secondsLeft !== undefined) parts.push(formatTimeLeft(secondsLeft));
  return parts.join(' · ');
}

export function describeLoading({step, done, total, bytesPerSecond}: LoadProgress): string {
  if (step === 'upload') return `${formatCount(done)} of ${formatCount(total)} tensors on the backend`;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const left = bytesPerSecond ? ` · ${formatTimeLeft((total - done) / bytesPerSecond)}` : '';
  return `${megabytes(done)} of ${megabytes(total)} MB read${left}`;
}

export function describeModel(
  model: Pick<
    ModelInfo,
    'architecture' | 'parameters' | 'layers' | 'heads' | 'keyValueHeads' | 'headDim' | 'maxLength'
  >,
): string {
  const millions = model.parameters / 1e6;
  const size = millions < 999.5 ? `${millions.toPrecision(3)} million` : `${(millions / 1e3).toPrecision(3)} billion`;
  const shared = model.keyValueHeads === model.heads ? '' : `, ${model.keyValueHeads} for keys and values`;
  return (
    `${model.architecture}: ${size} parameters, ${model.layers} layers, ${model.heads} heads of ${model.headDim}` +
    `${shared}; reads up to ${formatTokens(model.maxLength)}.`
  );
}

/** The end of a run, for the status line. */
export function describeAnswers({exact, pbs}: RunResult): string {
  if (exact.correct === undefined || pbs.correct === undefined) return 'Done.';
  const word = (correct: boolean) => (correct ? 'right' : 'wrong');
  return exact.correct === pbs.correct
    ? `Done: both answers are ${word(exact.correct)}.`
    : `Done: exact attention is ${word(exact.correct)}, PBS attention is ${word(pbs.correct)}.`;
}

/** The headline of a result, in one sentence. */
export function describeSpeedUp({exact, pbs, kept, length}: RunResult): string {
  const ratio = exact.firstTokenMs / pbs.firstTokenMs;
  const times = formatDuration(pbs.firstTokenMs) + ' instead of ' + formatDuration(exact.firstTokenMs);
  const speed =
    ratio >= 0.995 && ratio < 1.005
      ? `PBS attention took as long as exact attention to the first token, ${formatDuration(pbs.firstTokenMs)}`
      : ratio > 1
        ? `PBS attention reached the first token ${ratio.toFixed(2)} times as fast: ${times}`
        : `PBS attention took ${(1 / ratio).toFixed(2)} times as long to the first token: ${times}`;
  return `${speed}, at ${formatTokens(length)}, with ${formatPercent(kept.density)} of the blocks.`;
}

export function describeMachine({backend, adapter, reason}: Machine): string {
  return `${BACKEND_TITLES[backend]}, ${reason}. Adapter: ${adapter}.`;
}
