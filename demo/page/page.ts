import {ChatView} from './chat/chat_view';
import {DeviceView} from './device/device_view';
import {byId} from './dom';
import {sortDropped, takeDrops} from './dropped_files';
import {EngineDesk} from './engine_desk';
import {FactView} from './fact_view';
import {describeMachine} from './format';
import {BUNDLED, ModelPanel} from './model_panel';
import {hasFactSettings, readSettings, writeSettings, type Settings} from './settings';
import {StoragePanel} from './storage_panel';
import {bookSource} from './text_panel';
import {Views} from './views';

/** Binds the page's parts together. `createWorker` makes a worker that answers as an `Engine`. */
export function startPage(createWorker: () => Worker): void {
  const query = new URLSearchParams(location.search);
  const {settings, ignored} = readSettings(query);
  const first = hasFactSettings(query) ? 'fact' : 'chat';

  const desk: EngineDesk = new EngineDesk(
    createWorker,
    {backend: settings.backend, model: BUNDLED, text: bookSource(settings.book)},
    () => ({view: views.current, ...(views.current !== 'device' && {shorter: fact.shorter})}),
  );
  const fact: FactView = new FactView(desk, settings, showAddress);
  const chat = new ChatView(desk);
  const models = new ModelPanel(desk);
  const storage = new StoragePanel(desk, {
    onList: (stored) => models.showStored(stored),
    onLoad: (address) => models.takeAddress(address),
    onKeptDeleted: () => chat.onKeptDeleted(),
  });
  const device = new DeviceView(desk);
  const views: Views = new Views(first, (view) => {
    if (view === 'chat') chat.onShow();
    else if (view === 'device') device.onShow();
  });
  const current = () => ({chat, fact, device})[views.current];

  const backends = byId<HTMLSelectElement>('backend');
  const changeBackend = (backend: Settings['backend']) => {
    backends.value = backend;
    byId('machine').textContent = 'Looking for a backend…';
    fact.setSettings({backend});
    void desk.change({backend});
  };
  backends.value = settings.backend;
  backends.addEventListener('input', () => changeBackend(backends.value as Settings['backend']));

  desk.join({
    onMachine(machine) {
      byId('machine').textContent = describeMachine(machine);
      byId('software').hidden = !machine.software;
    },
    recover(recovery) {
      current().focus();
      if (recovery.action === 'switch backend') changeBackend(recovery.backend);
    },
  });
  [models, storage, fact, chat, device].forEach((user) => desk.join(user));

  takeDrops((dropped) => void takeFiles(dropped));

  async function takeFiles(dropped: Promise<File[]>): Promise<void> {
    const sorted = sortDropped(await dropped);
    if (desk.runs) return;
    if (sorted.use === 'model') models.takeFiles(sorted.files);
    else if (sorted.use === 'text') (views.current === 'fact' ? fact : chat).takeFile(sorted.file);
    else {
      desk.showFailure({
        title: 'These files cannot be used here',
        advice: 'Drop something else, or use the file pickers.',
        detail: sorted.why,
        recoveries: [],
      });
    }
  }

  function showAddress(changed: Settings): void {
    const written = writeSettings(changed).toString();
    // With settings of the fact view in it, an address without a view would be of that one.
    const hash = location.hash || (views.current === 'chat' ? '' : '#fact');
    history.replaceState(null, '', `${location.pathname}${written === '' ? '' : `?${written}`}${hash}`);
  }

  if (ignored.length > 0) {
    byId('ignored').textContent = `The address has settings that are not used: ${ignored.join('; ')}.`;
    byId('ignored').hidden = false;
  }
  void desk.prepare();
}
