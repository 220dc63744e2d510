import type {ModelInfo, Machine, Preview, RunEvent, RunResult} from '../engine/protocol';
import {BlocksView} from './blocks_view';
import {byId, debounce, element} from './dom';
import {RunButton, type DeskUser, type EngineDesk} from './engine_desk';
import type {Recovery} from './failures';
import {describeAnswers, describeProgress} from './format';
import {loadCharts} from './load_charts';
import {ResultCards} from './result_cards';
import {defaultFacts, promptRequest, runRequest, shorterLength, type Settings} from './settings';
import {SettingsForm} from './settings_form';
import {TextPanel} from './text_panel';
import {TimesView} from './times_view';
import {timingOf} from './timings';

/** Characters of the prompt's text on either side of a fact. */
const EXCERPT = 260;

/** The test of a fact in a book: both ways of attending answer one question, which has a right answer. */
export class FactView implements DeskUser {
  private readonly cards = new ResultCards();
  private readonly blocks = new BlocksView();
  private readonly times = new TimesView();
  private readonly textPanel: TextPanel;
  private readonly form: SettingsForm;
  private readonly askButton = byId<HTMLButtonElement>('ask');
  private readonly button: RunButton;
  private readonly previewSoon = debounce(() => void this.preview(), 250);
  private previews = 0;

  /** @param onSettings told of every change, for the address. */
  constructor(
    private readonly desk: EngineDesk,
    private settings: Settings,
    private readonly onSettings: (settings: Settings) => void,
  ) {
    this.button = new RunButton(this.askButton, desk, 'fact', 'Ask');
    this.textPanel = new TextPanel(settings.book, {
      onText: (text, book) => {
        if (book !== undefined) this.setSettings({book});
        void desk.change({text});
      },
      onFailure: (error) =>
        desk.showFailure({
          title: 'This file is not a text that can be read here',
          advice: 'Choose another file, or paste the text.',
          detail: error.message,
          recoveries: [{action: 'pick text', label: 'Choose another text'}],
        }),
    });
    this.form = new SettingsForm(settings, (part) => this.takeSettings(part));
    byId<HTMLFormElement>('form').addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.button.stops) desk.stop();
      else if (desk.activity === 'idle' && showsValid()) void this.run();
    });
    byId('other').addEventListener('click', () => {
      const pages = this.settings.pages + 1;
      this.setSettings({pages, facts: defaultFacts(pages), asked: 0});
    });
  }

  /** The next shorter prompt, if there is one. */
  get shorter(): number | undefined {
    const length = this.form.chosenLength ?? this.settings.length;
    return length === undefined ? undefined : shorterLength(length);
  }

  /** Takes settings from elsewhere. */
  setSettings(part: Partial<Settings>): void {
    this.form.update(part);
    this.takeSettings(part);
  }

  takeFile(file: File): void {
    void this.textPanel.takeFile(file);
  }

  focus(): void {
    this.askButton.focus();
  }

  onMachine(machine: Machine): void {
    this.form.showMachine(machine);
  }

  onModel(model: ModelInfo): void {
    this.form.showModel(model);
  }

  onActivity(): void {
    this.button.show();
    byId<HTMLButtonElement>('other').disabled = this.desk.runs;
    byId('form').setAttribute('aria-busy', String(this.desk.activity !== 'idle'));
  }

  onIdle(): void {
    // Now, as nothing is measured yet.
    if (this.desk.session.isReady) void loadCharts();
    this.previewSoon();
  }

  recover(recovery: Recovery): void {
    if (recovery.action === 'pick text') this.textPanel.focus();
    else if (recovery.action === 'edit facts') this.form.focusFacts();
    else if (recovery.action === 'shorten') {
      this.setSettings({length: recovery.length});
      void this.desk.prepare();
    }
  }

  private takeSettings(part: Partial<Settings>): void {
    this.settings = {...this.settings, ...part};
    this.onSettings(this.settings);
    this.previewSoon();
  }

  private async preview(): Promise<void> {
    const {desk, settings} = this;
    const length = this.form.chosenLength;
    if (desk.activity !== 'idle' || length === undefined) return;
    if (!desk.session.isReady) {
      byId('excerpt').hidden = true;
      return;
    }
    const mine = ++this.previews;
    try {
      const shown = await desk.host.call((engine) => engine.preview(promptRequest(settings, length)));
      if (mine !== this.previews) return;
      showExcerpt(shown.excerpts[settings.task === 'find' ? settings.asked : 0]);
      desk.clearFailure('preview');
    } catch (error) {
      if (mine !== this.previews) return;
      byId('excerpt').hidden = true;
      desk.report(error as Error, 'preview');
    }
  }

  private async run(): Promise<void> {
    const {desk, cards} = this;
    this.textPanel.flush();
    if (!(await desk.prepareAll())) return;
    const {machine, model} = desk.session;
    const length = this.form.chosenLength;
    if (machine === undefined || model === undefined || length === undefined) return;
    // From now on the address means this very length, on any machine.
    this.setSettings({length});
    this.previewSoon.cancel();
    this.blocks.clear();
    const request = runRequest(this.settings, length, machine);
    const work = async () => {
      const {fact} = this.settings.facts[this.settings.asked];
      cards.start(
        this.settings.task === 'find'
          ? `What is the secret number of the ${fact.adjective} ${fact.noun}?`
          : 'The text goes on:',
      );
      const result = await desk.host.follow<RunEvent, RunResult>(
        (engine, onEvent) => engine.run(request, onEvent),
        (event) => this.showEvent(event),
      );
      cards.finish(result);
      this.times.add(timingOf(request, result, machine, `${model.architecture}, ${model.parameters} parameters`));
      this.showBlocks(result, model.layers);
      return describeAnswers(result);
    };
    await desk.run('fact', work, () => cards.abandon());
  }

  private showEvent(event: RunEvent): void {
    if (this.desk.activity !== 'running') return;
    switch (event.type) {
      case 'progress': {
        const {attention, step, done} = event.progress;
        this.desk.progress.show(`${attention} ${step}`, describeProgress(event.progress), done);
        break;
      }
      case 'text':
        this.cards.showText(event.attention, event.text);
        break;
      case 'answer':
        this.cards.showAnswer(event.attention, event.answer);
    }
  }

  private showBlocks({kept}: RunResult, layers: number): void {
    const {host} = this.desk;
    const {generation} = host;
    this.blocks.show(kept, layers, ({layer, head}) =>
      host.call((engine) => engine.blockPicture(layer, head), generation),
    );
  }
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
