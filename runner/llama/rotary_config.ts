import type {Fields} from './config_fields';
import {ROPE_FACTOR, ROPE_THETA} from './config_limits';

/** How the frequencies of the rotary embedding were changed to reach a longer context. */
export type RotaryScaling = {type: 'linear'; factor: number} | Llama3Scaling | RotaryFactors;

/** A divisor of each frequency, headDim / 2 of them: what GGUF files hold in the place of `Llama3Scaling`. */
export interface RotaryFactors {
  type: 'factors';
  factors: Float32Array;
}

/** Long waves are stretched by `factor`, short ones stay, and between the two bounds one passes into the other. */
export interface Llama3Scaling {
  type: 'llama3';
  factor: number;
  /** `originalMaxPositions` by this is the wavelength from which on a wave is stretched. */
  lowFrequencyFactor: number;
  /** `originalMaxPositions` by this is the wavelength up to which a wave stays. */
  highFrequencyFactor: number;
  /** Longest context before the change, in tokens. */
  originalMaxPositions: number;
}

interface Rotary {
  ropeTheta: number;
  ropeScaling: RotaryScaling | null;
  localRopeTheta: number | null;
}

/**
 * transformers 4 keeps `rope_theta` at the top and scaling in `rope_scaling`; 5 puts both in `rope_parameters`, by kinds of layers where
 * these differ.
 *
 * @param maxPositions context of the checkpoint, in tokens: that before a scaling which does not name it.
 * @param defaults bases, and whether layers with a window have their own.
 * @throws Error that names the field, what it holds and what is accepted.
 */
export function parseRotary(config: Fields, maxPositions: number, defaults: Omit<Rotary, 'ropeScaling'>): Rotary {
  const all = config.object('rope_parameters');
  const ofKind = (kind: string) => all?.object(kind) ?? null;
  const isByKind = defaults.localRopeTheta !== null;
  if (isByKind && all && !Object.keys(all.json).every((key) => KINDS.includes(key))) {
    throw config.unaccepted('rope_parameters', `an object with ${KINDS.join(' and ')} alone`);
  }
  const parameters = isByKind ? ofKind(FULL) : all;
  const older = config.object('rope_scaling');
  for (const fields of [config, parameters]) fields?.acceptOnly('partial_rotary_factor', [1]);
  const scalings = [parameters, older]
    .filter((fields) => fields !== null)
    .map((fields) => parseScaling(fields, maxPositions));
  if (scalings.length === 2 && JSON.stringify(scalings[0]) !== JSON.stringify(scalings[1])) {
    throw config.unaccepted('rope_scaling', 'the scaling in rope_parameters, or null');
  }
  return {
    ropeTheta: base(config, parameters, 'rope_theta', defaults.ropeTheta),
    ropeScaling: scalings[0] ?? null,
    localRopeTheta: isByKind ? localBase(config, ofKind(SLIDING), defaults.localRopeTheta!) : null,
  };
}

const KINDS = ['full_attention', 'sliding_attention'];
const [FULL, SLIDING] = KINDS;

/** The base in the parameters, or by its older name at the top. */
function base(config: Fields, parameters: Fields | null, older: string, byDefault: number): number {
  return parameters !== null && parameters.json.rope_theta !== undefined
    ? parameters.positiveNumber('rope_theta', ROPE_THETA, byDefault)
    : config.positiveNumber(older, ROPE_THETA, byDefault);
}

function localBase(config: Fields, parameters: Fields | null, byDefault: number): number {
  if (parameters !== null && parseScaling(parameters, 1) !== null)
    throw parameters.unaccepted('rope_type', '"default"');
  return base(config, parameters, 'rope_local_base_freq', byDefault);
}

function parseScaling(fields: Fields, maxPositions: number): RotaryScaling | null {
  // `type` is the older name. Where both are given, transformers goes by `rope_type`.
  const field = fields.json.rope_type === undefined && fields.json.type !== undefined ? 'type' : 'rope_type';
  // Without a type, transformers takes the default one; a factor, or fields by kind of layer, would go unheard then.
  const plain = Object.keys(fields.json).every((name) => ['rope_theta', 'partial_rotary_factor'].includes(name));
  const type: unknown = fields.json[field] ?? (plain ? 'default' : undefined);
  switch (type) {
    case 'default':
      return null;
    case 'linear':
      return {type, factor: scalingFactor(fields)};
    case 'llama3': {
      const lowFrequencyFactor = fields.positiveNumber('low_freq_factor', ROPE_FACTOR);
      const highFrequencyFactor = fields.positiveNumber('high_freq_factor', ROPE_FACTOR);
      if (highFrequencyFactor <= lowFrequencyFactor) {
        throw fields.unaccepted('high_freq_factor', `a number above low_freq_factor (${lowFrequencyFactor})`);
      }
      return {
        type,
        factor: scalingFactor(fields),
        lowFrequencyFactor,
        highFrequencyFactor,
        originalMaxPositions: fields.positiveInteger('original_max_position_embeddings', maxPositions),
      };
    }
    default:
      throw fields.unaccepted(field, '"default", "linear", "llama3"');
  }
}

function scalingFactor(fields: Fields): number {
  const factor = fields.positiveNumber('factor', ROPE_FACTOR);
  if (factor < 1) throw fields.unaccepted('factor', 'a number of 1 or more');
  return factor;
}
