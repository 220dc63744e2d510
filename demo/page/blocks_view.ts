import type {BlockPicture, KeptBlocks} from '../engine/protocol';
import {describeMask, type MarkName} from './block_marks';
import {byId, element} from './dom';
import {formatPercent} from './format';
import type {Head} from './heat_map_chart';
import {loadCharts, nextTask} from './load_charts';
import {onLookChange} from './redraw';

export type ReadPicture = (head: Head) => Promise<BlockPicture>;

/** One run's kept blocks. */
interface Shown {
  kept: KeptBlocks;
  layers: number;
  read: ReadPicture;
  chosen: Head;
  picture?: BlockPicture;
}

const LEGEND: Array<[MarkName, string]> = [
  ['kept', 'kept'],
  ['skipped', 'skipped'],
  ['needleKept', 'holds the fact, kept'],
  ['needleSkipped', 'holds the fact, skipped'],
];

/** Two pictures stand beside each other where each gets at least this, in pixels. */
const MIN_PICTURE = 300;
const MAX_PICTURE = 480;

/** Blocks that the last run kept: overall, by head, and the mask of one head. */
export class BlocksView {
  private readonly section = byId('blocks');
  private readonly layer = byId<HTMLSelectElement>('layer');
  private readonly head = byId<HTMLSelectElement>('head');
  private readonly area = byId('picture');
  private shown?: Shown;

  constructor() {
    const chooseBySelect = () => {
      void this.choose({layer: Number(this.layer.value), head: Number(this.head.value)});
      void this.drawHeads();
    };
    this.layer.addEventListener('input', chooseBySelect);
    this.head.addEventListener('input', chooseBySelect);
    onLookChange(() => {
      void this.drawHeads();
      void this.drawPicture();
    });
  }

  clear(): void {
    this.shown = undefined;
    this.section.hidden = true;
    this.area.replaceChildren();
    byId('heads').replaceChildren();
  }

  show(kept: KeptBlocks, layers: number, read: ReadPicture): void {
    this.section.hidden = false;
    byId('blocks-kept').textContent = describeKept(kept, layers);
    const hasHeads = kept.heads.length > 0;
    for (const id of ['picture-title', 'picture', 'heads']) byId(id).hidden = !hasHeads;
    this.layer.closest<HTMLElement>('.settings')!.hidden = !hasHeads;
    if (!hasHeads) return;
    this.shown = {kept, layers, read, chosen: typicalHead(kept)};
    this.layer.replaceChildren(...numbered(kept.heads.length));
    this.head.replaceChildren(...numbered(kept.heads[0].length));
    void this.drawHeads();
    void this.choose(this.shown.chosen);
  }

  private async choose(chosen: Head): Promise<void> {
    const {shown} = this;
    if (shown === undefined) return;
    shown.chosen = chosen;
    this.layer.value = String(chosen.layer);
    this.head.value = String(chosen.head);
    try {
      const picture = await shown.read(chosen);
      // Another run, or another head, may have been chosen meanwhile.
      if (this.shown !== shown || shown.chosen !== chosen) return;
      shown.picture = picture;
      byId('picture-words').textContent =
        `Layer ${chosen.layer + 1}, head ${chosen.head + 1}. ` +
        `Keys in their order: ${describeMask(picture, picture.unpermuted)} ` +
        `Keys sorted: ${describeMask(picture, picture.permuted)}`;
      await this.drawPicture();
    } catch (error) {
      if (this.shown !== shown || shown.chosen !== chosen) return;
      const words =
        (error as Error).name === 'AbortError'
          ? 'The engine was started anew since this run. Ask again to see its blocks.'
          : `The blocks of this head cannot be shown: ${(error as Error).message}`;
      shown.picture = undefined;
      byId('picture-words').textContent = '';
      this.area.replaceChildren(element('p', {className: 'waiting'}, words));
    }
  }

  private async drawHeads(): Promise<void> {
    const {shown} = this;
    if (shown === undefined) return;
    const {heatMapChart} = await loadCharts();
    if (this.shown !== shown) return;
    const place = byId('heads');
    const chart = heatMapChart(shown.kept.heads, {
      width: Math.min(place.clientWidth, 80 + 96 * shown.kept.heads[0].length),
      chosen: shown.chosen,
      onChoose: (head) => void this.choose(head),
    });
    place.replaceChildren(
      chart,
      element(
        'p',
        {className: 'note ramp', 'aria-hidden': 'true'},
        '0%',
        element('span', {className: 'ramp-colours'}),
        '100% of the blocks kept',
      ),
    );
  }

  private async drawPicture(): Promise<void> {
    const {shown} = this;
    if (shown?.picture === undefined) return;
    const {blockPictureChart, MARK_COLOURS} = await loadCharts();
    const {picture} = shown;
    if (this.shown !== shown || picture === undefined) return;
    const room = this.area.clientWidth;
    const width = Math.min(MAX_PICTURE, room >= 2 * MIN_PICTURE + 16 ? (room - 16) / 2 : room);
    const figure = (title: string, mask: BlockPicture['permuted']) =>
      element(
        'figure',
        {},
        element('figcaption', {}, element('strong', {}, title), ' ', describeMask(picture, mask)),
        blockPictureChart(picture, mask, width) as HTMLElement,
      );
    const unpermuted = figure('Keys in their order.', picture.unpermuted);
    await nextTask();
    const permuted = figure('Keys sorted.', picture.permuted);
    if (this.shown !== shown || picture !== shown.picture) return;
    const hasMarks = picture.question.length > 0;
    const legend = LEGEND.filter(([name]) => hasMarks || !name.startsWith('needle')).map(([name, words]) =>
      legendItem(MARK_COLOURS[name], words),
    );
    if (hasMarks) legend.push(legendItem('--ink', 'at the right edge: holds the question'));
    this.area.replaceChildren(
      element('div', {className: 'pictures'}, unpermuted, permuted),
      element('ul', {className: 'legend', 'aria-label': 'Colours of the picture'}, ...legend),
    );
  }
}

function legendItem(variable: string, words: string): HTMLElement {
  const swatch = element('span', {className: 'swatch', 'aria-hidden': 'true'});
  swatch.style.background = `var(${variable})`;
  return element('li', {}, swatch, words);
}

function numbered(count: number): HTMLOptionElement[] {
  return Array.from({length: count}, (_, index) => new Option(String(index + 1), String(index)));
}

/** The head that kept about as much as all of them together, of those in which the question reads most of the fact. */
function typicalHead({heads, factBlocks, density}: KeptBlocks): Head {
  const all = heads.flatMap((row, layer) => row.map((_, head) => ({layer, head})));
  const most = Math.max(...factBlocks.flat());
  const reading = all.filter(({layer, head}) => factBlocks[layer][head] === most);
  const distance = ({layer, head}: Head) => Math.abs(heads[layer][head] - density);
  return reading.reduce((a, b) => (distance(b) < distance(a) ? b : a));
}

function describeKept({density, heads}: KeptBlocks, layers: number): string {
  const overall = `PBS attention kept ${formatPercent(density)} of the blocks that a query may see, its own segment included.`;
  if (heads.length === layers) return overall;
  const looked = heads.length === 0 ? 'No layer' : `Only ${heads.length} of ${layers} layers`;
  return `${overall} ${looked} could be looked at by head: the memory did not suffice for more.`;
}
