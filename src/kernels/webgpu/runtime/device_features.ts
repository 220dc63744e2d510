/** Sizes and types that the matrix units of an adapter multiply; experimental in Chromium, and not in the types yet. */
interface SubgroupMatrixConfig {
  componentType: string;
  resultComponentType: string;
  M: number;
  N: number;
  K: number;
}

type AdapterInfo = GPUAdapterInfo & {subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig>};

/** On the device itself, for all copies of the package: the entry that records can be ESM, the kernels CommonJS. */
const adapterInfo = Symbol.for('tfjs-pbs-attention.adapterInfo');

type RecordedDevice = GPUDevice & {[adapterInfo]?: AdapterInfo};

/** Notes the adapter of a device: a device knows its features, but not always what its matrix units take. */
export function recordAdapterInfo(device: GPUDevice, info: GPUAdapterInfo): void {
  (device as RecordedDevice)[adapterInfo] = info;
}

/** What the device's adapter says of itself; a device of old may say nothing. */
export function adapterInfoOf(device: GPUDevice): AdapterInfo | undefined {
  return (device as RecordedDevice)[adapterInfo] ?? device.adapterInfo;
}

/** Rows of a fragment, its columns, and the terms of a sum: a size that matrix units take. */
export const fragment = 16;
/** Invocations a subgroup. */
export const subgroupSize = 32;

/** Whether a shader may multiply float16 fragments of that size with float32 sums, by such subgroups. */
export function hasMatrixUnits(device: GPUDevice): boolean {
  const features = device.features as ReadonlySet<string>;
  const needed = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];
  const info = adapterInfoOf(device);
  return (
    needed.every((name) => features.has(name)) &&
    info?.subgroupMinSize === subgroupSize &&
    info.subgroupMaxSize === subgroupSize &&
    [...(info.subgroupMatrixConfigs ?? [])].some(
      ({componentType, resultComponentType, M, N, K}) =>
        componentType === 'f16' && resultComponentType === 'f32' && [M, N, K].every((size) => size === fragment),
    )
  );
}
