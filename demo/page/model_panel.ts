import type {ModelInfo, ModelSource} from '../engine/protocol';
import {byId} from './dom';
import {describeModel} from './format';

const BUNDLED: ModelSource = {url: new URL('./model/', document.baseURI).href};

/** The checkpoint: the one that comes with the page, or the user's files. */
export class ModelPanel {
  private readonly select = byId<HTMLSelectElement>('model');
  private readonly picker = byId<HTMLInputElement>('model-files');
  private readonly part = byId('model-files-part');
  readonly bundled = BUNDLED;

  constructor(private readonly onModel: (source: ModelSource) => void) {
    this.select.addEventListener('input', () => {
      this.part.hidden = this.select.value !== 'own';
      if (this.select.value === 'bundled') this.onModel(BUNDLED);
    });
    // The same files can be picked again after they were mended.
    this.picker.addEventListener('click', () => (this.picker.value = ''));
    this.picker.addEventListener('change', () => {
      const files = [...(this.picker.files ?? [])];
      if (files.length > 0) this.takeFiles(files);
    });
  }

  takeFiles(files: File[]): void {
    this.select.value = 'own';
    this.part.hidden = false;
    this.onModel({files});
  }

  useBundled(): void {
    this.showSource(BUNDLED);
    this.onModel(BUNDLED);
  }

  /** Opens the browser's picker; only from an event of the user. */
  pickFiles(): void {
    this.select.value = 'own';
    this.part.hidden = false;
    this.picker.focus();
    this.picker.click();
  }

  showSource(source: ModelSource): void {
    this.select.value = 'url' in source ? 'bundled' : 'own';
    this.part.hidden = 'url' in source;
  }

  showModel(model: ModelInfo | undefined): void {
    byId('model-info').textContent = model === undefined ? '' : describeModel(model);
  }
}
