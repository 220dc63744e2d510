import type {BackendName} from '../backend_names';
import type {LoadProgress, Machine, ModelInfo, ModelSource} from '../engine/protocol';
import {storedCalibrations} from './device/calibrations';
import type {EngineHost} from './engine_host';
import {endsEngine} from './failures';

export interface TextSource {
  read(): Promise<string>;
}

/** What the engine is to work with. Model and text are the same if they are the same object. */
export interface Wish {
  backend: BackendName | 'auto';
  model: ModelSource;
  text: TextSource;
}

export interface SessionEvents {
  onStep(words: string, progress?: LoadProgress): void;
  onMachine(machine: Machine): void;
  onModel(model: ModelInfo, source: ModelSource): void;
}

/** Brings the engine to what is wished for: so a restart after a failure is the same as any other change. */
export class EngineSession {
  machine?: Machine;
  model?: ModelInfo;
  private loaded: {model?: ModelSource; text?: TextSource} = {};
  private last: Promise<void> = Promise.resolve();

  constructor(
    private readonly host: Pick<EngineHost, 'isOpen' | 'open' | 'close' | 'call' | 'follow'>,
    readonly wish: Wish,
    private readonly events: SessionEvents,
  ) {}

  /** Whether there is nothing to prepare. */
  get isReady(): boolean {
    const {model, text} = this.loaded;
    return this.host.isOpen && model === this.wish.model && text === this.wish.text;
  }

  /** Changes the wish; another backend takes another worker. */
  change(part: Partial<Wish>): void {
    if (part.backend !== undefined && part.backend !== this.wish.backend) this.host.close();
    Object.assign(this.wish, part);
  }

  /** Does what is missing for the wish. Calls run one after the other, each for the wish at its time. */
  prepare(): Promise<void> {
    this.last = this.last.catch(() => {}).then(() => this.fulfil());
    return this.last;
  }

  private async fulfil(): Promise<void> {
    try {
      if (!this.host.isOpen || this.machine === undefined) await this.openEngine();
      await this.loadModel();
      await this.loadText();
    } catch (error) {
      if (endsEngine(error as Error)) this.host.close(error as Error);
      throw error;
    }
  }

  private async openEngine(): Promise<void> {
    this.loaded = {};
    this.machine = this.model = undefined;
    const {backend} = this.wish;
    this.events.onStep('Looking for a backend');
    this.host.open();
    this.machine = await this.host.call((engine) =>
      engine.start(backend === 'auto' ? undefined : backend, storedCalibrations()),
    );
    this.events.onMachine(this.machine);
  }

  private async loadModel(): Promise<void> {
    const {model} = this.wish;
    if (model === this.loaded.model) return;
    this.events.onStep('Loading the model');
    try {
      this.model = await this.host.follow<LoadProgress, ModelInfo>(
        (engine, onProgress) => engine.loadModel(model, onProgress),
        (progress) => this.events.onStep('Loading the model', progress),
      );
    } catch (error) {
      // The one before is still there. What could not be read would fail again; what was stopped is not wanted now.
      const {name} = error as Error;
      const isOver = name === 'CheckpointError' || (name === 'AbortError' && this.host.isOpen);
      if (isOver && this.wish.model === model && this.loaded.model !== undefined) this.wish.model = this.loaded.model;
      throw error;
    }
    this.loaded.model = model;
    this.events.onModel(this.model, model);
  }

  private async loadText(): Promise<void> {
    const {text} = this.wish;
    if (text === this.loaded.text) return;
    this.events.onStep('Loading the text');
    const words = await text.read();
    await this.host.call((engine) => engine.setText(words));
    this.loaded.text = text;
  }
}
