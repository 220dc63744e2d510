import {byId} from './dom';

/** Between two texts of the visible line, in milliseconds: each can be read. */
const TEXT_EVERY = 250;

/** Between two announcements of the same step to a screen reader. */
const ANNOUNCE_EVERY = 10_000;

/**
 * The bar with its line, and the status line, which screen readers read out: while the bar is shown the status follows
 * it unseen, at each new step and otherwise seldom.
 */
export class ProgressView {
  private readonly panel = byId('progress');
  private readonly bar = byId<HTMLProgressElement>('progress-bar');
  private readonly line = byId('progress-text');
  private readonly status = byId('status');
  private next?: {words: string; done?: number};
  private scheduled?: ReturnType<typeof setTimeout>;
  private drawnAt = -Infinity;
  private announcedAt = -Infinity;
  private announcedStep = '';

  /**
   * @param step what is being done; a new one is announced at once.
   * @param words the visible line.
   * @param done share of the whole; absent where it is not known.
   */
  show(step: string, words: string, done?: number): void {
    this.next = {words, done};
    const now = performance.now();
    if (step !== this.announcedStep || now - this.announcedAt >= ANNOUNCE_EVERY) {
      this.announcedStep = step;
      this.announcedAt = now;
      this.status.classList.add('visually-hidden');
      this.status.textContent = words;
    }
    this.scheduled ??= setTimeout(() => this.draw(), Math.max(0, this.drawnAt + TEXT_EVERY - now));
  }

  /** Ends what is shown; `words` stay on the status line. */
  finish(words: string): void {
    clearTimeout(this.scheduled);
    this.scheduled = this.next = undefined;
    this.drawnAt = this.announcedAt = -Infinity;
    this.announcedStep = '';
    this.panel.hidden = true;
    this.status.classList.remove('visually-hidden');
    this.status.textContent = words;
  }

  private draw(): void {
    this.scheduled = undefined;
    this.drawnAt = performance.now();
    if (this.next === undefined) return;
    const {words, done} = this.next;
    this.panel.hidden = false;
    this.line.textContent = words;
    if (done === undefined) this.bar.removeAttribute('value');
    else this.bar.value = done;
  }
}
