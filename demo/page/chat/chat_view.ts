import type {
  AttentionName,
  ChatAnswer,
  ChatEvent,
  ChatRequest,
  Conversation,
  DocumentFit,
  ModelInfo,
  ModelSource,
  RunProgress,
} from '../../engine/protocol';
import {byId, debounce} from '../dom';
import {RunButton, type DeskUser, type EngineDesk} from '../engine_desk';
import type {Recovery} from '../failures';
import {ATTENTION_TITLES, describeProgress} from '../format';
import {ChatForm} from './chat_form';
import {ChatLog, type Exchange} from './chat_log';
import {describeContext, describeStorage} from './chat_words';
import {DocumentPanel} from './document_panel';
import {KeepChoice} from './keep_choice';
import {Messages, type AnswerCard} from './messages';

/** A chat about the user's document, answered by exact or sparse attention, or by both. */
export class ChatView implements DeskUser {
  private readonly log = new ChatLog();
  private readonly messages = new Messages();
  private readonly form = new ChatForm(() => this.changed());
  private readonly documents: DocumentPanel;
  private readonly keeping = new KeepChoice();
  private readonly message = byId<HTMLTextAreaElement>('message');
  private readonly sendButton = byId<HTMLButtonElement>('send');
  private readonly regenerateButton = byId<HTMLButtonElement>('regenerate');
  private readonly clearButton = byId<HTMLButtonElement>('clear-chat');
  private readonly button: RunButton;
  private readonly countSoon = debounce(() => void this.count(), 300);
  private counts = 0;
  /** Tokens that sparse attention has to read, when they were counted last. */
  private unread?: number;

  constructor(private readonly desk: EngineDesk) {
    this.button = new RunButton(this.sendButton, desk, 'chat', 'Send');
    this.documents = new DocumentPanel({
      fit: (text) => this.fit(text),
      onChange: () => {
        this.showKeeping();
        this.countSoon();
      },
      onRead: () => desk.clearFailure('document'),
      onFailure: (error) => {
        const failure = {
          title: 'This file is no document that can be read here',
          advice: 'Choose another file, or paste the text.',
          detail: error.message,
          recoveries: [{action: 'pick text', label: 'Choose another document'} as const],
        };
        desk.showFailure(failure, 'document');
      },
    });
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.button.stops) desk.stop();
      else void this.send();
    });
    this.message.addEventListener('keydown', (event) => {
      // While an input method is composing, Enter is its own.
      if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (!desk.runs) void this.send();
      }
    });
    byId('composer').addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.button.stops) desk.stop();
    });
    this.message.addEventListener('input', () => this.countSoon());
    this.regenerateButton.addEventListener('click', () => void this.regenerate());
    this.clearButton.addEventListener('click', () => this.clear());
  }

  takeFile(file: File): void {
    void this.documents.takeFile(file);
  }

  focus(): void {
    this.message.focus();
  }

  onShow(): void {
    this.countSoon();
  }

  onMachine(): void {
    this.form.showGain({});
  }

  onModel(model: ModelInfo, source: ModelSource): void {
    this.form.showModel(model);
    this.keeping.setModel(model, source);
    this.documents.forgetSize();
    this.showKeeping();
  }

  onActivity(): void {
    this.button.show();
    const isIdle = this.desk.activity === 'idle';
    this.regenerateButton.disabled = !isIdle || this.log.isEmpty;
    this.clearButton.disabled = !isIdle || this.log.isEmpty;
    byId('composer').setAttribute('aria-busy', String(!isIdle));
  }

  onIdle(): void {
    void this.documents.measure();
    this.countSoon();
  }

  /** To be called when something that was kept is deleted. */
  onKeptDeleted(): void {
    this.keeping.clear();
    this.countSoon();
  }

  recover(recovery: Recovery): void {
    if (recovery.action === 'clear chat') this.clear();
    else if (recovery.action === 'pick text') this.documents.focus();
  }

  private async send(): Promise<void> {
    const question = this.message.value.trim();
    if (question === '' || this.desk.activity !== 'idle' || !this.form.showsValid()) return;
    if (!(await this.desk.prepareAll())) return;
    if (this.documents.isOpen) {
      await this.documents.measure();
      if (this.documents.isOpen) return this.documents.focus();
    }
    this.message.value = '';
    const exchange = this.log.add(question);
    await this.answer(exchange, this.messages.ask(question, this.form.attentions), () => {
      // Nothing came of it: the question goes back to where it can be asked again.
      this.log.removeLast();
      this.messages.removeLast();
      if (this.message.value === '') this.message.value = question;
    });
  }

  private async regenerate(): Promise<void> {
    const exchange = this.log.last;
    if (exchange === undefined || this.desk.activity !== 'idle' || !this.form.showsValid()) return;
    if (!(await this.desk.prepareAll())) return;
    const before = exchange.answers;
    exchange.answers = {};
    this.message.focus();
    await this.answer(exchange, this.messages.askAgain(this.form.attentions), () => {
      exchange.answers = before;
      const cards = this.messages.askAgain(Object.keys(before) as AttentionName[]);
      for (const [attention, card] of cards) card.showAnswer(before[attention]!);
    });
  }

  /** @param undo called where no answer came. */
  private async answer(exchange: Exchange, cards: Map<AttentionName, AnswerCard>, undo: () => void): Promise<void> {
    const attentions = [...cards.keys()];
    const request = {
      ...this.conversation([...this.log.turns(exchange), {role: 'user', content: exchange.question}]),
      ...{
        maxTokens: this.form.maxTokens,
        sampling: this.form.sampling(exchange.times++),
        warmUp: attentions.length > 1,
      },
    };
    this.countSoon.cancel();
    const work = async () => {
      for (const [attention, card] of cards) {
        card.showWaiting('Reading…');
        const keep = this.keeping.of(this.documents.name, attention);
        const answer = await this.ask({...request, attention, ...keep}, card);
        exchange.answers[attention] = answer;
        card.showAnswer(answer);
        // Or while what was read was written to the storage.
        if (answer.end === 'stopped' || this.desk.activity !== 'running') return 'Stopped.';
      }
      return 'Done.';
    };
    await this.desk.run('chat', work, () => {});
    if (Object.keys(exchange.answers).length === 0) undo();
    for (const [attention, card] of cards) if (!exchange.answers[attention]) card.showWaiting('No answer.');
    this.announce(exchange);
    this.onActivity();
  }

  private ask(request: ChatRequest, card: AnswerCard): Promise<ChatAnswer> {
    return this.desk.host.follow<ChatEvent, ChatAnswer>(
      (engine, onEvent) => engine.chat(request, onEvent),
      (event) => {
        if (event.type === 'text') card.showText(event.text);
        else if (this.desk.activity !== 'running') return;
        else if (event.type === 'progress') this.showProgress(event.progress);
        else {
          const {step, attention, layersDone, layers} = event;
          this.desk.progress.show(`${attention} ${step}`, describeStorage(event), layersDone / layers);
        }
      },
    );
  }

  private showProgress(progress: RunProgress): void {
    const {attention, step, done} = progress;
    // How long an answer gets nobody knows, and it can be seen growing.
    if (step === 'write') this.desk.progress.finish('Writing…');
    else this.desk.progress.show(`${attention} ${step}`, describeProgress(progress), done);
  }

  /** Whole answers, for who does not see them stream in. */
  private announce({answers}: Exchange): void {
    const words = Object.values(answers).map(({attention, text}) => `${ATTENTION_TITLES[attention]}: ${text}`);
    byId('chat-announcement').textContent = words.join(' ');
  }

  private clear(): void {
    this.log.clear();
    this.messages.clear();
    byId('chat-announcement').textContent = 'The conversation is cleared.';
    if (this.desk.host.isOpen) this.desk.host.call((engine) => engine.forgetChat()).catch(() => {});
    this.message.focus();
    this.onActivity();
    void this.documents.measure();
    this.countSoon();
  }

  private showKeeping(): void {
    this.keeping.show(this.documents.tokens, this.form.attentions);
  }

  private conversation(turns: Conversation['turns'], document = this.documents.text): Conversation {
    return {system: this.form.systemPrompt, document, turns};
  }

  private async fit(text: string): Promise<DocumentFit | undefined> {
    if (!this.desk.isFree) return undefined;
    const conversation = this.conversation(this.log.turns(), text);
    return this.desk.host.call((engine) => engine.fitDocument(conversation, this.form.maxTokens || 1));
  }

  private changed(): void {
    this.showKeeping();
    this.form.showGain(this.desk.session, this.unread);
    this.countSoon();
  }

  /** Shows how much of the context is taken, and what that means for the choice of attention. */
  private async count(): Promise<void> {
    const {desk} = this;
    const {model} = desk.session;
    if (!desk.isFree || model === undefined) return;
    const mine = ++this.counts;
    const conversation = this.conversation([...this.log.turns(), {role: 'user', content: this.message.value.trim()}]);
    const count = await desk.host.call((engine) => engine.countChat(conversation)).catch(() => undefined);
    if (mine !== this.counts || count === undefined) return;
    const {used, words, isFull} = describeContext(count, this.form.maxTokens || 1, model.contextLength);
    const gauge = byId<HTMLMeterElement>('gauge');
    gauge.max = model.contextLength;
    gauge.high = 0.9 * model.contextLength;
    gauge.value = used;
    byId('gauge-words').textContent = words;
    byId('gauge-words').classList.toggle('wrong', isFull);
    this.unread = count.unread.pbs;
    this.form.showGain(desk.session, this.unread);
  }
}
