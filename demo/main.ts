import {ask} from './ask/ask';
import {loadSession, type Session} from './ask/session';
import {chooseBackend, type Backend} from './backend';
import {buildNeedle, chooseFact, type Needle} from './needle';
import {clearRun, showRun} from './results';

const LENGTHS = [512, 1024, 2048, 4096, 8192, 16_384];

/** What a context of middling length is on each kind of hardware: an answer within seconds to minutes. */
const DEFAULT_LENGTH = {software: 512, hardware: 4096};

/** Characters of text shown on either side of the fact. */
const EXCERPT = 260;

const form = byId<HTMLFormElement>('form');
const machine = byId('machine');
const status = byId('status');
const errorLine = byId('error');
const excerpt = byId('excerpt');
const exactCard = byId('exact');
const pbsCard = byId('pbs');
const question = byId('question');
const askButton = byId<HTMLButtonElement>('ask');
const otherButton = byId<HTMLButtonElement>('other');
const lengthSelect = byId<HTMLSelectElement>('length');
const depthRange = byId<HTMLInputElement>('depth');
const thresholdRange = byId<HTMLInputElement>('threshold');
const factInputs = {
  adjective: byId<HTMLInputElement>('adjective'),
  noun: byId<HTMLInputElement>('noun'),
  number: byId<HTMLInputElement>('number'),
};

let seed = 1;

function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element "${id}"`);
  return found as T;
}

function showFact(): void {
  const fact = chooseFact(seed);
  factInputs.adjective.value = fact.adjective;
  factInputs.noun.value = fact.noun;
  factInputs.number.value = fact.number;
}

function readNeedle({tokenizer, book}: Session): Needle {
  return buildNeedle(tokenizer, book, {
    length: Number(lengthSelect.value),
    depth: Number(depthRange.value),
    seed,
    fact: {
      adjective: factInputs.adjective.value.trim().toLowerCase(),
      noun: factInputs.noun.value.trim().toLowerCase(),
      number: factInputs.number.value.trim(),
    },
  });
}

/** Shows what the settings mean; an unusable fact is said in words, and nothing can be asked until it is mended. */
function showPrompt(session: Session): void {
  byId('depth-value').textContent = `${Math.round(Number(depthRange.value) * 100)}% of the way`;
  byId('threshold-value').textContent = `${Math.round(Number(thresholdRange.value) * 100)}%`;
  try {
    const needle = readNeedle(session);
    const fact = document.createElement('mark');
    fact.textContent = needle.sentence.trim();
    excerpt.replaceChildren(
      `…${needle.before.slice(-EXCERPT).replace(/^\S*\s/, '')} `,
      fact,
      `${needle.after.slice(0, EXCERPT).replace(/\s\S*$/, '')}…`,
    );
    excerpt.hidden = false;
    askButton.disabled = false;
    errorLine.textContent = '';
  } catch (error) {
    excerpt.hidden = true;
    askButton.disabled = true;
    showError(error);
  }
}

async function askAndShow(session: Session): Promise<void> {
  const needle = readNeedle(session);
  const progress = byId('asking');
  const bar = byId<HTMLProgressElement>('asking-bar');
  setBusy(true);
  errorLine.textContent = '';
  question.textContent = needle.question.replace('Answer:', '').trim();
  clearRun(exactCard, 'Reading…');
  clearRun(pbsCard, 'Waiting…');
  bar.value = 0;
  progress.hidden = false;
  try {
    const result = await ask(
      session,
      needle,
      {threshold: Number(thresholdRange.value)},
      {
        onStep: (step, done) => {
          status.textContent = step;
          bar.value = done;
        },
        onExact: (run) => {
          showRun(exactCard, run, 1);
          clearRun(pbsCard, 'Reading…');
        },
      },
    );
    showRun(pbsCard, result.pbs, result.pbs.density);
    status.textContent = `Done: ${result.length} tokens on ${result.backend}.`;
  } catch (error) {
    for (const card of [exactCard, pbsCard]) {
      if (card.querySelector('.waiting')) clearRun(card, 'No answer.');
    }
    status.textContent = '';
    showError(error);
  } finally {
    progress.hidden = true;
    setBusy(false);
  }
}

function setBusy(busy: boolean): void {
  form.setAttribute('aria-busy', String(busy));
  // Not `disabled` on the button that has the focus: the focus would be lost.
  for (const control of form.querySelectorAll<HTMLInputElement>('input, select, #other')) control.disabled = busy;
  askButton.setAttribute('aria-disabled', String(busy));
}

function showError(error: unknown): void {
  errorLine.textContent = `That did not work: ${error instanceof Error ? error.message : String(error)}`;
}

function showMachine({name, adapter, software, reason}: Backend): void {
  machine.replaceChildren('Backend: ', strong(name), `, ${reason}. Adapter: `, strong(adapter), '.');
  byId('software').hidden = !software;
  lengthSelect.replaceChildren(
    ...LENGTHS.map((length) => new Option(`${length.toLocaleString('en')} tokens`, String(length))),
  );
  lengthSelect.value = String(software ? DEFAULT_LENGTH.software : DEFAULT_LENGTH.hardware);
}

function strong(text: string): HTMLElement {
  const made = document.createElement('strong');
  made.textContent = text;
  return made;
}

function showLoading(loaded: number, total: number): void {
  const bar = byId<HTMLProgressElement>('loading-bar');
  bar.value = loaded / total;
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  byId('loading-bytes').textContent = `${megabytes(loaded)} of ${megabytes(total)} MB`;
}

async function start(): Promise<void> {
  showFact();
  // `?backend=cpu` overrides the choice, to compare backends.
  const preferred = new URLSearchParams(location.search).get('backend') ?? undefined;
  const backend = await chooseBackend(preferred).catch((error: unknown) => {
    machine.textContent = 'No backend that works.';
    throw error;
  });
  showMachine(backend);
  const session = await loadSession(backend, new URL('.', location.href), showLoading);
  byId('loading').hidden = true;
  otherButton.disabled = false;
  status.textContent = 'Model and book are loaded.';
  showPrompt(session);

  form.addEventListener('input', () => showPrompt(session));
  otherButton.addEventListener('click', () => {
    ++seed;
    showFact();
    showPrompt(session);
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (askButton.ariaDisabled !== 'true') void askAndShow(session);
  });
}

start().catch((error: unknown) => {
  byId('loading').hidden = true;
  showError(error);
});
