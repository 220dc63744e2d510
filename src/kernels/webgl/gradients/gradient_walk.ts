import type {BlockGeometry} from '../../../attention/block_geometry.js';
import type {Factors} from '../attend/attend_passes.js';
import type {AttendWalk} from '../attend/attend_walk.js';

/** A factor with which products are not scaled: scores are in units of log2. */
const unscaled = Math.LN2;

/** Those of the gradients of weights. */
export const weightFactors = ({call, values}: AttendWalk): Factors => ({
  query: call.dy,
  key: values,
  dim: call.geometry.valueDim,
  scale: unscaled,
});

/** The same geometry with keys in the place of queries: for walks of keys over the queries that see them. */
export function transposed(geometry: BlockGeometry): BlockGeometry {
  const {queryLength, keyLength, blockSize, keyBlockSize, queryBlocks, keyBlocks} = geometry;
  return {
    ...geometry,
    queryLength: keyLength,
    keyLength: queryLength,
    blockSize: keyBlockSize,
    keyBlockSize: blockSize,
    queryBlocks: keyBlocks,
    keyBlocks: queryBlocks,
  };
}
