import type {StoredModel} from '../engine/protocol';
import {byId, element} from './dom';
import type {DeskUser, EngineDesk} from './engine_desk';
import {formatBytes} from './format';
import {knownModel} from './known_models';

export interface StorageEvents {
  onList(stored: readonly StoredModel[]): void;
  onLoad(address: string): void;
}

/** The models that this browser keeps, what they take, and a way to delete each. */
export class StoragePanel implements DeskUser {
  private readonly list = byId<HTMLUListElement>('storage-list');
  private lists = 0;

  constructor(
    private readonly desk: EngineDesk,
    private readonly events: StorageEvents,
  ) {
    byId('storage').addEventListener('toggle', () => void this.refresh());
  }

  onMachine(): void {
    void this.refresh();
  }

  onIdle(): void {
    void this.refresh();
  }

  private async refresh(): Promise<void> {
    if (!this.desk.host.isOpen) return;
    const mine = ++this.lists;
    try {
      const stored = await this.desk.host.call((engine) => engine.listStored());
      if (mine === this.lists) this.show(stored);
    } catch (error) {
      // As in a private window: there is nothing to list then, and a load says why.
      if (mine === this.lists) byId('storage-note').textContent = `Nothing can be kept: ${(error as Error).message}`;
    }
  }

  private show(stored: readonly StoredModel[]): void {
    const bytes = stored.reduce((sum, model) => sum + model.bytes, 0);
    byId('storage-summary').textContent = stored.length === 0 ? 'none' : `${stored.length}, ${formatBytes(bytes)}`;
    byId('storage-note').textContent =
      stored.length === 0
        ? 'Models by name or address are kept here when they are loaded.'
        : 'The browser may clear them when the disk is full.';
    this.list.replaceChildren(...stored.map((model) => this.item(model)));
    this.events.onList(stored);
  }

  private item(model: StoredModel): HTMLLIElement {
    const {id, bytes, complete, addresses} = model;
    const known = addresses.map(knownModel).find((found) => found !== undefined);
    const name = known?.name ?? model.name;
    const words = `${formatBytes(bytes)}${complete ? '' : ', not whole yet'}`;
    const load = element(
      'button',
      {type: 'button', className: 'quiet small', 'aria-label': `${complete ? 'Load' : 'Go on with'} ${name}`},
      complete ? 'Load' : 'Go on',
    );
    load.addEventListener('click', () => this.events.onLoad(known?.address ?? addresses[0]));
    const remove = element(
      'button',
      {type: 'button', className: 'quiet small', 'aria-label': `Delete ${name}`},
      'Delete',
    );
    remove.addEventListener('click', () => void this.delete(id, name));
    const loads = addresses.length === 0 ? [] : [load];
    return element(
      'li',
      {},
      element('span', {className: 'chip-name'}, name),
      element('span', {className: 'chip-detail'}, words),
      ...loads,
      remove,
    );
  }

  private async delete(id: string, name: string): Promise<void> {
    const note = byId('storage-note');
    try {
      await this.desk.host.call((engine) => engine.deleteStored(id));
      await this.refresh();
      note.textContent = `${name} is deleted.`;
    } catch (error) {
      note.textContent = (error as Error).message;
    }
    // Its button is gone.
    byId('storage').querySelector('summary')!.focus();
  }
}
