import {dispose, type io, type NamedTensorMap, type Tensor} from '@tensorflow/tfjs-core';
import type {GraphModel} from '@tensorflow/tfjs-converter';
import {timeInTurns} from '../call_timing';
import type {Clock} from '../device';
import type {Timing} from '../statistics';
import {feedsOf, loadArtifacts} from './graph_model';

export interface GraphComparison {
  /** Shapes of the inputs. */
  inputs: string;
  before: Timing;
  after: Timing;
  /** Largest difference of an output, and the largest magnitude of that output before. */
  difference: number;
  magnitude: number;
}

/**
 * Runs a model before and after on the same random inputs, in turns.
 *
 * @param length of an input's axes that may have any.
 * @param seconds about how long the timings of each take.
 */
export async function compareGraphs(
  clock: Clock,
  [before, after]: readonly [io.ModelArtifacts, io.ModelArtifacts],
  length: number,
  seconds: number,
): Promise<GraphComparison> {
  const graphs = [await loadArtifacts(before), await loadArtifacts(after)];
  const feeds = feedsOf(graphs[0], length);
  try {
    const outputs = [await valuesOf(graphs[0], feeds), await valuesOf(graphs[1], feeds)];
    const calls = graphs.map((graph) => () => outputsOf(graph, feeds)[0]);
    const [timeBefore, timeAfter] = await timeInTurns(clock, calls, seconds);
    const inputs = Object.values(feeds).map(({shape}) => shape.join(' × '));
    return {inputs: inputs.join(', '), before: timeBefore, after: timeAfter, ...largestDifference(outputs)};
  } finally {
    dispose(feeds);
    graphs.forEach((graph) => graph.dispose());
  }
}

function outputsOf(graph: GraphModel, feeds: NamedTensorMap): Tensor[] {
  return [graph.execute(feeds)].flat();
}

async function valuesOf(graph: GraphModel, feeds: NamedTensorMap): Promise<Float32Array[]> {
  const outputs = outputsOf(graph, feeds);
  const values: Float32Array[] = [];
  for (const output of outputs) values.push(Float32Array.from(await output.data()));
  dispose(outputs);
  return values;
}

function largestDifference([before, after]: Float32Array[][]): Pick<GraphComparison, 'difference' | 'magnitude'> {
  const perOutput = before.map((values, output) => {
    let difference = 0;
    let magnitude = 0;
    for (let i = 0; i < values.length; ++i) {
      const other = after[output][i];
      // NaN on one side alone is no agreement.
      const apart = Object.is(values[i], other) ? 0 : Math.abs(values[i] - other);
      difference = Math.max(difference, Number.isNaN(apart) ? Infinity : apart);
      magnitude = Math.max(magnitude, Math.abs(values[i]));
    }
    return {difference, magnitude};
  });
  return perOutput.reduce((most, output) => (output.difference > most.difference ? output : most));
}
