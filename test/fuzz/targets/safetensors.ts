import {Safetensors} from '../../../runner/llama/safetensors';
import {writeFile} from '../../runner/llama/tiny/random_checkpoint';
import {Broken, fileOf, type FuzzTarget} from '../fuzz_target';
import {mutateBytes, mutateJson} from '../mutations';
import type {Random} from '../random';

const BYTES: Record<string, number> = {F32: 4, F16: 2, BF16: 2};

/** Files of a few small tensors, of which the header, the bytes or neither is changed. */
export const safetensors: FuzzTarget = {
  ending: 'bin',
  make(random) {
    const {header, size} = validFile(random);
    const changed = random.chance(0.6) ? mutateJson(header, random) : header;
    const data = Uint8Array.from({length: random.chance(0.2) ? random.below(2 * size + 1) : size}, () =>
      random.below(256),
    );
    const file = new Uint8Array(writeFile(JSON.stringify(changed) ?? '', data));
    return random.chance(0.4) ? mutateBytes(file, random) : file;
  },
  async run(input) {
    const file = await Safetensors.open(fileOf(input, 'case.safetensors'));
    let bytes = 0;
    for (const name of file.names()) {
      const values = await file.read(name);
      const size = file.shape(name).reduce((product, length) => product * length, 1);
      if (values.length !== size) throw new Broken(`"${name}" has ${values.length} values instead of ${size}`);
      bytes += size * BYTES[file.dtype(name)];
    }
    const header = Number(new DataView(input.buffer, input.byteOffset).getBigUint64(0, true));
    if (8 + header + bytes !== input.length) throw new Broken(`${input.length} bytes hold tensors of ${bytes}`);
  },
};

function validFile(random: Random): {header: Record<string, unknown>; size: number} {
  const header: Record<string, unknown> = random.chance(0.5) ? {__metadata__: {format: 'pt'}} : {};
  let size = 0;
  for (let i = random.below(5); i > 0; --i) {
    const dtype = random.pick(Object.keys(BYTES));
    const shape = Array.from({length: random.below(4)}, () => random.below(5));
    const end = size + shape.reduce((product, length) => product * length, BYTES[dtype]);
    header[`layer.${i}`] = {dtype, shape, data_offsets: [size, end]};
    size = end;
  }
  return {header, size};
}
