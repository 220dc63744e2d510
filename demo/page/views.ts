import {byId} from './dom';

export const VIEW_NAMES = ['chat', 'fact', 'device'] as const;

/** What the page is used for, by its tabs and the address's hash. */
export type ViewName = (typeof VIEW_NAMES)[number];

/** The view that a hash names, alone or before what it is to show; nothing for another one. */
function viewOfHash(hash: string): ViewName | undefined {
  return VIEW_NAMES.find((name) => hash === `#${name}` || hash.startsWith(`#${name}=`));
}

/** Tabs as ARIA's patterns describe them: one is in the order of the Tab key, arrow keys go to the others. */
export class Views {
  private shown: ViewName;

  /** @param first shown where the address names none. */
  constructor(
    first: ViewName,
    private readonly onShow: (view: ViewName) => void,
  ) {
    this.shown = viewOfHash(location.hash) ?? first;
    for (const name of VIEW_NAMES) {
      const tab = tabOf(name);
      // A link's own work is done by Enter; a tab takes the space bar too.
      tab.addEventListener('keydown', (event) => {
        const target = event.key === ' ' ? name : this.neighbour(event.key);
        if (target === undefined) return;
        event.preventDefault();
        location.hash = target;
        tabOf(target).focus();
      });
    }
    addEventListener('hashchange', () => this.show(viewOfHash(location.hash) ?? first));
    this.show(this.shown);
  }

  get current(): ViewName {
    return this.shown;
  }

  private show(view: ViewName): void {
    this.shown = view;
    for (const name of VIEW_NAMES) {
      const isShown = name === view;
      tabOf(name).setAttribute('aria-selected', String(isShown));
      tabOf(name).tabIndex = isShown ? 0 : -1;
      byId(`${name}-view`).hidden = !isShown;
    }
    // How the engine is doing is said beside what it is used for.
    byId(`${view}-state`).append(byId('engine-state'));
    this.onShow(view);
  }

  private neighbour(key: string): ViewName | undefined {
    const at = VIEW_NAMES.indexOf(this.shown);
    const last = VIEW_NAMES.length - 1;
    const to = {ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last}[key];
    return to === undefined ? undefined : VIEW_NAMES[to];
  }
}

const tabOf = (name: ViewName) => byId<HTMLAnchorElement>(`${name}-tab`);
