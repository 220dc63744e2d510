import type {Answer, AttentionName, RunResult} from '../engine/protocol';
import {byId, element} from './dom';
import {describeSpeedUp, formatDuration, formatPercent, formatRate, formatTokens} from './format';

/** The two answers side by side, and the sentence that compares them. */
export class ResultCards {
  private readonly section = byId('answers');
  private readonly bodies: Record<AttentionName, HTMLElement> = {
    exact: byId('exact').querySelector<HTMLElement>('.body')!,
    pbs: byId('pbs').querySelector<HTMLElement>('.body')!,
  };
  /** Text that streams in, drawn once a frame. */
  private readonly streams = new Map<AttentionName, string>();

  start(question: string): void {
    this.section.hidden = false;
    byId('question').textContent = question;
    byId('speed-up').textContent = '';
    this.streams.clear();
    this.wait('exact', 'Reading…');
    this.wait('pbs', 'Waiting…');
  }

  showText(attention: AttentionName, text: string): void {
    if (this.streams.size === 0) requestAnimationFrame(() => this.drawStreams());
    this.streams.set(attention, text);
  }

  showAnswer(attention: AttentionName, answer: Answer): void {
    this.streams.delete(attention);
    const body = this.bodies[attention];
    const written = answer.answer ?? answer.text;
    const isNumber = answer.correct !== undefined && /^\d+$/.test(written);
    const words = element('p', {className: isNumber ? 'answer' : 'written'}, written.trim() || '(nothing)');
    body.replaceChildren(words);
    if (answer.correct !== undefined) {
      const verdict = answer.correct ? '✓ right' : '✗ wrong';
      body.append(element('p', {className: `verdict ${answer.correct ? 'right' : 'wrong'}`}, verdict));
    }
    const rows: Array<[string, string]> = [['Time to first token', formatDuration(answer.firstTokenMs)]];
    if (answer.tokensPerSecond !== undefined) {
      rows.push(['Writing', `${formatRate(answer.tokensPerSecond)} tokens a second`]);
    }
    rows.push(['Written', formatTokens(answer.tokens)]);
    body.append(listOf(rows));
    if (attention === 'exact') this.wait('pbs', 'Reading…');
  }

  /** Shows the answers of the result, whose events may not have come. */
  finish(result: RunResult): void {
    this.showAnswer('exact', result.exact);
    this.showAnswer('pbs', result.pbs);
    byId('speed-up').textContent = describeSpeedUp(result);
    this.bodies.pbs.querySelector('dl')?.append(...termOf('Blocks kept', formatPercent(result.kept.density)));
  }

  /** After a run that was stopped or failed: what is there stays, what was waited for is not there. */
  abandon(): void {
    this.streams.clear();
    for (const body of Object.values(this.bodies)) {
      if (body.querySelector('dl') === null) body.replaceChildren(element('p', {className: 'waiting'}, 'No answer.'));
    }
  }

  private wait(attention: AttentionName, words: string): void {
    this.bodies[attention].replaceChildren(element('p', {className: 'waiting'}, words));
  }

  private drawStreams(): void {
    for (const [attention, text] of this.streams) {
      this.bodies[attention].replaceChildren(element('p', {className: 'written streaming'}, text));
    }
    this.streams.clear();
  }
}

function listOf(rows: Array<[string, string]>): HTMLElement {
  return element('dl', {}, ...rows.flatMap(([term, value]) => termOf(term, value)));
}

function termOf(term: string, value: string): HTMLElement[] {
  return [element('dt', {}, term), element('dd', {}, value)];
}
