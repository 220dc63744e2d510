import type {PlacedFact} from '../fact';
import {byId, element} from './dom';
import {formatPercent} from './format';
import {haveSameSubject, MAX_FACTS} from './settings';

export interface Facts {
  facts: PlacedFact[];
  asked: number;
}

/** The list of facts: words, number and place of each, and which one is asked for. */
export class FactsEditor {
  private readonly list = byId('facts');
  private readonly addButton = byId<HTMLButtonElement>('add-fact');
  private shown: Facts = {facts: [], asked: 0};

  /**
   * @param onChange gets facts that are usable; what is not is marked on its control until it is mended.
   * @param invent makes a fact with another subject than these.
   */
  constructor(
    private readonly onChange: (facts: Facts) => void,
    private readonly invent: (facts: PlacedFact[]) => PlacedFact,
  ) {
    this.list.addEventListener('input', () => this.read());
    this.list.addEventListener('click', ({target}) => {
      const button = (target as Element).closest<HTMLButtonElement>('button.remove');
      if (button) this.remove(Number(button.value));
    });
    this.addButton.addEventListener('click', () => {
      const {facts, asked} = this.shown;
      this.change({facts: [...facts, this.invent(facts)], asked});
      this.rows().at(-1)!.querySelector<HTMLInputElement>('.adjective')!.focus();
    });
  }

  show(facts: Facts): void {
    this.shown = facts;
    this.list.replaceChildren(...facts.facts.map((placed, index) => this.row(placed, index)));
    this.addButton.hidden = facts.facts.length >= MAX_FACTS;
  }

  focus(): void {
    this.list.querySelector<HTMLInputElement>('.adjective')?.focus();
  }

  private change(facts: Facts): void {
    this.show(facts);
    this.onChange(facts);
  }

  private remove(index: number): void {
    const facts = this.shown.facts.filter((_, other) => other !== index);
    const {asked} = this.shown;
    this.change({facts, asked: asked > index || asked === facts.length ? asked - 1 : asked});
    this.addButton.focus();
  }

  private rows(): HTMLElement[] {
    return [...this.list.querySelectorAll<HTMLElement>('fieldset')];
  }

  private row({fact, depth}: PlacedFact, index: number): HTMLElement {
    const {facts, asked} = this.shown;
    const word = (name: 'adjective' | 'noun') =>
      element('input', {
        className: name,
        value: fact[name],
        autocomplete: 'off',
        spellcheck: false,
        autocapitalize: 'none',
        size: 9,
        maxLength: 20,
        required: true,
        pattern: '\\s*[A-Za-z]{2,20}\\s*',
        title: 'One word of 2 to 20 letters from a to z',
        'aria-label': name === 'adjective' ? 'Adjective' : 'Noun',
      });
    const number = element('input', {
      className: 'number',
      value: fact.number,
      autocomplete: 'off',
      inputMode: 'numeric',
      size: 6,
      maxLength: 5,
      required: true,
      pattern: '[1-9][0-9]{4}',
      title: 'Five digits, the first not 0',
      'aria-label': 'Number, five digits',
    });
    const depthId = `depth-${index + 1}`;
    const place = element('output', {}, describeDepth(depth));
    const slider = element('input', {type: 'range', id: depthId, className: 'depth', min: '0', max: '1', step: '0.01'});
    slider.value = String(depth);
    const row = element(
      'fieldset',
      {className: 'fact'},
      element('legend', {className: facts.length === 1 ? 'visually-hidden' : ''}, `Fact ${index + 1}`),
      element('div', {className: 'sentence'}, 'The secret number of the ', word('adjective'), ' ', word('noun')),
      element('div', {className: 'sentence'}, 'is ', number, '.'),
      element('div', {className: 'place'}, element('label', {htmlFor: depthId}, 'Place in the text: ', place), slider),
    );
    if (facts.length > 1) {
      const radio = element('input', {type: 'radio', name: 'asked', value: String(index), checked: index === asked});
      row.append(
        element('label', {className: 'choice'}, radio, ' Ask for this one'),
        element(
          'button',
          {type: 'button', className: 'quiet remove', value: String(index), 'aria-label': `Remove fact ${index + 1}`},
          'Remove',
        ),
      );
    }
    return row;
  }

  private read(): void {
    const rows = this.rows();
    const input = (row: HTMLElement, name: string) => row.querySelector<HTMLInputElement>(`.${name}`)!;
    const facts = rows.map((row): PlacedFact => ({
      fact: {
        adjective: input(row, 'adjective').value.trim().toLowerCase(),
        noun: input(row, 'noun').value.trim().toLowerCase(),
        number: input(row, 'number').value.trim(),
      },
      depth: Number(input(row, 'depth').value),
    }));
    rows.forEach((row, index) => {
      row.querySelector('output')!.textContent = describeDepth(facts[index].depth);
      const isTaken = facts.slice(0, index).some((other) => haveSameSubject(other, facts[index]));
      input(row, 'noun').setCustomValidity(isTaken ? 'Another fact has this adjective and noun' : '');
    });
    const isUsable = rows.every((row) => [...row.querySelectorAll('input')].every(({validity}) => validity.valid));
    if (!isUsable) return;
    const asked = this.list.querySelector<HTMLInputElement>('input[name=asked]:checked');
    this.shown = {facts, asked: Number(asked?.value ?? 0)};
    this.onChange(this.shown);
  }
}

function describeDepth(depth: number): string {
  return depth === 0 ? 'the beginning' : depth === 1 ? 'the end' : `${formatPercent(depth)} of the way`;
}
