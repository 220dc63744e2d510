import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend, WebGPUProgram} from '@tensorflow/tfjs-backend-webgpu';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {runExtended} from './extended_program.js';
import {launchBounds} from './launches.js';
import type {CompleteSpec, ProgramSpec, Uniforms} from './program_spec.js';

export const i32 = (value: number) => ({type: 'i32' as const, value});
export const f32 = (value: number) => ({type: 'f32' as const, value});

/** By keys of shaders, the uniforms that they name. */
const uniformNames = new Map<string, Set<string>>();

function callUniforms({geometry, causal = false, scale = 1}: Required<ProgramSpec<object>>['call']): Uniforms {
  const sizes = Object.entries({...geometry, queryOffset: causal ? geometry.queryOffset : 0});
  return {
    ...Object.fromEntries(sizes.map(([name, size]) => [name, i32(size)])),
    scale: f32(scale),
    logitScale: f32(scale * Math.LOG2E),
  };
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
  private readonly pipelineKey: string;
  readonly spec: CompleteSpec<Variant>;

  protected constructor({threads = 64, outputComponents = 1, extensions = [], ...spec}: ProgramSpec<Variant>) {
    const {invocations = util.sizeFromShape(spec.outputShape) / outputComponents} = spec;
    const {workgroups = Math.ceil(invocations / threads)} = spec;
    const inputs = Object.fromEntries(
      Object.entries(spec.inputs).flatMap(([name, input]) =>
        input ? [[name, 'tensor' in input ? input : {tensor: input}]] : [],
      ),
    );
    this.variableNames = Object.keys(inputs);
    this.variableComponents = Object.values(inputs).map(({components = 1}) => components);
    this.pipelineKey = `${spec.name} ${JSON.stringify(spec.variant)} ${this.variableComponents}`;
    this.shaderKey = this.pipelineKey;
    const uniforms = this.namedUniforms(spec.variant, {
      ...(spec.call && callUniforms(spec.call)),
      ...spec.uniforms,
      invocations: i32(invocations),
      firstWorkgroup: i32(0),
    });
    this.spec = {outputType: 'float32', ...spec, threads, workgroups, extensions, outputComponents, inputs, uniforms};
    this.outputShape = spec.outputShape;
    this.outputComponent = outputComponents;
    this.uniforms = Object.entries(uniforms)
      .map(([name, {type}]) => `${name} : ${type}, `)
      .join('');
    this.workgroupSize = [threads, 1, 1];
    this.dispatch = [workgroups, 1, 1];
    this.dispatchLayout = {x: spec.outputShape.map((_, i) => i)};
  }

  /** Those of them that the shader names. Texts are long, and a program is made for each call: so each is looked at once. */
  private namedUniforms(variant: Variant, uniforms: Uniforms): Uniforms {
    let names = uniformNames.get(this.pipelineKey);
    if (!names) {
      names = new Set(Array.from(this.shader(variant).matchAll(/\buniforms\.(\w+)/g), ([, name]) => name));
      uniformNames.set(this.pipelineKey, names);
    }
    return Object.fromEntries(Object.entries(uniforms).filter(([name]) => names.has(name)));
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
    // tfjs has lengthened the key of the launch before.
    this.shaderKey = this.pipelineKey;
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
