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

/**
 * What the matrix units of a device multiply: fragments of `rows` x `depth` float16 values with fragments of `depth` x `columns`, added up
 * in float32, by subgroups of `lanes` invocations.
 */
export interface MatrixUnits {
  rows: 8 | 16;
  columns: 8 | 16;
  depth: 8 | 16;
  lanes: 32 | 64;
}

/** The largest fragment, of which the others are a half: rows in memory are filled up to it. */
export const fragment = 16;

/**
 * What a shader may use of the device's matrix units: of several sizes the one that multiplies most at once; nothing where there are none.
 *
 * @param lanes invocations of a subgroup. Default: any that the programs take.
 */
export const matrixUnitsOf = (device: GPUDevice, lanes?: MatrixUnits['lanes']): MatrixUnits | undefined =>
  listMatrixUnits(device).find((units) => lanes === undefined || units.lanes === lanes);

/**
 * All sizes that the programs take, the largest first. None where sums are float16, whose error is three to seven times as
 * large (docs/decisions.md), or where subgroups are not always of one size.
 */
export function listMatrixUnits(device: GPUDevice): MatrixUnits[] {
  const features = device.features as ReadonlySet<string>;
  const needed = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'];
  const info = adapterInfoOf(device);
  return info && needed.every((name) => features.has(name)) ? unitsListedBy(info) : [];
}

/** Each call of attention asks several times, and what an adapter lists is made anew whenever it is read. */
const listed = new WeakMap<AdapterInfo, MatrixUnits[]>();

function unitsListedBy(info: AdapterInfo): MatrixUnits[] {
  let units = listed.get(info);
  if (!units) listed.set(info, (units = readUnits(info)));
  return units;
}

function readUnits({subgroupMinSize: lanes, subgroupMaxSize, subgroupMatrixConfigs = []}: AdapterInfo): MatrixUnits[] {
  if (lanes !== subgroupMaxSize || (lanes !== 32 && lanes !== 64)) return [];
  const isSize = (size: number): size is 8 | 16 => size === fragment / 2 || size === fragment;
  const units: MatrixUnits[] = [];
  for (const {componentType, resultComponentType, M: rows, N: columns, K: depth} of subgroupMatrixConfigs) {
    if (componentType !== 'f16' || resultComponentType !== 'f32') continue;
    if (isSize(rows) && isSize(columns) && isSize(depth)) units.push({rows, columns, depth, lanes});
  }
  const volume = ({rows, columns, depth}: MatrixUnits) => rows * columns * depth;
  return units.sort((a, b) => volume(b) - volume(a));
}
