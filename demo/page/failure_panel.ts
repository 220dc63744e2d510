import {byId, element} from './dom';
import type {Failure, Recovery} from './failures';

/** What went wrong, what to do, and buttons that do it. */
export class FailurePanel {
  private readonly panel = byId('failure');

  constructor(private readonly onRecover: (recovery: Recovery) => void) {}

  show({title, advice, detail, recoveries}: Failure): void {
    const buttons = recoveries.map((recovery, index) => {
      const button = element('button', {type: 'button', className: index === 0 ? '' : 'quiet'}, recovery.label);
      button.addEventListener('click', () => this.onRecover(recovery));
      return button;
    });
    this.panel.replaceChildren(
      element('h3', {}, title),
      element('p', {className: 'detail'}, detail),
      element('p', {}, advice),
      element('div', {className: 'actions'}, ...buttons),
    );
  }

  clear(): void {
    this.panel.replaceChildren();
  }
}
