import type {TensorInfo} from '@tensorflow/tfjs-core';
import type {WebGPUBackend, WebGPUProgram} from '@tensorflow/tfjs-backend-webgpu';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {runExtended} from './extended_program.js';
import {launchBounds} from './launches.js';
import type {CompleteSpec, ProgramSpec} from './program_spec.js';

export const i32 = (value: number) => ({type: 'i32' as const, value});
export const f32 = (value: number) => ({type: 'f32' as const, value});

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
  readonly spec: CompleteSpec<Variant>;

  protected constructor(spec: ProgramSpec<Variant>) {
    const uniforms = {...spec.uniforms, ...(spec.work && {firstWorkgroup: i32(0)})};
    this.spec = {outputType: 'float32', outputComponents: 1, extensions: [], ...spec, uniforms};
    this.variableNames = Object.keys(spec.inputs);
    this.variableComponents = Object.values(spec.inputs).map(({components = 1}) => components);
    this.outputShape = spec.outputShape;
    this.outputComponent = this.spec.outputComponents;
    this.uniforms = Object.entries(uniforms)
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
    const {workgroups, work = {time: 0, lightest: 1}, uniforms, outputShape, outputType} = this.spec;
    const [, ...ends] = launchBounds(workgroups, work);
    return withScratch(backend, (_, keep) => {
      const output = keep(backend.makeTensorInfo(outputShape, outputType));
      let first = 0;
      for (const end of ends.filter((end, i) => end > (ends[i - 1] ?? 0))) {
        if (uniforms.firstWorkgroup) {
          uniforms.firstWorkgroup.value = first;
        }
        this.launch(backend, end - first, output);
        if (ends.length > 1) {
          backend.endComputePassEncoder();
          backend.submitQueue();
        }
        first = end;
      }
      return output;
    });
  }

  private launch(backend: WebGPUBackend, workgroups: number, output: TensorInfo): void {
    const {inputs, outputType, uniforms, extensions} = this.spec;
    if (extensions.length > 0) {
      runExtended(backend, this, workgroups, output);
      return;
    }
    this.dispatch = [workgroups, 1, 1];
    backend.runWebGPUProgram(
      this,
      Object.values(inputs).map(({tensor}) => tensor),
      outputType,
      Object.values(uniforms).map(({type, value}) => ({type: type === 'i32' ? 'int32' : 'float32', data: [value]})),
      output,
    );
  }
}

/** Runs `body` and frees the tensors that it hands to `scratch`, and those of `keep` if it throws. */
export function withScratch<T>(
  backend: WebGPUBackend,
  body: (scratch: Take<TensorInfo>, keep: Take<TensorInfo>) => T,
): T {
  return runWithScratch(({dataId}: TensorInfo) => void backend.disposeData(dataId), body);
}
