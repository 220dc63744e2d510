import type {AttentionName, ChatAnswer} from '../../engine/protocol';
import {byId, element} from '../dom';
import {ATTENTION_TITLES} from '../format';
import {describeAnswer} from './chat_words';

/** The messages as they are shown. */
export class Messages {
  private readonly list = byId<HTMLOListElement>('messages');
  private answers?: HTMLElement;

  /** Shows a question, and cards that wait for its answers. */
  ask(question: string, ways: readonly AttentionName[]): Map<AttentionName, AnswerCard> {
    this.list.append(
      element('li', {className: 'message user'}, title('You'), element('p', {className: 'written'}, question)),
    );
    return this.await(ways);
  }

  /** Takes the last answers away and waits for others. */
  askAgain(ways: readonly AttentionName[]): Map<AttentionName, AnswerCard> {
    this.answers?.remove();
    return this.await(ways);
  }

  /** Takes back the last question and its answers. */
  removeLast(): void {
    this.answers?.remove();
    this.answers = undefined;
    this.list.lastElementChild?.remove();
  }

  clear(): void {
    this.list.replaceChildren();
    this.answers = undefined;
  }

  private await(ways: readonly AttentionName[]): Map<AttentionName, AnswerCard> {
    const cards = new Map(ways.map((attention) => [attention, new AnswerCard(attention)]));
    const columns = element('div', {className: 'cards'}, ...[...cards.values()].map(({card}) => card));
    this.answers = element('li', {className: 'message answer-message'}, columns);
    this.list.append(this.answers);
    return cards;
  }
}

/** One answer, as it streams in and with what it took. */
export class AnswerCard {
  readonly card: HTMLElement;
  private readonly words = element('p', {className: 'written waiting'}, 'Waiting…');
  private streamed?: string;

  constructor(attention: AttentionName) {
    this.card = element('article', {className: `reply ${attention}`}, title(ATTENTION_TITLES[attention]), this.words);
  }

  showWaiting(words: string): void {
    this.words.textContent = words;
  }

  /** Text that streams in, drawn once a frame. */
  showText(text: string): void {
    if (this.streamed === undefined) requestAnimationFrame(() => this.draw());
    this.streamed = text;
  }

  showAnswer(answer: ChatAnswer): void {
    this.streamed = undefined;
    this.setWords(answer.text.trim() === '' ? '(nothing)' : answer.text.trim());
    // With blanks between them, for who copies them.
    const phrases = describeAnswer(answer).flatMap((phrase) => [element('li', {}, phrase), ' ']);
    this.card.append(element('ul', {className: 'stats', 'aria-label': 'What it took'}, ...phrases));
  }

  private draw(): void {
    const text = this.streamed;
    this.streamed = undefined;
    if (text !== undefined) this.setWords(text);
  }

  private setWords(text: string): void {
    const message = byId('message');
    const {top} = message.getBoundingClientRect();
    this.words.classList.remove('waiting');
    this.words.textContent = text;
    // Whoever reads elsewhere is not moved.
    if (top >= 0 && top < innerHeight) message.scrollIntoView({block: 'nearest'});
  }
}

function title(words: string): HTMLElement {
  return element('h3', {}, words);
}
