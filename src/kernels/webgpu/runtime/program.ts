import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend, WebGPUProgram} from '@tensorflow/tfjs-backend-webgpu';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import type {ShaderExtension} from './extended_program.js';
import {runExtended} from './extended_program.js';

/** What a compute program needs beyond its shader. */
export interface ProgramSpec<Variant> {
  /** What it computes: tells its pipelines apart from those of other programs, whatever a minifier makes of class names. */
  name: string;
  /**
   * Input tensors by their names in the shader, with the number of components an element is read as. A tensor of float16
   * pairs, which tfjs knows as int32, can be read as float16 by a shader that enables it.
   */
  inputs: Record<string, {tensor: TensorInfo; components: 1 | 4; element?: 'f16'}>;
  outputShape: number[];
  outputType: DataType;
  /** Components an element of `result` is written as; 1 unless given. */
  outputComponents?: 1 | 4;
  /** Invocations a workgroup. */
  threads: number;
  /** Workgroups wanted. tfjs may launch more: the shader checks `workgroupIndex()`. */
  workgroups: number;
  /** Scalars that may change without a new shader. */
  uniforms: Record<string, {type: 'i32' | 'f32'; value: number}>;
  /** Everything that changes the text of the shader. */
  variant: Variant;
  /** WGSL extensions that the shader enables; the device has their features. */
  extensions?: ShaderExtension[];
}

/**
 * Base of the programs of this folder. A subclass is named after what it computes (tfjs's profiler shows that name) and
 * writes its shader from its variant alone: tfjs caches pipelines by `shaderKey`, and a difference that the key does not
 * show would run the wrong shader.
 */
export abstract class AttentionProgram<Variant extends object> implements WebGPUProgram {
  readonly variableNames: string[];
  readonly variableComponents: number[];
  readonly outputShape: number[];
  readonly outputComponent: number;
  readonly uniforms: string;
  readonly workgroupSize: [number, number, number];
  readonly dispatchLayout: {x: number[]};
  dispatch: [number, number, number];
  shaderKey: string;

  protected constructor(protected readonly spec: ProgramSpec<Variant>) {
    this.variableNames = Object.keys(spec.inputs);
    this.variableComponents = Object.values(spec.inputs).map(({components}) => components);
    this.outputShape = spec.outputShape;
    this.outputComponent = spec.outputComponents ?? 1;
    this.uniforms = Object.entries(spec.uniforms)
      .map(([name, {type}]) => `${name} : ${type}, `)
      .join('');
    this.workgroupSize = [spec.threads, 1, 1];
    this.dispatch = [spec.workgroups, 1, 1];
    this.dispatchLayout = {x: spec.outputShape.map((_, i) => i)};
    this.shaderKey = `${spec.name} ${JSON.stringify(spec.variant)} ${this.variableComponents}`;
  }

  getUserCode(): string {
    return this.shader(this.spec.variant);
  }

  /** The shader's text after tfjs's own declarations; it defines `main`. */
  protected abstract shader(variant: Variant): string;

  run(backend: WebGPUBackend): TensorInfo {
    const {inputs, outputType, uniforms, extensions} = this.spec;
    if (extensions) {
      return runExtended(backend, this, this.spec, extensions);
    }
    return backend.runWebGPUProgram(
      this,
      Object.values(inputs).map(({tensor}) => tensor),
      outputType,
      Object.values(uniforms).map(({type, value}) => ({type: type === 'i32' ? 'int32' : 'float32', data: [value]})),
    );
  }
}

/** tfjs folds a long dispatch into two or three dimensions; this is the index in the line that was asked for. */
export const workgroupIndex = `
fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}`;

/**
 * The row of `key` and `value` (seen as `[rows, headDim]`) that query head `head` of `[batch * heads]` reads at a
 * position. Grouped heads read the same row; nothing is repeated.
 */
export const keyRow = `
fn keyRow(head : i32, heads : i32, position : i32) -> i32 {
  let keyHeads = uniforms.keyShape.y;
  let keyHead = (head / heads) * keyHeads + (head % heads) / (heads / keyHeads);
  return keyHead * uniforms.keyShape.z + position;
}`;

/** Number of vec4 that hold a row of `headDim` values. */
export function headVectors(headDim: number): number {
  return Math.ceil(headDim / 4);
}

/** Components in which rows of `headDim` values can be read and written: 4 if every row starts at a vec4. */
export function rowComponents(headDim: number): 1 | 4 {
  return headDim % 4 === 0 ? 4 : 1;
}

/** A function that reads four values of a row, from value `4 * vector` on; zeros stand where the row has ended. */
export function readRow(name: string, tensor: string, headDim: number): string {
  const read = `fn ${name}(row : i32, vector : i32) -> vec4<f32>`;
  if (rowComponents(headDim) === 4) {
    return `${read} { return ${tensor}[row * ${headVectors(headDim)} + vector]; }`;
  }
  const value = (i: number) =>
    `select(0.0, ${tensor}[row * ${headDim} + 4 * vector + ${i}], 4 * vector + ${i} < ${headDim})`;
  return `${read} { return vec4<f32>(${[0, 1, 2, 3].map(value).join(', ')}); }`;
}

/** A function that writes four values of a row of `result`, from value `4 * vector` on, as far as the row goes. */
export function writeRow(name: string, headDim: number): string {
  const write = `fn ${name}(row : i32, vector : i32, x : vec4<f32>)`;
  if (rowComponents(headDim) === 4) {
    return `${write} { result[row * ${headVectors(headDim)} + vector] = x; }`;
  }
  return `${write} {
  for (var i = 0; i < min(4, ${headDim} - 4 * vector); i++) {
    result[row * ${headDim} + 4 * vector + i] = x[i];
  }
}`;
}

/** Runs `body` and frees the tensors that it hands to `scratch`, and those of `keep` if it throws. */
export function withScratch<T>(
  backend: WebGPUBackend,
  body: (scratch: Take<TensorInfo>, keep: Take<TensorInfo>) => T,
): T {
  return runWithScratch(({dataId}: TensorInfo) => void backend.disposeData(dataId), body);
}
