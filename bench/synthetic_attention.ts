import {randomFloats, randomNumbers} from './random_data';
import type {HeadShape, Values} from './shapes';

/**
 * Queries and keys whose attention has the patterns of long prompts: sinks (the first tokens), verticals (tokens that
 * many queries look at), a slash (a fixed distance back), the neighbourhood, and topics (passages that look at their
 * like), under rotary phases and noise. Logits below are at the default scale, `1 / sqrt(headDim)`.
 */

/** As of the model in `demo/public/model`. */
const ROTARY_BASE = 500_000;

/** Verticals come in clusters, as names and headings do: as many in a short text as in a long one. */
const CLUSTERS = 24;
const CLUSTER_TOKENS = 96;
const CLUSTER_SHARE = 0.6;
const SINKS = 4;

/** Tokens of a passage, and how many topics there are. */
const PASSAGE = 1500;
const TOPICS = 24;

/** Peak logit of each pattern in a head. */
interface HeadPattern {
  near: number;
  slash: number;
  /** Tokens that the slash looks back. */
  distance: number;
  vertical: number;
  sink: number;
  topic: number;
}

/** Four kinds of heads in turn; a group of query heads shares one. */
const PATTERNS: readonly HeadPattern[] = [
  {near: 14, slash: 0, distance: 0, vertical: 3, sink: 6, topic: 1},
  {near: 5, slash: 14, distance: 3100, vertical: 3, sink: 5, topic: 2},
  {near: 5, slash: 0, distance: 0, vertical: 10, sink: 10, topic: 2},
  {near: 4, slash: 4, distance: 700, vertical: 4, sink: 5, topic: 5},
];

/** The patterns live in pairs of the rotary embedding of their own, from fast to slow. */
const POSITION_PAIRS = [0.1, 0.65];
const TOPIC_PAIRS = [0.65, 0.85];
const TOKEN_PAIRS = [0.85, 1];

/** The values are noise: attention's time does not depend on them. */
export function syntheticAttention(shape: HeadShape, length: number, seed: number): Values {
  const {heads, keyValueHeads, headDim} = shape;
  const query = randomFloats(heads * length * headDim, seed);
  const key = randomFloats(keyValueHeads * length * headDim, seed + 1);
  const value = randomFloats(keyValueHeads * length * headDim, seed + 2);
  const tokens = drawTokens(length, seed + 3);
  const topics = randomFloats(TOPICS * headDim, seed + 4);
  const table = phases(length, headDim);
  const group = heads / keyValueHeads;
  for (let head = 0; head < heads; ++head) {
    const pattern = PATTERNS[Math.floor(head / group) % PATTERNS.length];
    addPatterns(query, head, 'query', pattern, shape, length, tokens, topics, table);
  }
  for (let head = 0; head < keyValueHeads; ++head) {
    addPatterns(key, head, 'key', PATTERNS[head % PATTERNS.length], shape, length, tokens, topics, table);
  }
  return {query, key, value};
}

interface Tokens {
  topic: Uint8Array;
  vertical: Uint8Array;
}

function drawTokens(length: number, seed: number): Tokens {
  const random = randomNumbers(seed);
  const topic = new Uint8Array(length);
  let current = 0;
  for (let i = 0; i < length; ++i) {
    if (i % PASSAGE === 0) current = Math.floor(random() * TOPICS);
    topic[i] = current;
  }
  const vertical = new Uint8Array(length);
  for (let cluster = 0; cluster < CLUSTERS; ++cluster) {
    const start = Math.floor(random() * length);
    for (let i = start; i < Math.min(length, start + CLUSTER_TOKENS); ++i) {
      if (random() < CLUSTER_SHARE) vertical[i] = 1;
    }
  }
  return {topic, vertical};
}

/** cos and sin of each position's rotary phases, `[length, pairs]`. */
function phases(length: number, headDim: number): {cos: Float32Array; sin: Float32Array} {
  const pairs = headDim / 2;
  const [cos, sin] = [new Float32Array(length * pairs), new Float32Array(length * pairs)];
  for (let pair = 0; pair < pairs; ++pair) {
    const frequency = ROTARY_BASE ** (-pair / pairs);
    for (let i = 0; i < length; ++i) {
      cos[i * pairs + pair] = Math.cos(i * frequency);
      sin[i * pairs + pair] = Math.sin(i * frequency);
    }
  }
  return {cos, sin};
}

/** Adds the rotated patterns of one head to its noise, which rotation would leave noise. */
function addPatterns(
  x: Float32Array,
  head: number,
  side: 'query' | 'key',
  pattern: HeadPattern,
  {headDim}: HeadShape,
  length: number,
  {topic, vertical}: Tokens,
  topics: Float32Array,
  {cos, sin}: {cos: Float32Array; sin: Float32Array},
): void {
  const pairs = headDim / 2;
  const range = ([from, to]: number[]) => [Math.floor(from * pairs), Math.floor(to * pairs)];
  const [firstNear, endNear] = range(POSITION_PAIRS);
  const [firstTopic, endTopic] = range(TOPIC_PAIRS);
  const [firstToken, endToken] = range(TOKEN_PAIRS);
  // Amplitude that gives logit 1 when query and key both have it in all pairs of a range.
  const unit = (count: number) => Math.sqrt(Math.sqrt(headDim) / count);
  const nearUnit = unit(endNear - firstNear);
  const tokenUnit = unit(endToken - firstToken);
  // A topic is noise in both parts of a pair: twice the power.
  const topicUnit = Math.sqrt(pattern.topic / 2) * unit(endTopic - firstTopic);
  const isQuery = side === 'query';
  const [near, slash] = isQuery ? [pattern.near * nearUnit, pattern.slash * nearUnit] : [nearUnit, 0];
  for (let i = 0; i < length; ++i) {
    const row = (head * length + i) * headDim;
    const back = Math.max(0, i - pattern.distance);
    for (let pair = firstNear; pair < endNear; ++pair) {
      x[row + pair] += near * cos[i * pairs + pair] + slash * cos[back * pairs + pair];
      x[row + pair + pairs] += near * sin[i * pairs + pair] + slash * sin[back * pairs + pair];
    }
    for (let pair = firstTopic; pair < endTopic; ++pair) {
      const real = topicUnit * topics[topic[i] * headDim + pair];
      const imaginary = topicUnit * topics[topic[i] * headDim + pair + pairs];
      const [c, s] = [cos[i * pairs + pair], sin[i * pairs + pair]];
      x[row + pair] += real * c - imaginary * s;
      x[row + pair + pairs] += real * s + imaginary * c;
    }
    const isSink = i < SINKS;
    const weight = isQuery ? 1 : isSink ? pattern.sink : vertical[i] ? pattern.vertical : 0;
    for (let pair = firstToken; pair < endToken; ++pair) {
      x[row + pair] += weight * tokenUnit * cos[i * pairs + pair];
      x[row + pair + pairs] += weight * tokenUnit * sin[i * pairs + pair];
    }
  }
}
