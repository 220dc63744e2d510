/**
 * What demo, bench and experiments use of the inside; the package does not hold this file. Whatever else they need is public.
 */
export type {BlockGeometry, BlockGrid} from './attention/block_geometry.js';
export {blockGeometry, scoredBlocks, visibleBlocks} from './attention/block_geometry.js';
export {whyExact} from './attention/cost_model.js';
export {leastScore, peakWeight} from './attention/sampled_estimate.js';
export {backendCosts, backendDevice, costBasis} from './kernels/backend_costs.js';
export {compileAhead} from './kernels/compile_ahead.js';
export {defaultOptions} from './ops/options.js';

// For programs of the model runner.
export {float16Value} from './kernels/cpu/pack_float16.js';
export {unroll} from './kernels/unroll.js';
export {guardOf} from './kernels/webgpu/runtime/backend_guard.js';
export type {BoundProgram} from './kernels/webgpu/runtime/extended_program.js';
export {bufferOf, openEncoder, openPass} from './kernels/webgpu/runtime/extended_program.js';
export {AttentionProgram, withScratch} from './kernels/webgpu/runtime/program.js';
export {headVectors, localOf, readRow, rowComponents, workgroupIndex, writeRow} from './kernels/webgpu/wgsl/rows.js';
export {workgroupReduce} from './kernels/webgpu/wgsl/workgroup_reduce.js';
export {noScores, stateVectors} from './kernels/webgpu/wgsl/softmax_state.js';
export {CombineStatesProgram} from './kernels/webgpu/attend/attend_split.js';
export {arithmeticOf} from './kernels/webgpu/attend/arithmetic.js';
export type {MatrixUnits} from './kernels/webgpu/runtime/device_features.js';
export {fragment, listMatrixUnits, matrixUnitsOf} from './kernels/webgpu/runtime/device_features.js';
export {fragmentTypes, matrixExtensions} from './kernels/webgpu/wgsl/matrix_units.js';

// For timing draws.
export type {AttentionContext} from './kernels/webgl/runtime/context.js';
export {attentionContext} from './kernels/webgl/runtime/context.js';
export {AttentionProgram as DrawnProgram} from './kernels/webgl/runtime/program.js';
