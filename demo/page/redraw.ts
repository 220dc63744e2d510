import {debounce} from './dom';

/** Calls `draw` when colours or the width of the page have changed. */
export function onLookChange(draw: () => void): void {
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  let width = document.documentElement.clientWidth;
  const later = debounce(draw, 150);
  addEventListener('resize', () => {
    // A phone's address bar that slides away changes the height alone.
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    later();
  });
}
