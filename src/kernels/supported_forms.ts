import type {FlashAttentionInputs, PBSAttentionInputs} from './attention_kernels.js';
import type {BlockGeometry} from './block_geometry.js';

type FormInputs = Pick<FlashAttentionInputs, 'keyLengths' | 'mask'> & Pick<PBSAttentionInputs, 'keyIndices'>;

/** Throws on the forms of attention that the GPU backends do not have yet, before anything is launched. */
export function refuseForms(op: string, backend: string, geometry: BlockGeometry, inputs: FormInputs): void {
  const {queryLength, keyLength, headDim, valueDim} = geometry;
  const forms: Array<[argument: string, isUsed: boolean, got: string, takes: string]> = [
    ['query', queryLength !== keyLength, `${queryLength} rows with ${keyLength} keys`, 'as many rows as keys'],
    ['value', valueDim !== headDim, `a valueDim of ${valueDim}`, `the query's headDim, ${headDim}`],
    ['keyLengths', inputs.keyLengths !== undefined, 'some', 'none'],
    ['mask', inputs.mask !== undefined, 'one', 'none'],
    ['plan', inputs.keyIndices !== undefined, 'one', 'none'],
  ];
  for (const [argument, isUsed, got, takes] of forms) {
    if (isUsed) {
      throw new Error(`${op}: ${argument}: got ${got}; takes ${takes} on the backend '${backend}'.`);
    }
  }
}
