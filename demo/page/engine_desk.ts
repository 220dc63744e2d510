import type {Machine, ModelInfo, ModelSource} from '../engine/protocol';
import {byId} from './dom';
import {EngineHost} from './engine_host';
import {EngineSession, type Wish} from './engine_session';
import {FailurePanel} from './failure_panel';
import {describeFailure, endsEngine, type Failure, type FailureContext, type Recovery} from './failures';
import {describeLoading} from './format';
import {ProgressView} from './progress_view';
import type {ViewName} from './views';

/** Work that does not end this long after it was stopped can be ended with its worker, in milliseconds. */
const PATIENCE = 3000;

/** A second click this soon is half of a double-click, not a wish to stop, in milliseconds. */
const DOUBLE_CLICK = 400;

export type Activity = 'idle' | 'preparing' | 'running' | 'stopping' | 'overdue';

/** Where a failure comes from: one of the preview, or of reading a document, ends with the next. */
type FailureSource = 'preview' | 'document' | 'other';

/** A part of the page that has to do with the engine. */
export interface DeskUser {
  onActivity?(): void;
  /** The engine has done all, or something of it is new; it may not be ready. */
  onIdle?(): void;
  onMachine?(machine: Machine): void;
  onModel?(model: ModelInfo, source: ModelSource): void;
  /** Loading a model was stopped; what was downloaded of it is kept. */
  onStopped?(source: ModelSource): void;
  /** Its part in a recovery, if it has one. */
  recover?(recovery: Recovery): void;
}

/** The one engine of all views: it does one thing at a time, says how that goes, and a failure has a way out. */
export class EngineDesk {
  readonly progress = new ProgressView();
  readonly session: EngineSession;
  readonly host: EngineHost;
  activity: Activity = 'idle';
  /** Whose work runs. */
  owner?: ViewName;
  private readonly failures = new FailurePanel((recovery) => this.recover(recovery));
  private readonly users: DeskUser[] = [];
  private readonly stopButton = byId<HTMLButtonElement>('stop-loading');
  private preparing = 0;
  private runStart = 0;
  private patience?: ReturnType<typeof setTimeout>;
  private failureOf: FailureSource = 'other';

  /** @param contextOf what recoveries depend on besides the engine. */
  constructor(
    createWorker: () => Worker,
    wish: Wish,
    private readonly contextOf: () => Pick<FailureContext, 'view' | 'shorter'>,
  ) {
    this.host = new EngineHost(createWorker);
    this.session = new EngineSession(this.host, wish, {
      onStep: (step, loading) => {
        // The model that comes with the page is there at once.
        this.stopButton.hidden = loading === undefined || 'url' in this.session.wish.model;
        this.progress.show(
          step,
          loading === undefined ? `${step}…` : `${step}: ${describeLoading(loading)}`,
          // Before a host has answered, nobody knows how much it is.
          loading === undefined || loading.total === 0 ? undefined : loading.done / loading.total,
        );
      },
      onMachine: (machine) => this.users.forEach((user) => user.onMachine?.(machine)),
      onModel: (model, source) => this.users.forEach((user) => user.onModel?.(model, source)),
    });
    this.stopButton.addEventListener('click', () => {
      this.progress.show('stopping', 'Stopping…');
      this.cancelLoad();
    });
  }

  join(user: DeskUser): void {
    this.users.push(user);
  }

  get runs(): boolean {
    return this.activity !== 'idle' && this.activity !== 'preparing';
  }

  /** Whether it has what is wished for and nothing to do. */
  get isFree(): boolean {
    return this.activity === 'idle' && this.session.isReady;
  }

  /** Changes what the engine works with, and loads what that takes. */
  async change(part: Partial<Wish>): Promise<void> {
    // Half a gigabyte of a model that is not wanted any more need not come first.
    if (part.model !== undefined && this.activity === 'preparing') this.cancelLoad();
    this.session.change(part);
    // A run goes on with what it has; what is wished for is prepared after it.
    if (!this.runs) await this.prepare();
  }

  /** Whether the engine has what is wished for. */
  async prepare(): Promise<boolean> {
    this.failures.clear();
    ++this.preparing;
    this.setActivity('preparing');
    const source = this.session.wish.model;
    let words = '';
    try {
      await this.session.prepare();
      words = 'Ready.';
      return true;
    } catch (error) {
      if ((error as Error).name === 'AbortError' && this.host.isOpen) {
        words = 'Loading was stopped.';
        this.users.forEach((user) => user.onStopped?.(source));
      }
      this.report(error as Error);
      return false;
    } finally {
      // A later preparation waits for its turn, and will say how it ended.
      if (--this.preparing === 0 && !this.runs) {
        this.setActivity('idle');
        this.finish(words);
      }
    }
  }

  /** Prepares until nothing is left to prepare: what is changed meanwhile, too. Whether that succeeded. */
  async prepareAll(): Promise<boolean> {
    while (this.preparing > 0 || !this.session.isReady) if (!(await this.prepare())) return false;
    return true;
  }

  /**
   * Does a view's work.
   *
   * @param work what it gives is said at the end.
   * @param abandon called if it throws.
   */
  async run(owner: ViewName, work: () => Promise<string>, abandon: () => void): Promise<void> {
    this.failures.clear();
    this.owner = owner;
    this.setActivity('running');
    this.runStart = performance.now();
    let words = '';
    try {
      words = await work();
    } catch (error) {
      abandon();
      if ((error as Error).name === 'AbortError') words = 'Stopped.';
      this.report(error as Error);
    } finally {
      this.owner = undefined;
      this.setActivity('idle');
      this.finish(words);
      // What was changed just before, or by a file that was read meanwhile.
      if (this.host.isOpen && !this.session.isReady) void this.prepare();
    }
  }

  /** Stops the work that runs; if that takes too long, with its worker. */
  stop(): void {
    if (this.activity === 'overdue') {
      this.host.close();
    } else if (this.activity === 'running' && performance.now() - this.runStart > DOUBLE_CLICK) {
      this.setActivity('stopping');
      this.progress.show('stopping', 'Stopping after the layer or token that is computed now…');
      this.host.call((engine) => engine.cancel()).catch(() => {});
      this.patience = setTimeout(() => this.setActivity('overdue'), PATIENCE);
    }
  }

  report(error: Error, from: FailureSource = 'other'): void {
    if (endsEngine(error)) this.host.close(error);
    const {backend} = this.session.wish;
    const failure = describeFailure(error, {
      backend: backend === 'auto' ? (this.session.machine?.backend ?? 'auto') : backend,
      hasModel: this.session.model !== undefined,
      ...this.contextOf(),
    });
    if (failure !== undefined) this.showFailure(failure, from);
  }

  showFailure(failure: Failure, from: FailureSource = 'other'): void {
    this.failureOf = from;
    this.failures.show(failure);
  }

  /** Takes away what went wrong there before. */
  clearFailure(from: FailureSource): void {
    if (this.failureOf === from) this.failures.clear();
  }

  private recover(recovery: Recovery): void {
    this.failures.clear();
    if (recovery.action === 'switch backend') this.host.close();
    this.users.forEach((user) => user.recover?.(recovery));
    if (recovery.action === 'restart') void this.prepare();
  }

  private cancelLoad(): void {
    if (this.host.isOpen) this.host.call((engine) => engine.cancelLoad()).catch(() => {});
  }

  private finish(words: string): void {
    const hadFocus = document.activeElement === this.stopButton;
    this.stopButton.hidden = true;
    this.progress.finish(words);
    this.users.forEach((user) => user.onIdle?.());
    if (!hadFocus) return;
    const resume = byId('stopped-load').hidden ? undefined : byId('resume-load');
    (resume ?? byId('model')).focus();
  }

  private setActivity(next: Activity): void {
    clearTimeout(this.patience);
    this.activity = next;
    for (const controls of document.querySelectorAll<HTMLFieldSetElement>('fieldset.controls')) {
      controls.disabled = this.runs;
    }
    this.users.forEach((user) => user.onActivity?.());
  }
}

/** What a button says that begins a view's work and stops it. */
export class RunButton {
  constructor(
    private readonly button: HTMLButtonElement,
    private readonly desk: EngineDesk,
    private readonly view: ViewName,
    private readonly idleWords: string,
  ) {}

  /** Whether it stops. */
  get stops(): boolean {
    return this.desk.runs && this.desk.owner === this.view;
  }

  show(): void {
    const {button, desk, stops} = this;
    const words = {running: 'Stop', stopping: 'Stopping…', overdue: 'Stop at once', idle: '', preparing: ''};
    button.textContent = stops ? words[desk.activity] : this.idleWords;
    button.classList.toggle('stop', stops);
    // Not `disabled` on the button that has the focus: the focus would be lost.
    button.setAttribute('aria-disabled', String(desk.activity === 'preparing' || (desk.runs && !stops)));
  }
}
