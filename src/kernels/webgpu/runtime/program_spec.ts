import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';
import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {ExpectedWork} from './launches.js';

/** WGSL extensions that a shader can ask for, as `enable` writes them. */
export type ShaderExtension = 'f16' | 'subgroups' | 'chromium_experimental_subgroup_matrix';

/**
 * A tensor that a shader reads. One of float16 pairs, which tfjs knows as int32, can be read as float16 by a shader that
 * enables it.
 */
interface ReadTensor {
  tensor: TensorInfo;
  /** Components an element is read as; 1 unless given. */
  components?: 1 | 4;
  element?: 'f16';
}

/** A tensor alone is read by component. */
export type ProgramInput = TensorInfo | ReadTensor;

/** Scalars that may change without a new shader. */
export type Uniforms = Record<string, {type: 'i32' | 'f32'; value: number}>;

/** What a compute program needs beyond its shader. */
export interface ProgramSpec<Variant> {
  /** What it computes: tells its pipelines apart from those of other programs, whatever a minifier makes of class names. */
  name: string;
  /** By their names in the shader, which depends on its variant alone: that says which of them there are. */
  inputs: Record<string, ProgramInput | undefined>;
  outputShape: number[];
  /** float32 unless given. */
  outputType?: DataType;
  /** Components an element of `result` is written as; 1 unless given. */
  outputComponents?: 1 | 4;
  /** Invocations a workgroup; 64 unless given. */
  threads?: number;
  /** Workgroups wanted. tfjs may launch more: the shader checks `workgroupIndex()`. */
  workgroups?: number;
  /**
   * Where workgroups do not matter: invocations wanted, one for each element of the output unless given. The shader compares `index`
   * with `uniforms.invocations`.
   */
  invocations?: number;
  /**
   * Its sizes are uniforms; `queryOffset` is 0 without a causal mask, `firstPosition` is not. So are `scale` and, for scores in units of
   * log2, `logitScale`, `softCap` and `inverseSoftCap`.
   */
  call?: {geometry: BlockGeometry; causal?: boolean; scale?: number; softCap?: number};
  /** Others, or in place of those. What the shader does not name is left out. */
  uniforms?: Uniforms;
  /**
   * What the program takes, if it may be long: then it is cut into launches, and the shader finds the first workgroup of its own in
   * `uniforms.firstWorkgroup` (`workgroupIndex`).
   */
  work?: ExpectedWork;
  /** Everything that changes the text of the shader. */
  variant: Variant;
  /** WGSL extensions that the shader enables; the device has their features. */
  extensions?: ShaderExtension[];
}

type Defaults = 'outputType' | 'outputComponents' | 'threads' | 'workgroups' | 'uniforms' | 'extensions';
/** A spec with what it leaves out. */
export type CompleteSpec<Variant> = Omit<ProgramSpec<Variant>, 'inputs'> &
  Required<Pick<ProgramSpec<Variant>, Defaults>> & {inputs: Record<string, ReadTensor>};
