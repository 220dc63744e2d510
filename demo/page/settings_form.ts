import {MOST_WRITTEN_TOKENS, type Machine, type ModelInfo} from '../engine/protocol';
import {chooseFact, type PlacedFact} from '../fact';
import {byId, element} from './dom';
import {FactsEditor} from './facts_editor';
import {formatPercent, formatTokens} from './format';
import {
  defaultLength,
  defaultMaxTokens,
  fitLength,
  haveSameSubject,
  LENGTHS,
  offeredLengths,
  segmentSizesFor,
  type Settings,
} from './settings';

const FLOAT16_WORDS: Record<Machine['float16'], string> = {
  'matrix units': 'float16 runs on the matrix units of this device.',
  shader: 'float16 runs in the shader; this browser gives no access to matrix units.',
  none: 'float16 is not available on this backend and device.',
};

/** The controls of a run, except backend, model and text, which load something. */
export class SettingsForm {
  private settings: Settings;
  private machine?: Machine;
  private model?: ModelInfo;
  private readonly facts: FactsEditor;
  private readonly length = byId<HTMLSelectElement>('length');
  private readonly threshold = byId<HTMLInputElement>('threshold');
  private readonly estimate = byId<HTMLSelectElement>('estimate');
  private readonly blockSize = byId<HTMLSelectElement>('block-size');
  private readonly keyBlockSize = byId<HTMLSelectElement>('key-block-size');
  private readonly segmentSize = byId<HTMLSelectElement>('segment-size');
  private readonly permute = byId<HTMLInputElement>('permute');
  private readonly precision = byId<HTMLSelectElement>('precision');
  private readonly maxTokens = byId<HTMLInputElement>('max-tokens');
  private readonly temperature = byId<HTMLInputElement>('temperature');
  private readonly topP = byId<HTMLInputElement>('top-p');
  private readonly seed = byId<HTMLInputElement>('seed');

  constructor(
    settings: Settings,
    private readonly onChange: (part: Partial<Settings>) => void,
  ) {
    this.settings = settings;
    this.facts = new FactsEditor((facts) => this.change(facts), inventFact);
    for (const radio of document.querySelectorAll<HTMLInputElement>('input[name=task]')) {
      radio.addEventListener('input', () => this.change({task: radio.value as Settings['task']}));
    }
    const listen = (control: HTMLInputElement | HTMLSelectElement, read: () => Partial<Settings>) =>
      control.addEventListener('input', () => {
        if (control.validity.valid) this.change(read());
      });
    listen(this.length, () => ({length: Number(this.length.value)}));
    listen(this.threshold, () => ({threshold: Number(this.threshold.value)}));
    listen(this.estimate, () => ({estimate: this.estimate.value as Settings['estimate']}));
    listen(this.blockSize, () => ({blockSize: Number(this.blockSize.value)}));
    listen(this.keyBlockSize, () => {
      const keyBlockSize = Number(this.keyBlockSize.value);
      return {keyBlockSize, segmentSize: Math.max(keyBlockSize, this.settings.segmentSize)};
    });
    listen(this.segmentSize, () => ({segmentSize: Number(this.segmentSize.value)}));
    listen(this.permute, () => ({permute: this.permute.checked}));
    listen(this.precision, () => ({precision: this.precision.value as Settings['precision']}));
    listen(this.maxTokens, () => ({maxTokens: Number(this.maxTokens.value)}));
    listen(this.temperature, () => ({temperature: Number(this.temperature.value)}));
    listen(this.topP, () => ({topP: Number(this.topP.value)}));
    listen(this.seed, () => ({seed: Number(this.seed.value)}));
    this.maxTokens.max = String(MOST_WRITTEN_TOKENS);
    this.update(settings);
  }

  /** Tokens of the prompt that is asked for now; known once the model is. */
  get chosenLength(): number | undefined {
    if (this.machine === undefined || this.model === undefined) return undefined;
    return fitLength(this.settings.length ?? defaultLength(this.machine), this.model.maxLength);
  }

  /** Shows settings that were not made here. */
  update(part: Partial<Settings>): void {
    this.settings = {...this.settings, ...part};
    // Made anew, the controls of the facts would lose the focus.
    if (part.facts !== undefined) this.facts.show(this.settings);
    this.showValues();
  }

  showMachine(machine: Machine): void {
    this.machine = machine;
    this.model = undefined;
    this.showValues();
  }

  showModel(model: ModelInfo): void {
    this.model = model;
    this.showValues();
  }

  focusFacts(): void {
    this.facts.focus();
  }

  private change(part: Partial<Settings>): void {
    this.settings = {...this.settings, ...part};
    this.showValues();
    this.onChange(part);
  }

  private showValues(): void {
    const {settings} = this;
    for (const radio of document.querySelectorAll<HTMLInputElement>('input[name=task]')) {
      radio.checked = radio.value === settings.task;
    }
    byId('facts-part').hidden = settings.task !== 'find';
    byId<HTMLFieldSetElement>('facts-part').disabled = settings.task !== 'find';
    this.showLengths();
    this.threshold.value = String(settings.threshold);
    byId('threshold-value').textContent = settings.threshold.toFixed(2);
    this.estimate.value = settings.estimate;
    this.blockSize.value = String(settings.blockSize);
    this.keyBlockSize.value = String(settings.keyBlockSize);
    const sizes = segmentSizesFor(settings.keyBlockSize);
    const blocks = (size: number) => size / settings.keyBlockSize;
    this.segmentSize.replaceChildren(
      ...sizes.map((size) => new Option(`${formatTokens(size)} (${blocks(size)} × block)`, String(size))),
    );
    this.segmentSize.value = String(settings.segmentSize);
    this.permute.checked = settings.permute;
    this.showPrecision();
    setUnlessEdited(this.maxTokens, settings.maxTokens ?? defaultMaxTokens(settings.task));
    setUnlessEdited(this.temperature, settings.temperature);
    setUnlessEdited(this.topP, settings.topP);
    setUnlessEdited(this.seed, settings.seed);
    byId('options-summary').textContent = summariseOptions(settings);
    byId('writing-summary').textContent = summariseWriting(settings);
  }

  private showLengths(): void {
    const {machine, model, settings} = this;
    const note = byId('length-note');
    const chosen = this.chosenLength;
    if (machine === undefined || model === undefined || chosen === undefined) {
      this.length.replaceChildren(element('option', {value: ''}, 'with the model'));
      note.textContent = '';
      return;
    }
    const offered = offeredLengths(model.maxLength);
    this.length.replaceChildren(
      ...[...new Set([...offered, ...LENGTHS])].map((length) => {
        const option = new Option(formatTokens(length), String(length));
        option.disabled = length > model.maxLength;
        return option;
      }),
    );
    this.length.value = String(chosen);
    note.textContent =
      settings.length !== undefined && settings.length > model.maxLength
        ? `This model reads at most ${formatTokens(model.maxLength)}: ${formatTokens(settings.length)} cannot be asked.`
        : '';
  }

  private showPrecision(): void {
    const float16 = this.machine?.float16;
    const isMissing = float16 === 'none';
    this.precision.namedItem('float16')!.disabled = isMissing;
    this.precision.value = isMissing ? 'float32' : this.settings.precision;
    byId('precision-note').textContent = float16 === undefined ? '' : FLOAT16_WORDS[float16];
  }
}

/** A half-typed number must not be replaced under the cursor. */
function setUnlessEdited(input: HTMLInputElement, value: number): void {
  if (document.activeElement !== input) input.value = String(value);
}

/** Another fact, early or late in the text, that is not confused with these. */
function inventFact(facts: PlacedFact[]): PlacedFact {
  for (let seed = 101; ; ++seed) {
    const depth = [0.25, 0.75, 0.1, 0.9, 0.5, 0.35, 0.65][(facts.length - 1) % 7];
    const placed = {fact: chooseFact(seed), depth};
    if (!facts.some((other) => haveSameSubject(other, placed))) return placed;
  }
}

function summariseOptions(settings: Settings): string {
  const {threshold, estimate, blockSize, keyBlockSize, segmentSize, permute, precision} = settings;
  return [
    `τ ${threshold}`,
    `${estimate} estimate`,
    `blocks of ${blockSize} queries × ${keyBlockSize} keys`,
    `segments of ${segmentSize}`,
    permute ? 'permuted' : 'not permuted',
    precision,
  ].join(' · ');
}

function summariseWriting({task, maxTokens, temperature, topP, seed}: Settings): string {
  const most = `at most ${formatTokens(maxTokens ?? defaultMaxTokens(task))}`;
  if (temperature === 0) return `${most} · the likeliest each time`;
  return [most, `temperature ${temperature}`, `top-p ${formatPercent(topP)}`, `seed ${seed}`].join(' · ');
}
