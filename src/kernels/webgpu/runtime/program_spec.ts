import type {DataType, TensorInfo} from '@tensorflow/tfjs-core';
import type {ExpectedWork} from './launches.js';

/** WGSL extensions that a shader can ask for, as `enable` writes them. */
export type ShaderExtension = 'f16' | 'subgroups' | 'chromium_experimental_subgroup_matrix';

/**
 * A tensor that a shader reads. One of float16 pairs, which tfjs knows as int32, can be read as float16 by a shader that
 * enables it.
 */
export interface ProgramInput {
  tensor: TensorInfo;
  /** Components an element is read as; 1 unless given. */
  components?: 1 | 4;
  element?: 'f16';
}

/** Scalars that may change without a new shader. */
export type Uniforms = Record<string, {type: 'i32' | 'f32'; value: number}>;

/** What a compute program needs beyond its shader. */
export interface ProgramSpec<Variant> {
  /** What it computes: tells its pipelines apart from those of other programs, whatever a minifier makes of class names. */
  name: string;
  /** By their names in the shader. */
  inputs: Record<string, ProgramInput>;
  outputShape: number[];
  /** float32 unless given. */
  outputType?: DataType;
  /** Components an element of `result` is written as; 1 unless given. */
  outputComponents?: 1 | 4;
  /** Invocations a workgroup. */
  threads: number;
  /** Workgroups wanted. tfjs may launch more: the shader checks `workgroupIndex()`. */
  workgroups: number;
  uniforms?: Uniforms;
  /**
   * What the program takes, if it may be long: then it is cut into launches, and the shader finds the first workgroup of its own in
   * `uniforms.firstWorkgroup` (`workgroupIndexInLaunch`).
   */
  work?: ExpectedWork;
  /** Everything that changes the text of the shader. */
  variant: Variant;
  /** WGSL extensions that the shader enables; the device has their features. */
  extensions?: ShaderExtension[];
}

type Defaults = 'outputType' | 'outputComponents' | 'uniforms' | 'extensions';
/** A spec with what it leaves out. */
export type CompleteSpec<Variant> = ProgramSpec<Variant> & Required<Pick<ProgramSpec<Variant>, Defaults>>;
