import type {DocumentFit} from '../../engine/protocol';
import {byId} from '../dom';
import {formatCount, formatTokens} from '../format';
import {readDocument, type ReadDocument} from './read_document';

/** A text area with more takes long to lay out; the text itself does not. */
const MAX_SHOWN = 100_000;

export interface DocumentEvents {
  /** Whether a text fits; nothing while there is no model to count by. */
  fit(text: string): Promise<DocumentFit | undefined>;
  /** What stands before the questions is another. */
  onChange(): void;
  /** A file is about to be read. */
  onRead(): void;
  onFailure(error: Error): void;
}

/** The user's document: what stands before the questions, all of it or as much as the user has agreed to. */
export class DocumentPanel {
  /** Empty: none, or not settled. */
  text = '';
  /** Of the text; nothing while there is none. */
  tokens?: number;
  private document?: ReadDocument;
  private beginning = '';
  private room = 0;
  private isMeasured = false;
  private measures = 0;
  private reads = 0;
  private readonly picker = byId<HTMLInputElement>('document-file');
  private readonly area = byId<HTMLTextAreaElement>('document-text');

  constructor(private readonly events: DocumentEvents) {
    this.picker.addEventListener('click', () => (this.picker.value = ''));
    this.picker.addEventListener('change', () => {
      const [file] = this.picker.files ?? [];
      if (file) void this.takeFile(file);
    });
    this.area.addEventListener('paste', (event) => {
      const pasted = event.clipboardData?.getData('text/plain') ?? '';
      if (pasted.length <= MAX_SHOWN) return;
      event.preventDefault();
      this.take({name: 'Pasted text', text: pasted});
    });
    byId('document-use').addEventListener('click', () => {
      if (this.area.value.trim() !== '') this.take({name: 'Pasted text', text: this.area.value});
      else this.area.focus();
    });
    byId('document-remove').addEventListener('click', () => this.remove());
    byId('document-leave').addEventListener('click', () => this.remove());
    byId('document-cut').addEventListener('click', () => this.cut());
  }

  get name(): string {
    return this.document?.name ?? '';
  }

  /** Whether there is a document of which it is not settled what is used. */
  get isOpen(): boolean {
    return this.document !== undefined && this.text === '';
  }

  async takeFile(file: File): Promise<void> {
    const mine = ++this.reads;
    this.events.onRead();
    byId('document-status').textContent = `Reading ${file.name}…`;
    this.showWaiting(file.name, 'reading…');
    try {
      const read = await readDocument(file);
      if (mine === this.reads) this.take(read);
    } catch (error) {
      if (mine !== this.reads) return;
      byId('document-status').textContent = '';
      this.showBefore();
      this.events.onFailure(error as Error);
    }
  }

  /** To be called when the model is another: its tokens are, and its room is. */
  forgetSize(): void {
    if (this.document === undefined) return;
    this.isMeasured = false;
    this.forgetText();
    this.showWaiting(this.document.name, 'counting…');
    this.events.onChange();
  }

  /** Counts the document if that is not done yet, or what fits has changed since it was refused. */
  async measure(): Promise<void> {
    const {document} = this;
    if (document === undefined || (this.isMeasured && !this.isOpen)) return;
    const mine = ++this.measures;
    const fit = await this.events.fit(document.text).catch(() => undefined);
    if (mine !== this.measures || fit === undefined) return;
    this.isMeasured = true;
    if (fit.beginning === undefined) this.use(document.text, fit.tokens, formatTokens(fit.tokens));
    else this.refuse(fit, fit.beginning);
  }

  focus(): void {
    if (this.isOpen) byId('document-cut').focus();
    else this.picker.focus();
  }

  private take(document: ReadDocument): void {
    this.document = document;
    this.isMeasured = false;
    this.forgetText();
    this.area.value = '';
    this.showWaiting(document.name, 'counting…');
    byId('document-remove').focus();
    this.events.onChange();
    void this.measure();
  }

  private use(text: string, tokens: number, words: string): void {
    this.text = text;
    this.tokens = tokens;
    byId('document-tokens').textContent = words;
    byId('document-status').textContent = `${this.document!.name}: ${words}, stands before your questions.`;
    this.showParts('chip');
    this.events.onChange();
  }

  /** Says what does not fit, and asks what to do. */
  private refuse({tokens, isEstimate, room}: DocumentFit, beginning: string): void {
    this.forgetText();
    this.beginning = beginning;
    this.room = room;
    const words =
      `${this.document!.name} has ${isEstimate ? 'about ' : ''}${formatTokens(tokens)}; ` +
      `${formatCount(room)} fit beside the conversation and its answer.`;
    byId('document-refused-words').textContent = words;
    byId('document-status').textContent = words;
    const button = byId<HTMLButtonElement>('document-cut');
    button.textContent = `Use the first ${formatTokens(room)}`;
    button.hidden = beginning.trim() === '';
    button.dataset.detail = `the first ${formatCount(room)} of ${isEstimate ? 'about ' : ''}${formatTokens(tokens)}`;
    const hadFocus = byId('document-chip').contains(document.activeElement);
    this.showParts('refused');
    if (hadFocus) this.focus();
    this.events.onChange();
  }

  private cut(): void {
    this.use(this.beginning, this.room, byId('document-cut').dataset.detail!);
    byId('document-remove').focus();
  }

  private remove(): void {
    this.document = undefined;
    this.forgetText();
    this.beginning = '';
    ++this.measures;
    ++this.reads;
    byId('document-status').textContent = 'No document.';
    this.showParts('choice');
    this.picker.focus();
    this.events.onChange();
  }

  private forgetText(): void {
    this.text = '';
    this.tokens = undefined;
  }

  private showWaiting(name: string, words: string): void {
    byId('document-name').textContent = name;
    byId('document-tokens').textContent = words;
    this.showParts('chip');
  }

  /** What was there before a file that could not be read. */
  private showBefore(): void {
    if (this.document === undefined) this.showParts('choice');
    else {
      this.forgetSize();
      void this.measure();
    }
  }

  private showParts(shown: 'choice' | 'chip' | 'refused'): void {
    for (const part of ['choice', 'chip', 'refused']) byId(`document-${part}`).hidden = part !== shown;
  }
}
