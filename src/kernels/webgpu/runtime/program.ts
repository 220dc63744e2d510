import type {TensorInfo} from '@tensorflow/tfjs-core';
import {util} from '@tensorflow/tfjs-core';
import type {WebGPUBackend, WebGPUProgram} from '@tensorflow/tfjs-backend-webgpu';
import type {Take} from '../../../attention/scratch.js';
import {runWithScratch} from '../../../attention/scratch.js';
import {guardOf} from './backend_guard.js';
import type {BoundProgram} from './extended_program.js';
import {isCompiledAhead} from './compile_ahead.js';
import {bindProgram, compileExtended, nameTimer, runExtended} from './extended_program.js';
import {evenWork, launchBounds} from './launches.js';
import type {CompleteSpec, ProgramSpec, Uniforms} from './program_spec.js';

export const i32 = (value: number) => ({type: 'i32' as const, value});
export const f32 = (value: number) => ({type: 'f32' as const, value});

/** Uniforms that a shader names, in the order in which it gets them, and their declaration as tfjs takes it. */
interface UniformLayout {
  names: string[];
  declaration: string;
}

/** By keys of pipelines. Texts are long, and a program is made for each call: so each text is looked at once. */
const uniformLayouts = new Map<string, UniformLayout>();

function layOutUniforms(shader: string, valueOf: (name: string) => Uniforms[string] | undefined): UniformLayout {
  const named = new Set(Array.from(shader.matchAll(/\buniforms\.(\w+)/g), ([, name]) => name));
  // The others are shapes, which tfjs declares.
  const names = [...named].filter((name) => valueOf(name) !== undefined);
  return {names, declaration: names.map((name) => `${name} : ${valueOf(name)!.type}, `).join('')};
}

/** What a shader finds under a name: what its program gives it, a size of the call, or how many there are of what. */
function uniformOf(name: string, {uniforms, call}: ProgramSpec<object>, invocations: number) {
  const given = uniforms?.[name];
  if (given) return given;
  if (name === 'invocations') return i32(invocations);
  if (name === 'firstWorkgroup') return i32(0);
  if (!call) return undefined;
  const {geometry, causal = false, scale = 1, softCap} = call;
  if (name === 'scale') return f32(scale);
  if (name === 'logitScale') return f32(scale * Math.LOG2E);
  if (name === 'softCap' && softCap) return f32(softCap * Math.LOG2E);
  if (name === 'inverseSoftCap' && softCap) return f32(1 / (softCap * Math.LOG2E));
  if (name === 'firstPosition') return i32(geometry.queryOffset);
  if (name === 'queryOffset' && !causal) return i32(0);
  const size = geometry[name as keyof typeof geometry];
  return size === undefined ? undefined : i32(size);
}

/**
 * Base of the programs of this folder. A subclass is named after what it computes and
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
    const inputs: CompleteSpec<Variant>['inputs'] = {};
    for (const name in spec.inputs) {
      const input = spec.inputs[name];
      if (input) inputs[name] = 'tensor' in input ? input : {tensor: input};
    }
    this.variableNames = Object.keys(inputs);
    this.variableComponents = this.variableNames.map((name) => inputs[name].components ?? 1);
    this.pipelineKey = `${spec.name} ${JSON.stringify(spec.variant)} ${this.variableComponents}`;
    this.shaderKey = this.pipelineKey;
    const valueOf = (name: string) => uniformOf(name, spec, invocations);
    let layout = uniformLayouts.get(this.pipelineKey);
    if (!layout) {
      layout = layOutUniforms(this.shader(spec.variant), valueOf);
      uniformLayouts.set(this.pipelineKey, layout);
    }
    const uniforms: Uniforms = {};
    for (const name of layout.names) uniforms[name] = valueOf(name)!;
    this.spec = {outputType: 'float32', ...spec, threads, workgroups, extensions, outputComponents, inputs, uniforms};
    this.outputShape = spec.outputShape;
    this.outputComponent = outputComponents;
    this.uniforms = layout.declaration;
    this.workgroupSize = [threads, 1, 1];
    this.dispatch = [workgroups, 1, 1];
    this.dispatchLayout = {x: spec.outputShape.map((_, i) => i)};
  }

  getUserCode(): string {
    return this.shader(this.spec.variant);
  }

  /** The shader's text after tfjs's own declarations; it defines `main`. */
  protected abstract shader(variant: Variant): string;

  run(backend: WebGPUBackend): TensorInfo {
    const {outputShape, outputType} = this.spec;
    return withScratch(backend, (_, keep) =>
      this.runInto(backend, keep(backend.makeTensorInfo(outputShape, outputType))),
    );
  }

  /** Runs the program on an output that is there: it may write a part of it. */
  runInto(backend: WebGPUBackend, output: TensorInfo): TensorInfo {
    const {workgroups, work = evenWork(), uniforms} = this.spec;
    const isAhead = isCompiledAhead(() => this.compile(backend, output));
    if (isAhead) return output;
    const guard = guardOf(backend);
    const [, ...ends] = launchBounds(workgroups, work);
    let first = 0;
    for (const end of ends.filter((end, i) => end > (ends[i - 1] ?? 0))) {
      if (uniforms.firstWorkgroup) {
        uniforms.firstWorkgroup.value = first;
      }
      guard.submitBefore(work.time / ends.length);
      const launchPart = () => this.launch(backend, end - first, output);
      guard.during(this.spec, launchPart);
      first = end;
    }
    return output;
  }

  /** The program over buffers that stay, to be encoded again and again.. */
  bind(backend: WebGPUBackend, output: TensorInfo): BoundProgram {
    return bindProgram(backend, this, this.spec.workgroups, output);
  }

  /** Without a launch: tfjs is told so by its flag. */
  private async compile(backend: WebGPUBackend, output: TensorInfo): Promise<void> {
    const {workgroups, extensions} = this.spec;
    if (extensions.length > 0) await compileExtended(backend.device, this);
    else this.launch(backend, workgroups, output);
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
    nameTimer(backend, this.spec.name);
  }
}

/** Runs `body` and frees the tensors that it hands to `scratch`, and those of `keep` if it throws. */
export function withScratch<T>(
  backend: WebGPUBackend,
  body: (scratch: Take<TensorInfo>, keep: Take<TensorInfo>) => T,
): T {
  return runWithScratch(({dataId}: TensorInfo) => void backend.disposeData(dataId), body);
}
