import type {AttentionName, ChatAnswer, ChatCount, ChatEvent, Machine, ModelInfo} from '../../engine/protocol';
import {
  ATTENTION_TITLES,
  formatBytes,
  formatCount,
  formatDuration,
  formatPercent,
  formatRate,
  formatTokens,
} from '../format';

/** How prompts are read: by one attention, or by both for comparison. */
export type Ways = AttentionName | 'both';

/** What an answer took, a phrase each. */
export function describeAnswer(answer: ChatAnswer): string[] {
  const {firstTokenMs, compiled, promptTokens, reusedTokens, tokensPerSecond, density, exactReason, end, tokens} =
    answer;
  const {storedTokens, keptBytes, notKept, notRestored} = answer;
  const words = [
    `First token after ${formatDuration(firstTokenMs)}${compiled ? ', compiling of shaders included' : ''}`,
    storedTokens !== undefined
      ? `${formatCount(storedTokens)} of ${formatTokens(promptTokens)} of prompt came from this browser's storage`
      : reusedTokens === 0
        ? `${formatTokens(promptTokens)} of prompt read`
        : `${formatCount(reusedTokens)} of ${formatTokens(promptTokens)} of prompt were still there`,
  ];
  if (notRestored !== undefined) words.push(`what was kept could not be used and is deleted: ${notRestored}`);
  if (density !== undefined) words.push(`${formatPercent(density)} of the blocks kept`);
  if (exactReason !== undefined) {
    const read = formatTokens(promptTokens - reusedTokens);
    words.push(`read exactly: for ${read} sparse attention is not expected to be faster`);
  }
  if (tokensPerSecond !== undefined) words.push(`${formatRate(tokensPerSecond)} tokens a second`);
  if (end === 'stopped') words.push(`stopped after ${formatTokens(tokens)}`);
  if (end === 'length') words.push(`cut off after ${formatTokens(tokens)}`);
  if (keptBytes !== undefined) words.push(`what was read is kept in this browser, ${formatBytes(keptBytes)}`);
  if (notKept !== undefined) words.push(`what was read was not kept: ${notKept}`);
  return words;
}

/** What of the storage goes on before or after an answer. */
export function describeStorage({step, attention, layersDone, layers}: ChatEvent & {type: 'storage'}): string {
  const words = step === 'keep' ? 'keeping what was read' : "reading from this browser's storage";
  return `${ATTENTION_TITLES[attention]}: ${words} · layer ${layersDone} of ${layers}`;
}

/**
 * From which length sparse attention pays, said before it is chosen.
 *
 * @param unread tokens that it has to read for the next answer; absent while that is not counted.
 */
export function describeGain(
  {sparseFrom}: ModelInfo,
  ways: Ways,
  unread: number | undefined,
  {calibrated}: Pick<Machine, 'calibrated'> = {},
): string {
  const device = calibrated === undefined ? 'On this class of device' : 'By the measurement of this device';
  if (sparseFrom === undefined) {
    return `${device}, sparse attention is not expected to be faster with this model at any length: it then reads exactly.`;
  }
  const from =
    `${device}, sparse attention is expected to read faster from about ${formatTokens(sparseFrom)} on ` +
    '(an estimate); what is shorter it reads exactly.';
  if (unread === undefined || ways === 'exact') return from;
  const exactly = ways === 'both' && unread < sparseFrom ? ', exactly on both sides' : '';
  return `${from} Now ${formatTokens(unread)} ${unread === 1 ? 'is' : 'are'} to be read${exactly}.`;
}

/** What side by side means for the conversation and its times; nothing for one attention. */
export function describeWays(ways: Ways, {backend, software}: Pick<Machine, 'backend' | 'software'>): string {
  if (ways !== 'both') return '';
  const both = 'Both answer each message, the sparse one first; the conversation goes on from the sparse answer.';
  if (backend === 'cpu') return both;
  return software
    ? `${both} On a software adapter the first also waits for shaders that both need.`
    : `${both} Each reads once before its clock runs, for the shaders.`;
}

export interface ContextUse {
  /** Tokens that are taken, with the room for an answer. */
  used: number;
  words: string;
  /** Nothing more can be asked. */
  isFull: boolean;
}

/** What of the model's context is taken. */
export function describeContext({prompt, document}: ChatCount, maxTokens: number, contextLength: number): ContextUse {
  const left = contextLength - prompt;
  if (left < 1) {
    const words =
      `${formatTokens(prompt)}, and this model reads ${formatCount(contextLength)}: ` +
      'clear the conversation, or use a shorter document.';
    return {used: contextLength, words, isFull: true};
  }
  const room = Math.min(maxTokens, left);
  const parts = [
    ...(document > 0 ? [`document ${formatCount(document)}`] : []),
    `${document > 0 ? 'the rest' : 'conversation'} ${formatCount(prompt - document)}`,
    `room for the answer ${formatCount(room)}${room < maxTokens ? `, less than the ${formatCount(maxTokens)} chosen` : ''}`,
  ];
  const used = prompt + room;
  return {used, words: `${formatCount(used)} of ${formatTokens(contextLength)}: ${parts.join(', ')}.`, isFull: false};
}
