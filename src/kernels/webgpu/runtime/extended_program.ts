import type {TensorInfo} from '@tensorflow/tfjs-core';
import {env} from '@tensorflow/tfjs-core';
import type {WebGPUBackend} from '@tensorflow/tfjs-backend-webgpu';
import type {CompleteSpec} from './program_spec.js';

/** What is to be known of an `AttentionProgram` here. */
interface ExtendedProgram {
  spec: CompleteSpec<object>;
  shaderKey: string;
  getUserCode(): string;
}

const pipelines = new WeakMap<GPUDevice, Map<string, GPUComputePipeline>>();

/** Makes them anew when they are next run. */
export function forgetPipelines(device: GPUDevice): void {
  pipelines.delete(device);
}

/**
 * Runs a program whose shader needs WGSL extensions. tfjs puts declarations of its own before a shader's text, and
 * `enable` must come first; so this writes the same declarations (as far as our shaders use them) behind it, and
 * records the dispatch among tfjs's own.
 */
export function runExtended(
  backend: WebGPUBackend,
  program: ExtendedProgram,
  workgroups: number,
  output: TensorInfo,
): void {
  const {encode, uniforms} = bindProgram(backend, program, workgroups, output);
  const queue = backend as unknown as CommandQueue;
  // What is recorded and not yet submitted may not be handed to someone else: tfjs frees these when it submits.
  [output, ...inputsOf(program)].forEach(({dataId}) => queue.commandQueueOwnedIds.add(dataId));
  queue.uniformPendingDisposal.push(uniforms);
  if (queue.activeTimers) {
    encodeTimed(backend, program, encode);
    return;
  }
  encode(openPass(backend));
  ++queue.dispatchCountInPass;
  if (queue.dispatchCountInPass >= env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE')) {
    backend.endComputePassEncoder();
    backend.submitQueue();
  }
}

/** A dispatch whose buffers stay as they are, so that it can be encoded again and again. */
export interface BoundProgram {
  encode(pass: GPUComputePassEncoder): void;
  /** The buffer of its uniforms, to be given back to the backend's `bufferManager`. */
  uniforms: GPUBuffer;
}

/** In a pass of its own, between the timestamps that tfjs reads, as tfjs does it for its own programs. */
function encodeTimed(backend: WebGPUBackend, {spec: {name}}: ExtendedProgram, encode: BoundProgram['encode']): void {
  const queue = backend as unknown as CommandQueue;
  const encoder = openEncoder(backend);
  let timestampWrites: GPUComputePassTimestampWrites | undefined;
  if (queue.supportTimestampQuery) {
    queue.querySet ??= backend.device.createQuerySet({type: 'timestamp', count: queue.querySetCount});
    timestampWrites = {querySet: queue.querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1};
  }
  const pass = encoder.beginComputePass({timestampWrites});
  encode(pass);
  pass.end();
  queue.activeTimers!.push({name, query: backend.getQueryTime()});
  // Without timestamps nothing has sent it.
  if (!queue.supportTimestampQuery) backend.submitQueue();
}

/** Names the program that tfjs has timed last as `tf.time` and `tf.profile` are to show it: a minifier renames classes. */
export function nameTimer(backend: WebGPUBackend, name: string): void {
  const timer = (backend as unknown as CommandQueue).activeTimers?.at(-1);
  if (timer) timer.name = name;
}

/** Brings a program, the buffers of its tensors and its uniforms together. */
export function bindProgram(
  backend: WebGPUBackend,
  program: ExtendedProgram,
  workgroups: number,
  output: TensorInfo,
): BoundProgram {
  const {device} = backend;
  const buffers = [output, ...inputsOf(program)].map((tensor) => bufferOf(backend, tensor));
  const values = uniformValues(program.spec);
  const uniforms = backend.bufferManager.acquireBuffer(
    values.byteLength,
    GPUBufferUsage.COPY_DST | GPUBufferUsage.UNIFORM,
  );
  backend.queue.writeBuffer(uniforms, 0, values);
  const pipeline = pipelineOf(device, program);
  const entries = [...buffers, uniforms].map((buffer, binding) => ({binding, resource: {buffer}}));
  const bindGroup = device.createBindGroup({layout: pipeline.getBindGroupLayout(0), entries});
  const dispatch = foldedDispatch(workgroups, device.limits.maxComputeWorkgroupsPerDimension);
  return {
    uniforms,
    encode(pass) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      pass.dispatchWorkgroups(...dispatch);
    },
  };
}

/** The buffer of a tensor; its values are on the device then. */
export function bufferOf(backend: WebGPUBackend, {dataId}: TensorInfo): GPUBuffer {
  backend.uploadToGPU(dataId);
  return backend.tensorMap.get(dataId).resource as GPUBuffer;
}

/** Commands between passes, after what tfjs has recorded so far. */
export function openEncoder(backend: WebGPUBackend): GPUCommandEncoder {
  backend.ensureCommandEncoderReady();
  backend.endComputePassEncoder();
  return (backend as unknown as CommandQueue).commandEncoder;
}

/** The pass in which tfjs records; a new one where none is open. */
export function openPass(backend: WebGPUBackend): GPUComputePassEncoder {
  backend.ensureCommandEncoderReady();
  const queue = backend as unknown as CommandQueue;
  return (queue.computePassEncoder ??= queue.commandEncoder.beginComputePass());
}

const inputsOf = ({spec}: ExtendedProgram): TensorInfo[] => Object.values(spec.inputs).map(({tensor}) => tensor);

/** Private in tfjs's types: the commands that it has recorded and not yet submitted, and what they use. */
interface CommandQueue {
  commandEncoder: GPUCommandEncoder;
  computePassEncoder: GPUComputePassEncoder | null;
  commandQueueOwnedIds: WeakSet<object>;
  uniformPendingDisposal: GPUBuffer[];
  dispatchCountInPass: number;
  /** While `tf.time` or `tf.profile` runs: of each program its name and, in milliseconds, its time. */
  activeTimers?: Array<{name: string; query: Promise<number>}>;
  supportTimestampQuery: boolean;
  querySet: GPUQuerySet | null;
  querySetCount: number;
}

function pipelineOf(device: GPUDevice, program: ExtendedProgram): GPUComputePipeline {
  const ofDevice = pipelinesOf(device);
  let pipeline = ofDevice.get(program.shaderKey);
  if (!pipeline) {
    pipeline = device.createComputePipeline(pipelineDescriptor(device, program));
    ofDevice.set(program.shaderKey, pipeline);
  }
  return pipeline;
}

/** Makes the pipeline of a program ahead; one that is wanted meanwhile is made at once, by itself. */
export async function compileExtended(device: GPUDevice, program: ExtendedProgram): Promise<void> {
  const ofDevice = pipelinesOf(device);
  const {shaderKey} = program;
  if (ofDevice.has(shaderKey)) return;
  const pipeline = await device.createComputePipelineAsync(pipelineDescriptor(device, program));
  if (!ofDevice.has(shaderKey)) ofDevice.set(shaderKey, pipeline);
}

function pipelinesOf(device: GPUDevice): Map<string, GPUComputePipeline> {
  let ofDevice = pipelines.get(device);
  if (!ofDevice) {
    pipelines.set(device, (ofDevice = new Map()));
  }
  return ofDevice;
}

function pipelineDescriptor(device: GPUDevice, program: ExtendedProgram): GPUComputePipelineDescriptor {
  const label = program.spec.name;
  const module = device.createShaderModule({label, code: extendedCode(program)});
  const storage = Object.keys(program.spec.inputs).map((_, i) => layoutEntry(i + 1, 'read-only-storage'));
  const layout = device.createBindGroupLayout({
    entries: [layoutEntry(0, 'storage'), ...storage, layoutEntry(storage.length + 1, 'uniform')],
  });
  return {
    label,
    layout: device.createPipelineLayout({bindGroupLayouts: [layout]}),
    compute: {module, entryPoint: '_start'},
  };
}

/** The whole text of a program that needs extensions. */
export function extendedCode(program: ExtendedProgram): string {
  return `${declarations(program.spec)}\n${program.getUserCode()}`;
}

function layoutEntry(binding: number, type: GPUBufferBindingType): GPUBindGroupLayoutEntry {
  return {binding, visibility: GPUShaderStage.COMPUTE, buffer: {type}};
}

/** The declarations of tfjs that our shaders use, under the names that tfjs gives them. */
function declarations({extensions, ...spec}: CompleteSpec<object>): string {
  const array = (type: string, components = 1) => `array<${components === 4 ? `vec4<${type}>` : type}>`;
  const typeOf = (dtype: string) => (dtype === 'float32' ? 'f32' : 'i32');
  const inputs = Object.entries(spec.inputs);
  // Which subgroup an invocation belongs to is the same all over the subgroup, but the compiler cannot see that.
  const diagnostics = extensions.includes('chromium_experimental_subgroup_matrix')
    ? 'diagnostic(off, chromium.subgroup_matrix_uniformity);'
    : '';
  return `${extensions.map((name) => `enable ${name};`).join('\n')}
${diagnostics}
struct Uniforms {
  ${inputs.map(([name]) => `${name}Shape : vec4<i32>,`).join('\n  ')}
  outShape : vec4<i32>,
  ${Object.entries(spec.uniforms)
    .map(([name, {type}]) => `${name} : ${type},`)
    .join('\n  ')}
};
@group(0) @binding(0) var<storage, read_write> result : ${array(typeOf(spec.outputType), spec.outputComponents)};
${inputs
  .map(
    ([name, {tensor, components, element}], i) =>
      `@group(0) @binding(${i + 1}) var<storage, read> ${name} : ${array(element ?? typeOf(tensor.dtype), components)};`,
  )
  .join('\n')}
@group(0) @binding(${inputs.length + 1}) var<uniform> uniforms : Uniforms;
var<private> localIndex : u32;
var<private> workgroupId : vec3<u32>;
var<private> numWorkgroups : vec3<u32>;

@compute @workgroup_size(${spec.threads})
fn _start(
  @builtin(local_invocation_index) LocalIndex : u32,
  @builtin(workgroup_id) WorkgroupId : vec3<u32>,
  @builtin(num_workgroups) NumWorkgroups : vec3<u32>) {
  localIndex = LocalIndex;
  workgroupId = WorkgroupId;
  numWorkgroups = NumWorkgroups;
  main(0);
}`;
}

/** The uniforms as `declarations` lays them out: shapes as vec4, then scalars. */
function uniformValues(spec: CompleteSpec<object>): ArrayBuffer {
  const shapes = [...Object.values(spec.inputs).map(({tensor}) => tensor.shape), spec.outputShape];
  const scalars = Object.values(spec.uniforms);
  // A uniform buffer's size is a multiple of its largest alignment, 16 bytes.
  const words = 4 * (shapes.length + Math.ceil(scalars.length / 4));
  const view = new DataView(new ArrayBuffer(4 * words));
  shapes.forEach((shape, i) => shape.forEach((size, j) => view.setInt32(16 * i + 4 * j, size, true)));
  scalars.forEach(({type, value}, i) => {
    const at = 16 * shapes.length + 4 * i;
    if (type === 'f32') {
      view.setFloat32(at, value, true);
    } else {
      view.setInt32(at, value, true);
    }
  });
  return view.buffer;
}

/** A line of workgroups, folded where it is longer than a dimension of a dispatch may be. */
function foldedDispatch(workgroups: number, limit: number): [number, number] {
  const rows = Math.ceil(workgroups / limit);
  return [Math.ceil(workgroups / rows), rows];
}
