import {type Activation, GELU_CUBIC, GELU_LINEAR} from '../gated_activation';

/**
 * Shader text: an expression, the activation of the gates in a variable.
 *
 * @param one 1 in the type of the variable.
 */
export function activationText(activation: Activation, gates: string, one: string): string {
  const minusArgument =
    activation === 'silu' ? `-${gates}` : `-${gates} * (${GELU_LINEAR} + ${GELU_CUBIC} * ${gates} * ${gates})`;
  return `${gates} / (${one} + exp(${minusArgument}))`;
}
