import {chooseBackend} from '../backend';
import type {BackendName} from '../backend_names';
import {download, loadReader} from '../engine/load';
import {promptOf} from '../engine/prompt';
import type {Answer} from '../engine/protocol';
import {runBoth} from '../engine/run';
import type {PrefillOptions} from '../../runner/llama/attention';
import {GREEDY} from '../../runner/llama/sample';
import {buildNeedle, type NeedleRequest} from '../needle';
import {chat, type ChatRequest, type ChatResult} from './chat';

/** What the command passes into the browser. */
export interface AskInBrowserRequest {
  /** Default: the fastest that works. */
  backend?: BackendName;
  needle: NeedleRequest;
  options: PrefillOptions;
}

export type AskedRun = Pick<Answer, 'answer' | 'correct' | 'firstTokenMs'>;

/** What the command prints. */
export interface AskResult {
  backend: BackendName;
  adapter: string;
  /** Tokens in the prompt. */
  length: number;
  exact: AskedRun;
  /** `density`: share of the causally visible blocks that were kept, mean over layers and heads. */
  pbs: AskedRun & {density: number};
}

declare global {
  interface Window {
    chatInBrowser: (request: ChatRequest) => Promise<ChatResult>;
    askInBrowser: (request: AskInBrowserRequest) => Promise<AskResult>;
  }
}

/** With the files of the page's input, which the command fills. */
window.chatInBrowser = (request) => chat([...document.querySelector('input')!.files!], request);

/** A five-digit number takes at most six tokens with its space; more would be chatter. */
const MAX_ANSWER_TOKENS = 8;

/** Backend, model, prompt and both runs; steps go to the console, which the command copies to stderr. */
window.askInBrowser = async ({backend: preferred, needle: needleRequest, options}) => {
  const machine = await chooseBackend(preferred);
  const {backend, adapter} = machine;
  console.info(`Backend ${backend} (${machine.reason}), adapter ${adapter}`);
  const base = new URL('..', location.href);
  const book = await (await download(new URL('books/dubliners.txt', base))).text();
  const {model, tokenizer} = await loadReader({url: new URL('model/', base).href});
  const needle = buildNeedle(tokenizer, book, needleRequest);
  console.info(`The fact stands after token ${needle.position} of ${needle.ids.length}:${needle.sentence}`);
  let lastStep = '';
  const settings = {options, maxTokens: MAX_ANSWER_TOKENS, sampling: GREEDY};
  const {result} = await runBoth({backend: machine, model, tokenizer}, promptOf(needle), settings, {
    onEvent: (event) => {
      if (event.type !== 'progress') return;
      const step = `${event.progress.attention}: ${event.progress.step}`;
      if (step !== lastStep) console.info(step);
      lastStep = step;
    },
  });
  const short = ({answer, correct, firstTokenMs}: Answer) => ({answer, correct, firstTokenMs});
  const pbs = {...short(result.pbs), density: result.kept.density};
  return {backend, adapter, length: result.length, exact: short(result.exact), pbs};
};
