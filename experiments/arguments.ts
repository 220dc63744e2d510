import {parseArgs, type ParseArgsConfig} from 'node:util';

/** Pieces of which the parsers of command lines are made; the error of a bad argument says which and what is accepted. */

export const text = {type: 'string'} as const;
export const flag = {type: 'boolean'} as const;

export function readArguments<Options extends NonNullable<ParseArgsConfig['options']>>(
  args: string[],
  options: Options,
) {
  try {
    return parseArgs({args, options, allowPositionals: true});
  } catch (error) {
    const accepted = Object.keys(options).map((name) => `--${name}`);
    throw new Error(`${(error as Error).message}; accepted: ${accepted.join(', ')}`, {cause: error});
  }
}

export function list<T>(option: string, value: string, parse: (part: string) => T | undefined, accepted: string): T[] {
  return value.split(',').map((part) => one(option, part.trim(), parse, accepted));
}

export function one<T>(option: string, part: string, parse: (part: string) => T | undefined, accepted: string): T {
  const parsed = parse(part);
  if (parsed === undefined) throw new Error(`${option} has "${part}"; accepted: ${accepted}`);
  return parsed;
}

export function integer(text: string, least: number, most: number, step: number): number | undefined {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  return value >= least && value <= most && value % step === 0 ? value : undefined;
}

export function share(text: string): number | undefined {
  const value = text.trim() === '' ? NaN : Number(text);
  return value >= 0 && value <= 1 ? value : undefined;
}

/** One of some names. */
export const named =
  <Name extends string>(names: readonly Name[]) =>
  (part: string): Name | undefined =>
    names.find((name) => name === part);
