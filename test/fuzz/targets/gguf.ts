import {readFile} from 'node:fs/promises';
import {openCheckpoint} from '../../../runner/llama/checkpoint';
import {GGUFFile} from '../../../runner/gguf/gguf_file';
import {fileOf, type FuzzTarget} from '../fuzz_target';
import {mutateBytes} from '../mutations';
import {fileOfRepository} from '../repository';

/** The references' valid file with changed bytes, most of them in the header; read as a file, and as a model. */
export async function gguf(): Promise<FuzzTarget> {
  const valid = new Uint8Array(await readFile(fileOfRepository('test/runner/gguf/valid.gguf')));
  const headerBytes = 1536;
  return {
    ending: 'bin',
    make(random) {
      if (random.chance(0.2)) return mutateBytes(valid, random);
      const header = mutateBytes(valid.slice(0, headerBytes), random);
      return Uint8Array.from([...header, ...valid.slice(headerBytes)]);
    },
    async run(input) {
      const file = await GGUFFile.open(fileOf(input, 'case.gguf'));
      for (const name of file.names()) await file.read(name);
      const {weights} = await openCheckpoint([fileOf(input, 'case.gguf')]);
      for (const name of weights.names()) await weights.read(name);
    },
  };
}
