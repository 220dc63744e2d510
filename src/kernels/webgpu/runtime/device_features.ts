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

/**
 * Whether a shader may multiply square float16 fragments of that size with float32 sums, by subgroups of that many
 * invocations.
 */
export function hasMatrixUnits(device: GPUDevice, fragment: number, subgroupSize: number): boolean {
  const features = device.features as ReadonlySet<string>;
  const needed = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];
  const info: AdapterInfo = (device as RecordedDevice)[adapterInfo] ?? device.adapterInfo;
  return (
    needed.every((name) => features.has(name)) &&
    info.subgroupMinSize === subgroupSize &&
    info.subgroupMaxSize === subgroupSize &&
    [...(info.subgroupMatrixConfigs ?? [])].some(
      ({componentType, resultComponentType, M, N, K}) =>
        componentType === 'f16' && resultComponentType === 'f32' && [M, N, K].every((size) => size === fragment),
    )
  );
}
