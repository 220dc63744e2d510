import type {FaultLayer} from './fail_each';

type Method = (...args: never[]) => unknown;

/** Replaces a method of `target` while it is armed; `fault` runs in the place of the n-th call, and `prepare` first of all. */
export function countedFault<Name extends string, Target extends Record<Name, Method>>(
  target: Target,
  name: Name,
  fault: (original: Target[Name], ...args: Parameters<Target[Name]>) => ReturnType<Target[Name]>,
  prepare: () => void = () => {},
): FaultLayer {
  const own = Object.getOwnPropertyDescriptor(target, name);
  const original = target[name];
  return {
    kind: name,
    arm(nth) {
      prepare();
      let calls = 0;
      const counting = function (this: Target, ...args: Parameters<Target[Name]>) {
        // A method of a prototype has another object each time.
        const bound = ((...given: Parameters<Target[Name]>) => original.apply(this, given)) as unknown as Target[Name];
        return ++calls === nth ? fault(bound, ...args) : bound(...args);
      };
      Object.defineProperty(target, name, {value: counting, configurable: true, writable: true});
      return {hasFired: () => calls >= nth};
    },
    disarm() {
      if (own) Object.defineProperty(target, name, own);
      else delete (target as Record<string, unknown>)[name];
    },
  };
}
