import * as Plot from '@observablehq/plot';
import type {BlockMask, BlockPicture} from '../engine/protocol';
import {describeMask, Mark, markBlocks, type MarkName} from './block_marks';
import {nameChart} from './chart_names';

/**
 * One head's mask. The blocks are one image with a pixel each, as 512 × 512 of them would be too many elements, stretched to
 * the tokens that they stand for: blocks of queries and keys may differ in size. Axes and what is marked beside them is drawn
 * by Plot.
 */
export function blockPictureChart(picture: BlockPicture, mask: BlockMask, width: number): Element {
  const {blockSize, keyBlockSize, queryBlocks, keyBlocks, question} = picture;
  const [queries, keys] = [queryBlocks * blockSize, keyBlocks * keyBlockSize];
  // One scale for both, or the diagonal would not be one.
  const length = Math.max(queries, keys);
  const rangeOf = (size: number) => (block: number) => ({from: block * size, to: (block + 1) * size});
  const tickFormat = (tokens: number) => (tokens >= 1024 ? `${Number((tokens / 1024).toFixed(1))}k` : String(tokens));
  const isEdge = (tokens: number) => tokens % blockSize === 0 && tokens % keyBlockSize === 0;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * length).filter(isEdge);
  const margins = {marginLeft: 44, marginRight: 14, marginTop: 14, marginBottom: 40};
  const side = width - margins.marginLeft - margins.marginRight;
  const gutter = (6 / side) * length;
  const chart = Plot.plot({
    width,
    height: side + margins.marginTop + margins.marginBottom,
    ...margins,
    style: {fontSize: '12px', background: 'none'},
    x: {domain: [0, length], label: 'Keys, in tokens', labelAnchor: 'center', labelArrow: 'none', ticks, tickFormat},
    y: {
      domain: [length, 0],
      label: 'Queries',
      labelAnchor: 'center',
      labelArrow: 'none',
      ticks,
      tickFormat,
    },
    marks: [
      (_index, scales) => imageOf(picture, mask, [scales.x!(0), scales.y!(0), scales.x!(keys), scales.y!(queries)]),
      Plot.rect(mask.needle.map(rangeOf(keyBlockSize)), {
        x1: 'from',
        x2: 'to',
        y1: -2 * gutter,
        y2: -gutter / 2,
        fill: 'var(--needle)',
        inset: -1,
      }),
      Plot.rect(question.map(rangeOf(blockSize)), {
        y1: 'from',
        y2: 'to',
        x1: length + gutter / 2,
        x2: length + 2 * gutter,
        fill: 'var(--ink)',
        inset: -1,
      }),
      Plot.frame({stroke: 'var(--line)'}),
    ],
  });
  nameChart(chart, 'img', describeMask(picture, mask));
  return chart;
}

/** Style variables of the marks, as in the legend. */
export const MARK_COLOURS: Record<MarkName, string> = {
  unseen: '--card',
  skipped: '--skipped',
  kept: '--kept',
  needleSkipped: '--needle-skipped',
  needleKept: '--needle',
};

function imageOf(picture: BlockPicture, mask: BlockMask, [left, top, right, bottom]: number[]): SVGImageElement {
  const image = document.createElementNS('http://www.w3.org/2000/svg', 'image');
  const attributes = {
    href: drawMarks(picture, mask),
    x: left,
    y: top,
    width: right - left,
    height: bottom - top,
    preserveAspectRatio: 'none',
    style: 'image-rendering: pixelated',
  };
  for (const [name, value] of Object.entries(attributes)) image.setAttribute(name, String(value));
  return image;
}

function drawMarks(picture: BlockPicture, mask: BlockMask): string {
  const canvas = document.createElement('canvas');
  canvas.width = picture.keyBlocks;
  canvas.height = picture.queryBlocks;
  const context = canvas.getContext('2d')!;
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const names = Object.keys(Mark) as MarkName[];
  const colours = names.map((name) => pixelOf(MARK_COLOURS[name]));
  markBlocks(picture, mask).forEach((mark, index) => (pixels[index] = colours[mark]));
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

/** A colour of the style sheet, for the mode that is on, as a pixel of image data. */
function pixelOf(variable: string): number {
  const swatch = document.createElement('span');
  swatch.style.color = `var(${variable})`;
  document.body.append(swatch);
  const [red, green, blue] = getComputedStyle(swatch).color.match(/\d+/g)!.map(Number);
  swatch.remove();
  return new Uint32Array(new Uint8ClampedArray([red, green, blue, 255]).buffer)[0];
}
