import {parseModelAddress} from '../../runner/hub/model_address';
import type {ModelInfo, ModelSource} from '../engine/protocol';
import {byId} from './dom';
import {describeModel} from './format';
import {KNOWN_MODELS} from './known_models';

const BUNDLED: ModelSource = {url: new URL('./model/', document.baseURI).href};

/** The model: the one that comes with the page, one by name or address, or the user's files. */
export class ModelPanel {
  private readonly select = byId<HTMLSelectElement>('model');
  private readonly picker = byId<HTMLInputElement>('model-files');
  private readonly filesPart = byId('model-files-part');
  private readonly address = byId<HTMLInputElement>('model-address');
  private readonly addressPart = byId('model-address-part');
  readonly bundled = BUNDLED;

  constructor(private readonly onModel: (source: ModelSource) => void) {
    const others = this.select.options[1];
    for (const {name, address, bytes, licence} of KNOWN_MODELS) {
      const option = document.createElement('option');
      option.value = address;
      option.textContent = `${name} (${Math.round(bytes / 1e6)} MB, ${licence})`;
      others.before(option);
    }
    this.select.addEventListener('input', () => {
      const {value} = this.select;
      this.showParts();
      if (value === 'bundled') this.onModel(BUNDLED);
      else if (isKnown(value)) this.load(value);
    });
    byId('model-address-load').addEventListener('click', () => this.loadTyped());
    this.address.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      // Not the question of the form around.
      event.preventDefault();
      this.loadTyped();
    });
    // The same files can be picked again after they were mended.
    this.picker.addEventListener('click', () => (this.picker.value = ''));
    this.picker.addEventListener('change', () => {
      const files = [...(this.picker.files ?? [])];
      if (files.length > 0) this.takeFiles(files);
    });
  }

  takeFiles(files: File[]): void {
    this.choose('own');
    this.onModel({files});
  }

  useBundled(): void {
    this.showSource(BUNDLED);
    this.onModel(BUNDLED);
  }

  /** Opens the browser's picker; only from an event of the user. */
  pickFiles(): void {
    this.choose('own');
    this.picker.focus();
    this.picker.click();
  }

  showSource(source: ModelSource): void {
    if ('url' in source) this.choose('bundled');
    else if ('files' in source) this.choose('own');
    else if (isKnown(source.address)) this.choose(source.address);
    else {
      this.address.value = source.address;
      this.choose('address');
    }
  }

  showModel(model: ModelInfo | undefined): void {
    byId('model-info').textContent = model === undefined ? '' : describeModel(model);
  }

  private loadTyped(): void {
    const error = byId('model-address-error');
    const address = this.address.value.trim();
    error.hidden = true;
    try {
      parseModelAddress(address);
    } catch (wrong) {
      error.textContent = (wrong as Error).message;
      error.hidden = false;
      this.address.focus();
      return;
    }
    this.load(address);
  }

  private load(address: string): void {
    // Asked on the user's click, and of a window: the worker that keeps the model cannot.
    void navigator.storage?.persist?.();
    this.onModel({address});
  }

  private choose(value: string): void {
    this.select.value = value;
    this.showParts();
  }

  private showParts(): void {
    this.filesPart.hidden = this.select.value !== 'own';
    this.addressPart.hidden = this.select.value !== 'address';
  }
}

const isKnown = (address: string): boolean => KNOWN_MODELS.some((model) => model.address === address);
