import {isQuantised, QUANTISED_FORMS, QUANTISED_TYPES, type QuantisedType, scaleWords} from '../gguf/block_values';

/** Types of matrices that are numbers as they stand: nothing of theirs is packed anew. */
export const PLAIN_TYPES = ['F16', 'BF16', 'F32'] as const;
export type PlainType = (typeof PLAIN_TYPES)[number];

/** The types in which the GPU keeps matrices. */
export const PACKED_TYPES = [...QUANTISED_TYPES, ...PLAIN_TYPES] as const;
export type PackedType = QuantisedType | PlainType;
export const isPacked = (type: string): type is PackedType => (PACKED_TYPES as readonly string[]).includes(type);

/** Bits of a value, and so words of a group of 32. */
export const bitsOf = (type: PackedType): number =>
  isQuantised(type) ? QUANTISED_FORMS[type].bits : type === 'F32' ? 32 : 16;

/** Words of the scales of so many rows of groups, as a shape. A plain matrix has one for all: 1, since every program reads scales. */
export const scaleShape = (type: PackedType, rows: number, groupsOfRow: number): [number, number] =>
  isQuantised(type) ? [rows, groupsOfRow * scaleWords(QUANTISED_FORMS[type])] : [1, 1];
