import type {Remote} from 'comlink';
import type {Engine, StoredModel} from '../engine/protocol';
import {byId, element} from './dom';
import type {DeskUser, EngineDesk} from './engine_desk';
import {formatBytes} from './format';
import {knownModel} from './known_models';

export interface StorageEvents {
  onList(stored: readonly StoredModel[]): void;
  onLoad(address: string): void;
  /** What was read of a document is deleted. */
  onKeptDeleted(): void;
}

/** The models that this browser keeps, and what was read of documents, what they take, and a way to delete each. */
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
      const [stored, kept] = await this.desk.host.call((engine) =>
        Promise.all([engine.listStored(), engine.listKept()]),
      );
      if (mine === this.lists) this.show(stored, kept);
    } catch (error) {
      // As in a private window: there is nothing to list then, and a load says why.
      if (mine === this.lists) byId('storage-note').textContent = `Nothing can be kept: ${(error as Error).message}`;
    }
  }

  private show(stored: readonly StoredModel[], kept: readonly StoredModel[]): void {
    const all = [...stored, ...kept];
    const bytes = all.reduce((sum, item) => sum + item.bytes, 0);
    byId('storage-summary').textContent = all.length === 0 ? 'none' : `${all.length}, ${formatBytes(bytes)}`;
    byId('storage-note').textContent =
      all.length === 0
        ? 'Models by name or address are kept here when they are loaded, and what was read of a document where you say so.'
        : 'The browser may clear them when the disk is full.';
    this.list.replaceChildren(
      ...stored.map((model) => this.modelItem(model)),
      ...kept.map(({id, name, bytes, complete}) => {
        // One whose tab was closed while it was written, too.
        return this.item(name, bytes, complete, () =>
          this.delete(name, async (engine) => {
            await engine.deleteKept(id);
            this.events.onKeptDeleted();
          }),
        );
      }),
    );
    this.events.onList(stored);
  }

  private modelItem({id, name: address, bytes, complete, addresses}: StoredModel): HTMLLIElement {
    const known = addresses.map(knownModel).find((found) => found !== undefined);
    const name = known?.name ?? address;
    const load = element(
      'button',
      {type: 'button', className: 'quiet small', 'aria-label': `${complete ? 'Load' : 'Go on with'} ${name}`},
      complete ? 'Load' : 'Go on',
    );
    load.addEventListener('click', () => this.events.onLoad(known?.address ?? addresses[0]));
    const remove = () => this.delete(name, (engine) => engine.deleteStored(id));
    return this.item(name, bytes, complete, remove, ...(addresses.length === 0 ? [] : [load]));
  }

  private item(
    name: string,
    bytes: number,
    complete: boolean,
    onDelete: () => Promise<void>,
    ...others: HTMLButtonElement[]
  ): HTMLLIElement {
    const remove = element(
      'button',
      {type: 'button', className: 'quiet small', 'aria-label': `Delete ${name}`},
      'Delete',
    );
    remove.addEventListener('click', () => void onDelete());
    return element(
      'li',
      {},
      element('span', {className: 'chip-name'}, name),
      element('span', {className: 'chip-detail'}, `${formatBytes(bytes)}${complete ? '' : ', not whole yet'}`),
      ...others,
      remove,
    );
  }

  private async delete(name: string, run: (engine: Remote<Engine>) => Promise<void>): Promise<void> {
    const note = byId('storage-note');
    try {
      await this.desk.host.call(run);
      await this.refresh();
      note.textContent = `${name} is deleted.`;
    } catch (error) {
      note.textContent = (error as Error).message;
    }
    // Its button is gone.
    byId('storage').querySelector('summary')!.focus();
  }
}
