/** The charts with the library that draws them, loaded once; each caller draws in a task of its own. */
export async function loadCharts(): Promise<typeof import('./charts')> {
  const charts = await import('./charts');
  await nextTask();
  return charts;
}

/** Lets the browser draw and answer between two pieces of work. */
export function nextTask(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
