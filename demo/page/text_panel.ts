import {BOOK_NAMES, BOOKS, fetchBook, type BookName} from './books';
import {byId, debounce} from './dom';
import type {TextSource} from './engine_session';
import {formatCount} from './format';
import {readTextFile} from './own_text';

const OWN = 'own';

/** A text area with more takes long to lay out; the text itself does not. */
const MAX_SHOWN = 100_000;

/** The text that prompts are cut from: one of the books, or the user's own. */
export class TextPanel {
  private readonly select = byId<HTMLSelectElement>('book');
  private readonly area = byId<HTMLTextAreaElement>('text');
  private readonly picker = byId<HTMLInputElement>('text-file');
  private readonly info = byId('text-info');
  private readonly takeTyped = debounce(() => this.takeOwn(this.area.value), 500);

  constructor(
    book: BookName,
    private readonly events: {onText(source: TextSource, book?: BookName): void; onFailure(error: Error): void},
  ) {
    for (const name of BOOK_NAMES) {
      const {title, author, year} = BOOKS[name];
      this.select.append(new Option(`${title}, ${author} (${year})`, name));
    }
    this.select.append(new Option('Your own text', OWN));
    this.select.value = book;

    this.select.addEventListener('input', () => this.choose());
    this.area.addEventListener('input', this.takeTyped);
    this.area.addEventListener('paste', (event) => {
      const pasted = event.clipboardData?.getData('text/plain') ?? '';
      if (pasted.length <= MAX_SHOWN) return;
      event.preventDefault();
      this.takeTyped.cancel();
      this.area.value = '';
      this.takeOwn(pasted, 'pasted text');
    });
    this.picker.addEventListener('click', () => (this.picker.value = ''));
    this.picker.addEventListener('change', () => {
      const [file] = this.picker.files ?? [];
      if (file) void this.takeFile(file);
    });
  }

  /** Takes at once what was typed last. */
  flush(): void {
    this.takeTyped.flush();
  }

  async takeFile(file: File): Promise<void> {
    try {
      const text = await readTextFile(file);
      this.select.value = OWN;
      byId('own-text').hidden = false;
      this.area.value = '';
      this.takeOwn(text, file.name);
    } catch (error) {
      this.events.onFailure(error as Error);
    }
  }

  focus(): void {
    this.select.focus();
  }

  private choose(): void {
    const isOwn = this.select.value === OWN;
    byId('own-text').hidden = !isOwn;
    if (isOwn) {
      this.takeOwn(this.area.value);
      return;
    }
    const book = this.select.value as BookName;
    this.events.onText(bookSource(book), book);
  }

  private takeOwn(text: string, name?: string): void {
    const from = name === undefined ? '' : `${name}: `;
    this.info.textContent = text === '' ? '' : `${from}${formatCount(text.length)} characters.`;
    this.events.onText({read: async () => text});
  }
}

/** A text of the engine: another object for another text. */
export function bookSource(book: BookName): TextSource {
  return {read: () => fetchBook(book)};
}
