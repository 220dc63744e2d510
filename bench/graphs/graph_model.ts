import {readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import {type GraphModel, loadGraphModel} from '@tensorflow/tfjs-converter';

/** A graph model of this disk, by the path of its `model.json`. */
export async function readGraphModel(path: string): Promise<tf.io.ModelArtifacts> {
  const json = JSON.parse(readFileSync(path, 'utf8')) as tf.io.ModelJSON;
  return tf.io.getModelArtifactsForJSON(json, (manifest) => {
    const files = manifest.flatMap(({paths}) => paths.map((name) => readFileSync(join(dirname(path), name))));
    const specs = manifest.flatMap(({weights}) => weights);
    return Promise.resolve([specs, Uint8Array.from(Buffer.concat(files)).buffer]);
  });
}

export const loadArtifacts = (artifacts: tf.io.ModelArtifacts): Promise<GraphModel> =>
  loadGraphModel(tf.io.fromMemory(artifacts));

/** Random inputs, whatever they are: a batch of 1, and `length` where the model takes any. */
export function feedsOf({inputs}: GraphModel, length: number): tf.NamedTensorMap {
  return Object.fromEntries(
    inputs.map(({name, shape = [], dtype}) => {
      const sizes = shape.map((size, axis) => (size >= 0 ? size : axis === 0 ? 1 : length));
      const numbers = dtype === 'float32' ? tf.randomNormal(sizes, 0, 1, 'float32', 1) : tf.ones(sizes, dtype);
      return [name, dtype === 'int32' ? tf.randomUniform(sizes, 1, 60, 'int32', 1) : numbers];
    }),
  );
}
