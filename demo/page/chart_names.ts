/**
 * Gives a chart its role and name for screen readers. The names that Plot gives to marks and axes are taken away: they
 * say "rect" and "y-axis tick", and not on elements that may have a name.
 */
export function nameChart(chart: Element, role: 'img' | 'radiogroup', name: string): void {
  for (const part of chart.querySelectorAll('[aria-label]')) part.removeAttribute('aria-label');
  chart.setAttribute('role', role);
  chart.setAttribute('aria-label', name);
}
