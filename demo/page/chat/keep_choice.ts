import type {AttentionName, ModelInfo, ModelSource} from '../../engine/protocol';
import {byId} from '../dom';
import {formatBytes} from '../format';
import {knownModel} from '../known_models';

/** Whether what is read of the document is to be kept in this browser; offered with a document, where that is possible. */
export class KeepChoice {
  private readonly box = byId<HTMLInputElement>('keep');
  private model?: ModelInfo;
  private modelName = '';

  constructor() {
    this.box.addEventListener('change', () => {
      // Asked on the user's click, and of a window: the worker that keeps it cannot.
      if (this.box.checked) void navigator.storage?.persist?.();
    });
  }

  setModel(model: ModelInfo, source: ModelSource): void {
    this.model = model;
    this.modelName = nameOf(source);
  }

  /** @param tokens of the document; nothing where there is none. */
  show(tokens: number | undefined, attentions: readonly AttentionName[]): void {
    const {model} = this;
    const isOffered = tokens !== undefined && model?.canKeep === true;
    byId('keep-part').hidden = !isOffered;
    if (!isOffered) return;
    const bytes = attentions.length * tokens * model.cacheBytesPerToken;
    byId('keep-words').textContent = `Keep what was read in this browser, about ${formatBytes(bytes)}`;
  }

  /** What the user has deleted is not to come again with the next answer. */
  clear(): void {
    this.box.checked = false;
  }

  /** What a request says of it. */
  of(documentName: string, attention: AttentionName): {keep?: boolean; keptAs?: string} {
    if (!this.box.checked || byId('keep-part').hidden) return {};
    const way = attention === 'exact' ? 'exact' : 'sparse';
    return {keep: true, keptAs: `what was read of ${documentName}, by ${this.modelName} (${way} attention)`};
  }
}

function nameOf(source: ModelSource): string {
  if ('url' in source) return 'the built-in model';
  if ('address' in source) return knownModel(source.address)?.name ?? source.address;
  const weights = source.files.find(({name}) => /\.(gguf|safetensors)$/.test(name));
  return weights?.name ?? 'your model';
}
