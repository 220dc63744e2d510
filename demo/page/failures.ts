import {BACKEND_NAMES, type BackendName} from '../backend_names';
import type {FailureName} from '../../runner/failure';
import {BACKEND_TITLES, formatTokens} from './format';
import type {ViewName} from './views';

/** What a person can do about a failure by one button. */
export type Recovery =
  /** A new worker, with the same settings, model and text; with `length` a shorter prompt. */
  | {action: 'restart'; label: string}
  | {action: 'shorten'; label: string; length: number}
  | {action: 'switch backend'; label: string; backend: BackendName | 'auto'}
  | {action: 'pick files'; label: string}
  | {action: 'use bundled model'; label: string}
  | {action: 'pick text'; label: string}
  | {action: 'edit facts'; label: string}
  | {action: 'clear chat'; label: string};

export interface Failure {
  title: string;
  /** What to do about it. */
  advice: string;
  /** What the program said. */
  detail: string;
  /** The first is the one to try first. */
  recoveries: Recovery[];
}

/** What recoveries depend on. */
export interface FailureContext {
  /** The backend that runs, or was asked for. */
  backend: BackendName | 'auto';
  /** Where it happened. */
  view: ViewName;
  /** The next shorter prompt of the fact view, if there is one. */
  shorter?: number;
  /** Whether there is a model to go on with. */
  hasModel: boolean;
}

/** The worker ended, or could not be loaded. Given by the page, as the engine can no longer say anything. */
export const CRASH = 'EngineCrashError';

/** Failures that leave the engine as it was before the call. */
const HARMLESS: ReadonlySet<string> = new Set<FailureName>([
  'AbortError',
  'CheckpointError',
  'DownloadError',
  'TextTooShortError',
  'ContextTooLongError',
  'PromptError',
]);

/** Whether nothing more can be expected of the worker in which this happened. */
export function endsEngine(error: Error): boolean {
  return !HARMLESS.has(error.name);
}

/** Says a failure in words; nothing for an `AbortError`, which is what was asked for. */
export function describeFailure(error: Error, context: FailureContext): Failure | undefined {
  if (error.name === 'AbortError') return undefined;
  const words = wordsByName[error.name as Exclude<FailureName, 'AbortError'>] ?? unknownFailure;
  return {detail: error.message, ...words(context)};
}

type Words = (context: FailureContext) => Omit<Failure, 'detail'>;

const restart: Recovery = {action: 'restart', label: 'Restart the engine'};
const pickText: Recovery = {action: 'pick text', label: 'Choose another text'};

const clearChat: Recovery = {action: 'clear chat', label: 'Clear the conversation'};

function shorten({view, shorter}: FailureContext, how: (tokens: string) => string): Recovery[] {
  if (view !== 'fact' || shorter === undefined) return [];
  return [{action: 'shorten', label: how(formatTokens(shorter)), length: shorter}];
}

/** Another backend than the one that failed; where every one failed, a second look at all of them. */
function otherBackend({backend}: FailureContext): Recovery {
  if (backend === 'auto') return {action: 'switch backend', label: 'Look again', backend};
  const other = BACKEND_NAMES[(BACKEND_NAMES.indexOf(backend) + 1) % BACKEND_NAMES.length];
  return {action: 'switch backend', label: `Try ${BACKEND_TITLES[other]}`, backend: other};
}

const wordsByName: Record<Exclude<FailureName, 'AbortError'> | typeof CRASH, Words> = {
  BackendError: (context) => ({
    title:
      context.backend === 'auto'
        ? 'No backend works in this browser'
        : `${BACKEND_TITLES[context.backend]} does not work in this browser`,
    advice:
      context.backend === 'auto'
        ? 'Update the browser, or switch graphics acceleration on in its settings, then look again.'
        : 'Another backend gives the same answers, at another speed.',
    recoveries: [
      otherBackend(context),
      ...(context.backend === 'auto'
        ? []
        : [{action: 'switch backend', label: 'Choose automatically', backend: 'auto'} as const]),
    ],
  }),
  DeviceLostError: (context) => ({
    title: 'The browser took the graphics device away',
    advice:
      'A driver reset, a long computation or a sleeping machine does that. Restart the engine; if it happens again, ' +
      'use a shorter context or another backend.',
    recoveries: [restart, ...shorten(context, (tokens) => `Restart with ${tokens}`), otherBackend(context)],
  }),
  OutOfMemoryError: (context) => ({
    title: 'The memory did not suffice',
    advice:
      context.view === 'chat'
        ? 'Use a shorter document or one kind of attention, or close other tabs, and restart the engine.'
        : 'Use a shorter context, or close other tabs and restart the engine.',
    recoveries: [...shorten(context, (tokens) => `Restart with ${tokens}`), restart],
  }),
  CheckpointError: ({hasModel}) => ({
    title: 'These files are not a model that can be read here',
    advice:
      'Take one .gguf file, or config.json, tokenizer.json and all .safetensors files, of a Llama, Mistral, Qwen2, Qwen3 or Gemma 3.' +
      (hasModel ? ' Until then the model from before stays in use.' : ''),
    recoveries: [
      {action: 'pick files', label: 'Choose other files'},
      ...(hasModel ? [] : [{action: 'use bundled model', label: 'Use the bundled model'} as const]),
    ],
  }),
  DownloadError: () => ({
    title: 'A file could not be downloaded',
    advice: 'Check the connection, then try again.',
    recoveries: [{action: 'restart', label: 'Try again'}],
  }),
  TextTooShortError: (context) => ({
    title: 'The text is too short for this context length',
    advice: 'Use a shorter context or a longer text.',
    recoveries: [...shorten(context, (tokens) => `Use ${tokens}`), pickText],
  }),
  ContextTooLongError: (context) => ({
    title: 'The context is longer than this model reads',
    advice:
      context.view === 'chat'
        ? 'Clear the conversation, use a shorter document, or a model with a longer context.'
        : 'Use a shorter context, or a model with more positions.',
    recoveries: [
      ...(context.view === 'chat' ? [clearChat] : shorten(context, (tokens) => `Use ${tokens}`)),
      {action: 'pick files', label: 'Choose another model'},
    ],
  }),
  PromptError: ({view}) => ({
    title: 'The prompt cannot be built',
    advice: view === 'chat' ? 'The model’s form of a chat refuses this one.' : 'Change what is named here.',
    recoveries: [view === 'chat' ? clearChat : {action: 'edit facts', label: 'Edit the facts'}],
  }),
  [CRASH]: () => ({
    title: 'The engine stopped',
    advice: 'The browser ended it, or it could not be loaded. Restart it; nothing you entered is lost.',
    recoveries: [restart],
  }),
};

const unknownFailure: Words = () => ({
  title: 'Something went wrong in the engine',
  advice: 'This is a fault of the program. Restart the engine; nothing you entered is lost.',
  recoveries: [restart],
});
