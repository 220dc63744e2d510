type Child = Node | string;

/** The element with this id; its absence is a fault of the page. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no element "${id}"`);
  return found as T;
}

/** An element with properties (attributes where the name has a hyphen) and children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> & Record<string, unknown> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-')) made.setAttribute(name, String(value));
    else Object.assign(made, {[name]: value});
  }
  made.append(...children);
  return made;
}

/** Calls `run` once the calls have paused for `ms`. `cancel` forgets a call that waits, `flush` does not let it wait. */
export function debounce(run: () => void, ms: number): {(): void; cancel(): void; flush(): void} {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const cancel = () => {
    clearTimeout(timer);
    timer = undefined;
  };
  const flush = () => {
    if (timer === undefined) return;
    cancel();
    run();
  };
  return Object.assign(
    () => {
      cancel();
      timer = setTimeout(flush, ms);
    },
    {cancel, flush},
  );
}
