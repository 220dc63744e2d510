import {chooseBackend} from '../backend';
import type {PrefillOptions} from '../llama/attention';
import {buildNeedle, type NeedleRequest} from '../needle';
import {ask, type AskResult} from './ask';
import {loadSession} from './session';

/** What the command passes into the browser. */
export interface AskInBrowserRequest {
  /** Default: the fastest that works. */
  backend?: string;
  needle: NeedleRequest;
  options: PrefillOptions;
}

declare global {
  interface Window {
    askInBrowser: (request: AskInBrowserRequest) => Promise<AskResult>;
  }
}

/** Backend, model, prompt and both runs; steps go to the console, which the command copies to stderr. */
window.askInBrowser = async ({backend: preferred, needle: needleRequest, options}) => {
  const backend = await chooseBackend(preferred);
  console.info(`Backend ${backend.name} (${backend.reason}), adapter ${backend.adapter}`);
  const session = await loadSession(backend, new URL('..', location.href), () => {});
  const needle = buildNeedle(session.tokenizer, session.book, needleRequest);
  console.info(`The fact stands after token ${needle.position} of ${needle.ids.length}:${needle.sentence}`);
  let lastStep = '';
  return ask(session, needle, options, {
    onStep: (step) => {
      if (step !== lastStep) console.info(step);
      lastStep = step;
    },
  });
};
