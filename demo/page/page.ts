import type {Preview, RunEvent, RunResult} from '../engine/protocol';
import {BlocksView} from './blocks_view';
import {byId, debounce, element} from './dom';
import {sortDropped, takeDrops} from './dropped_files';
import {EngineHost} from './engine_host';
import {EngineSession, type Wish} from './engine_session';
import {FailurePanel} from './failure_panel';
import {describeFailure, endsEngine, type Failure, type Recovery} from './failures';
import {describeAnswers, describeLoading, describeMachine, describeProgress} from './format';
import {loadCharts} from './load_charts';
import {ModelPanel} from './model_panel';
import {ProgressView} from './progress_view';
import {ResultCards} from './result_cards';
import {defaultFacts, promptRequest, readSettings, runRequest, shorterLength, writeSettings} from './settings';
import {SettingsForm} from './settings_form';
import {bookSource, TextPanel} from './text_panel';
import {TimesView} from './times_view';
import {timingOf} from './timings';

/** A run that does not end this long after it was stopped can be ended with its worker, in milliseconds. */
const PATIENCE = 3000;

/** Characters of the prompt's text on either side of a fact. */
const EXCERPT = 260;

/** A second click this soon is half of a double-click, not a wish to stop, in milliseconds. */
const DOUBLE_CLICK = 400;

/** What goes on, and what the button says meanwhile. */
const BUTTON = {idle: 'Ask', preparing: 'Ask', running: 'Stop', stopping: 'Stopping…', overdue: 'Stop at once'};

type Activity = keyof typeof BUTTON;

/** Binds the page's parts together. `createWorker` makes a worker that answers as an `Engine`. */
export function startPage(createWorker: () => Worker): void {
  const {settings: initial, ignored} = readSettings(new URLSearchParams(location.search));
  let settings = initial;
  let activity: Activity = 'idle';
  let preparing = 0;
  let previews = 0;
  let runStart = 0;
  let patience: ReturnType<typeof setTimeout> | undefined;
  /** Where the failure comes from that is shown: one of the preview ends with the next preview. */
  let failureOf: 'preview' | 'other' = 'other';

  const host = new EngineHost(createWorker);
  const progress = new ProgressView();
  const cards = new ResultCards();
  const blocks = new BlocksView();
  const times = new TimesView();
  const failures = new FailurePanel(recover);
  const askButton = byId<HTMLButtonElement>('ask');
  const backendSelect = byId<HTMLSelectElement>('backend');

  const modelPanel = new ModelPanel((model) => void change({model}));
  const textPanel = new TextPanel(settings.book, {
    onText(text, book) {
      if (book !== undefined) setSettings({book});
      void change({text});
    },
    onFailure: (error) =>
      showFailure({
        title: 'This file is not a text that can be read here',
        advice: 'Choose another file, or paste the text.',
        detail: error.message,
        recoveries: [{action: 'pick text', label: 'Choose another text'}],
      }),
  });
  const form = new SettingsForm(settings, changeSettings);
  const session = new EngineSession(
    host,
    {backend: settings.backend, model: modelPanel.bundled, text: bookSource(settings.book)},
    {
      onStep: (step, loading) =>
        progress.show(
          step,
          loading === undefined ? `${step}…` : `${step}: ${describeLoading(loading)}`,
          // Before a host has answered, nobody knows how much it is.
          loading === undefined || loading.total === 0 ? undefined : loading.done / loading.total,
        ),
      onMachine(machine) {
        byId('machine').textContent = describeMachine(machine);
        byId('software').hidden = !machine.software;
        modelPanel.showModel(undefined);
        form.showMachine(machine);
      },
      onModel(model, source) {
        modelPanel.showModel(model);
        modelPanel.showSource(source);
        form.showModel(model);
      },
    },
  );

  /** Takes settings from the form. */
  function changeSettings(part: Partial<typeof settings>): void {
    settings = {...settings, ...part};
    showAddress();
    previewSoon();
  }

  /** Takes settings from elsewhere. */
  function setSettings(part: Partial<typeof settings>): void {
    form.update(part);
    changeSettings(part);
  }

  function showAddress(): void {
    const query = writeSettings(settings).toString();
    history.replaceState(null, '', `${location.pathname}${query === '' ? '' : `?${query}`}${location.hash}`);
  }

  /** Changes what the engine works with, and loads what that takes. */
  async function change(part: Partial<Wish>): Promise<void> {
    session.change(part);
    // A run goes on with what it has; what is wished for is prepared after it.
    if (!isRun(activity)) await prepare();
  }

  /** Whether the engine has what is wished for. */
  async function prepare(): Promise<boolean> {
    failures.clear();
    ++preparing;
    setActivity('preparing');
    let words = '';
    try {
      await session.prepare();
      words = 'Ready.';
      // Now, as nothing is measured yet.
      void loadCharts();
      return true;
    } catch (error) {
      report(error as Error);
      return false;
    } finally {
      // A later preparation waits for its turn, and will say how it ended.
      if (--preparing === 0 && !isRun(activity)) {
        modelPanel.showSource(session.wish.model);
        setActivity('idle');
        progress.finish(words);
        previewSoon();
      }
    }
  }

  const previewSoon = debounce(() => void preview(), 250);

  async function preview(): Promise<void> {
    const length = form.chosenLength;
    if (activity !== 'idle' || length === undefined) return;
    if (!session.isReady) {
      byId('excerpt').hidden = true;
      return;
    }
    const mine = ++previews;
    try {
      const shown = await host.call((engine) => engine.preview(promptRequest(settings, length)));
      if (mine !== previews) return;
      showExcerpt(shown.excerpts[settings.task === 'find' ? settings.asked : 0]);
      if (failureOf === 'preview') failures.clear();
    } catch (error) {
      if (mine !== previews) return;
      byId('excerpt').hidden = true;
      report(error as Error, 'preview');
    }
  }

  async function run(): Promise<void> {
    textPanel.flush();
    // What is changed while the engine is prepared is prepared as well.
    while (preparing > 0 || !session.isReady) if (!(await prepare())) return;
    const {machine, model} = session;
    const length = form.chosenLength;
    if (machine === undefined || model === undefined || length === undefined) return;
    // From now on the address means this very length, on any machine.
    setSettings({length});
    previewSoon.cancel();
    failures.clear();
    blocks.clear();
    setActivity('running');
    runStart = performance.now();
    const request = runRequest(settings, length, machine);
    const {fact} = settings.facts[settings.asked];
    cards.start(
      settings.task === 'find'
        ? `What is the secret number of the ${fact.adjective} ${fact.noun}?`
        : 'The text goes on:',
    );
    let words = '';
    try {
      const result = await host.follow((engine, onEvent) => engine.run(request, onEvent), showEvent);
      cards.finish(result);
      times.add(timingOf(request, result, machine, `${model.architecture}, ${model.parameters} parameters`));
      showBlocks(result, model.layers);
      words = describeAnswers(result);
    } catch (error) {
      cards.abandon();
      if ((error as Error).name === 'AbortError') words = 'Stopped.';
      report(error as Error);
    } finally {
      setActivity('idle');
      progress.finish(words);
      // What was changed just before the run, or by a file that was read meanwhile, has not been shown yet.
      if (host.isOpen && !session.isReady) void prepare();
      else previewSoon();
    }
  }

  function showEvent(event: RunEvent): void {
    if (activity !== 'running') return;
    switch (event.type) {
      case 'progress': {
        const {attention, step, done} = event.progress;
        progress.show(`${attention} ${step}`, describeProgress(event.progress), done);
        break;
      }
      case 'text':
        cards.showText(event.attention, event.text);
        break;
      case 'answer':
        cards.showAnswer(event.attention, event.answer);
    }
  }

  function showBlocks({kept}: RunResult, layers: number): void {
    const {generation} = host;
    blocks.show(kept, layers, ({layer, head}) => host.call((engine) => engine.blockPicture(layer, head), generation));
  }

  function stop(): void {
    if (activity === 'overdue') {
      host.close();
    } else if (activity === 'running' && performance.now() - runStart > DOUBLE_CLICK) {
      setActivity('stopping');
      progress.show('stopping', 'Stopping after the layer or token that is computed now…');
      host.call((engine) => engine.cancel()).catch(() => {});
      patience = setTimeout(() => setActivity('overdue'), PATIENCE);
    }
  }

  function report(error: Error, from: typeof failureOf = 'other'): void {
    if (endsEngine(error)) host.close(error);
    const length = form.chosenLength ?? settings.length;
    const {backend} = session.wish;
    const failure = describeFailure(error, {
      backend: backend === 'auto' ? (session.machine?.backend ?? 'auto') : backend,
      shorter: length === undefined ? undefined : shorterLength(length),
      hasModel: session.model !== undefined,
    });
    if (failure !== undefined) showFailure(failure, from);
  }

  function showFailure(failure: Failure, from: typeof failureOf = 'other'): void {
    failureOf = from;
    failures.show(failure);
  }

  function recover(recovery: Recovery): void {
    failures.clear();
    askButton.focus();
    switch (recovery.action) {
      case 'restart':
        void prepare();
        break;
      case 'shorten':
        setSettings({length: recovery.length});
        void prepare();
        break;
      case 'switch backend':
        host.close();
        changeBackend(recovery.backend);
        break;
      case 'pick files':
        modelPanel.pickFiles();
        break;
      case 'use bundled model':
        modelPanel.useBundled();
        break;
      case 'pick text':
        textPanel.focus();
        break;
      case 'edit facts':
        form.focusFacts();
    }
  }

  function changeBackend(backend: typeof settings.backend): void {
    backendSelect.value = backend;
    byId('machine').textContent = 'Looking for a backend…';
    setSettings({backend});
    void change({backend});
  }

  function setActivity(next: Activity): void {
    clearTimeout(patience);
    activity = next;
    const runs = isRun(next);
    byId<HTMLFieldSetElement>('controls').disabled = runs;
    byId<HTMLButtonElement>('other').disabled = runs;
    byId('form').setAttribute('aria-busy', String(next !== 'idle'));
    askButton.textContent = BUTTON[next];
    askButton.classList.toggle('stop', runs);
    // Not `disabled` on the button that has the focus: the focus would be lost.
    askButton.setAttribute('aria-disabled', String(next === 'preparing'));
  }

  byId<HTMLFormElement>('form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (isRun(activity)) stop();
    else if (activity === 'idle' && showsValid()) void run();
  });
  byId('other').addEventListener('click', () => {
    const pages = settings.pages + 1;
    setSettings({pages, facts: defaultFacts(pages), asked: 0});
  });
  backendSelect.value = settings.backend;
  backendSelect.addEventListener('input', () => changeBackend(backendSelect.value as typeof settings.backend));
  takeDrops((dropped) => void takeFiles(dropped));

  async function takeFiles(dropped: Promise<File[]>): Promise<void> {
    const sorted = sortDropped(await dropped);
    if (isRun(activity)) return;
    if (sorted.use === 'model') modelPanel.takeFiles(sorted.files);
    else if (sorted.use === 'text') void textPanel.takeFile(sorted.file);
    else {
      showFailure({
        title: 'These files cannot be used here',
        advice: 'Drop something else, or use the file pickers.',
        detail: sorted.why,
        recoveries: [],
      });
    }
  }

  if (ignored.length > 0) {
    byId('ignored').textContent = `The address has settings that are not used: ${ignored.join('; ')}.`;
    byId('ignored').hidden = false;
  }
  void prepare();
}

function isRun(activity: Activity): boolean {
  return activity !== 'idle' && activity !== 'preparing';
}

function showExcerpt({before, sentence, after}: Preview['excerpts'][number]): void {
  const excerpt = byId('excerpt');
  const start = before.length > EXCERPT ? `…${before.slice(-EXCERPT).replace(/^\S*\s/, '')}` : before;
  const end = after.length > EXCERPT ? `${after.slice(0, EXCERPT).replace(/\s\S*$/, '')}…` : after;
  const mark = element('mark', {}, sentence.trim());
  excerpt.replaceChildren(...(sentence === '' ? [start, end] : [`${start} `, mark, end]));
  excerpt.hidden = false;
  // The end of a text that goes on, otherwise the fact.
  excerpt.scrollTop = sentence === '' ? excerpt.scrollHeight : mark.offsetTop - excerpt.clientHeight / 2;
}

/** Opens the closed part in which a control is wrong, so that the browser can point at it. */
function showsValid(): boolean {
  const form = byId<HTMLFormElement>('form');
  const wrong = form.querySelector<HTMLInputElement>('input:invalid');
  const details = wrong?.closest('details');
  if (details) details.open = true;
  return form.reportValidity();
}
