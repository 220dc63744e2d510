import {parseModelAddress} from '../../runner/hub/model_address';
import type {Machine, ModelInfo, ModelSource, StoredModel} from '../engine/protocol';
import {byId, element} from './dom';
import type {DeskUser, EngineDesk} from './engine_desk';
import type {Recovery} from './failures';
import {describeModel, formatBytes} from './format';
import {knownModel, KNOWN_MODELS} from './known_models';
import {describeFit, describeKnown} from './memory_words';

export const BUNDLED: ModelSource = {url: new URL('./model/', document.baseURI).href};

/** The model: the one that comes with the page, one by name or address, or the user's files. */
export class ModelPanel implements DeskUser {
  private readonly select = byId<HTMLSelectElement>('model');
  private readonly picker = byId<HTMLInputElement>('model-files');
  private readonly address = byId<HTMLInputElement>('model-address');
  private readonly load = byId<HTMLButtonElement>('model-known-load');
  /** What the select shows as asked for. */
  private asked: ModelSource = BUNDLED;
  private stored: readonly StoredModel[] = [];
  private stopped?: ModelSource;

  constructor(private readonly desk: EngineDesk) {
    const others = this.select.options[1];
    for (const {name, address, bytes, licence} of KNOWN_MODELS) {
      others.before(element('option', {value: address}, `${name} (${formatBytes(bytes)}, ${licence})`));
    }
    this.select.addEventListener('input', () => {
      this.showParts();
      // One by name waits for its button: the arrow keys pass over models of half a gigabyte.
      if (this.select.value === 'bundled') this.take(BUNDLED);
    });
    this.load.addEventListener('click', () => this.takeAddress(this.select.value));
    byId('model-address-load').addEventListener('click', () => this.takeTyped());
    this.address.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter') return;
      event.preventDefault();
      this.takeTyped();
    });
    // The same files can be picked again after they were mended.
    this.picker.addEventListener('click', () => (this.picker.value = ''));
    this.picker.addEventListener('change', () => {
      const files = [...(this.picker.files ?? [])];
      if (files.length > 0) this.takeFiles(files);
    });
    byId('resume-load').addEventListener('click', () => {
      this.select.focus();
      if (this.stopped) this.take(this.stopped);
    });
  }

  takeFiles(files: File[]): void {
    this.take({files});
  }

  takeAddress(address: string): void {
    // Asked on the user's click, and of a window: the worker that keeps the model cannot.
    void navigator.storage?.persist?.();
    this.take({address});
  }

  /** Says which of the models by name are kept here. */
  showStored(stored: readonly StoredModel[]): void {
    this.stored = stored;
    this.showParts();
    this.showStopped();
  }

  onMachine(): void {
    this.showModel(undefined);
    this.showParts();
  }

  onModel(model: ModelInfo, source: ModelSource): void {
    this.showModel(model);
    this.showSource(source);
    this.stopped = undefined;
    this.showStopped();
  }

  onStopped(source: ModelSource): void {
    this.stopped = source;
    this.showStopped();
  }

  onActivity(): void {
    if (this.desk.activity === 'preparing') byId('stopped-load').hidden = true;
  }

  onIdle(): void {
    // What was asked for may have been refused; what is chosen and not asked for yet stays.
    const {model} = this.desk.session.wish;
    if (model !== this.asked) this.showSource(model);
    this.showStopped();
  }

  recover(recovery: Recovery): void {
    if (recovery.action === 'use bundled model') this.take(BUNDLED);
    else if (recovery.action === 'pick files') {
      this.choose('own');
      this.picker.focus();
      // Opens the browser's picker, as this comes from a click.
      this.picker.click();
    }
  }

  private take(source: ModelSource): void {
    this.showSource(source);
    void this.desk.change({model: source});
  }

  private showSource(source: ModelSource): void {
    this.asked = source;
    if ('url' in source) this.choose('bundled');
    else if ('files' in source) this.choose('own');
    else if (knownModel(source.address)) this.choose(source.address);
    else {
      this.address.value = source.address;
      this.choose('address');
    }
  }

  private showModel(model: ModelInfo | undefined): void {
    const {deviceMemory} = navigator as Navigator & {deviceMemory?: number};
    byId('model-info').textContent =
      model === undefined ? '' : describeModel({...model, maxLength: model.contextLength});
    byId('model-fits').textContent = model === undefined ? '' : describeFit(model, deviceMemory);
  }

  private takeTyped(): void {
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
    this.takeAddress(address);
  }

  private showStopped(): void {
    const {stopped} = this;
    byId('stopped-load').hidden = stopped === undefined || this.desk.activity === 'preparing';
    if (stopped === undefined || !('address' in stopped)) return;
    const kept = this.stored.find(({addresses}) => addresses.includes(stopped.address));
    byId('stopped-load-words').textContent =
      `Loading ${knownModel(stopped.address)?.name ?? stopped.address} was stopped` +
      (kept === undefined ? '.' : `; ${formatBytes(kept.bytes)} of it are kept.`);
  }

  private choose(value: string): void {
    this.select.value = value;
    this.showParts();
  }

  private showParts(): void {
    const {value} = this.select;
    const known = knownModel(value);
    byId('model-files-part').hidden = value !== 'own';
    byId('model-address-part').hidden = value !== 'address';
    byId('model-known-part').hidden = known === undefined;
    if (known === undefined) return;
    const {backend}: Pick<Machine, 'backend'> = this.desk.session.machine ?? {backend: 'webgpu'};
    const isStored = this.stored.some(({complete, addresses}) => complete && addresses.includes(value));
    byId('model-known-words').textContent = `${describeKnown(known, backend, isStored)}.`;
    this.load.textContent = isStored ? 'Load' : 'Download and load';
    const {model} = this.desk.session.wish;
    this.load.hidden = 'address' in model && model.address === value && this.desk.session.isReady;
  }
}
