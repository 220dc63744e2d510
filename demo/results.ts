import type {Run} from './ask/ask';

/** Fills one result card; `share` is that of the visible blocks which were kept, 0 to 1. */
export function showRun(card: HTMLElement, run: Run, share: number): void {
  const verdict = element('p', run.correct ? 'verdict right' : 'verdict wrong', run.correct ? 'right' : 'wrong');
  const answer = element('p', 'answer', run.answer === '' ? '(nothing)' : run.answer);
  const percent = `${Math.round(share * 100)}%`;

  const meter = document.createElement('meter');
  meter.max = 1;
  meter.value = share;
  meter.textContent = percent;
  meter.setAttribute('aria-hidden', 'true');
  const kept = element('dd', '', percent);
  kept.append(meter);

  const facts = document.createElement('dl');
  facts.append(
    element('dt', '', 'Time to first token'),
    element('dd', '', duration(run.firstTokenMs)),
    element('dt', '', 'Blocks kept'),
    kept,
  );
  clearRun(card);
  card.append(answer, verdict, facts);
}

/** Shows that a card waits for its run; without words, empties it. */
export function clearRun(card: HTMLElement, words?: string): void {
  card.replaceChildren(card.querySelector('h3')!);
  if (words !== undefined) card.append(element('p', 'waiting', words));
}

function duration(ms: number): string {
  return ms < 1000 ? `${ms.toPrecision(3)} ms` : `${(ms / 1000).toPrecision(3)} s`;
}

function element(tag: string, className: string, text: string): HTMLElement {
  const made = document.createElement(tag);
  if (className !== '') made.className = className;
  made.textContent = text;
  return made;
}
