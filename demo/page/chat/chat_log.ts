import type {AttentionName, ChatAnswer, ChatTurn} from '../../engine/protocol';

/** A question and what was answered, by one attention or by both. */
export interface Exchange {
  question: string;
  answers: Partial<Record<AttentionName, ChatAnswer>>;
  /** How often it was answered: each time draws by another seed. */
  times: number;
}

/** What was said, in order. */
export class ChatLog {
  private readonly exchanges: Exchange[] = [];

  get last(): Exchange | undefined {
    return this.exchanges.at(-1);
  }

  get isEmpty(): boolean {
    return this.exchanges.length === 0;
  }

  add(question: string): Exchange {
    const exchange: Exchange = {question, answers: {}, times: 0};
    this.exchanges.push(exchange);
    return exchange;
  }

  /** Takes back the last question. */
  removeLast(): void {
    this.exchanges.pop();
  }

  clear(): void {
    this.exchanges.length = 0;
  }

  /**
   * The turns of all answered questions. Where both ways of attending answered, it goes on from the sparse one.
   *
   * @param before leaves out this exchange, the last one.
   */
  turns(before?: Exchange): ChatTurn[] {
    return this.exchanges
      .filter((exchange) => exchange !== before)
      .flatMap(({question, answers}) => [
        {role: 'user', content: question} as const,
        {role: 'assistant', content: (answers.pbs ?? answers.exact)?.text ?? ''} as const,
      ]);
  }
}
