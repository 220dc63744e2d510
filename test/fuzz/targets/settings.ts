import {defaultFacts, readSettings, writeSettings} from '../../../demo/page/settings';
import {Broken, bytesOf, textOf, type FuzzTarget} from '../fuzz_target';
import {mutateText} from '../mutations';

const ADDRESSES = [
  'backend=webgpu&book=dubliners&task=find&length=4096&pages=7&tau=0.85&estimate=pooled&block=64&key-block=32',
  'segment=512&permute=no&precision=float16&tokens=64&temperature=0.7&top-p=0.9&seed=12&ask=2',
  'fact=hidden-falcon-57470-0.5&fact=quiet-harbor-12345-1&fact=golden-lantern-99999-0',
  'length=99999999999&pages=-1&seed=2147483648&tau=1.001&fact=a-b-1-2&ask=9&block=%F0%9F%99%82',
];

/** Addresses: read without an error, and what is read is what is written and read again. */
export const settings: FuzzTarget = {
  ending: 'txt',
  make: (random) => bytesOf(mutateText(random.pick(ADDRESSES), ADDRESSES, random)),
  run(input) {
    const query = new URLSearchParams(textOf(input));
    let read: ReturnType<typeof readSettings>;
    try {
      read = readSettings(query);
    } catch (error) {
      throw new Broken(`an address is no reason to throw: ${(error as Error).message}`);
    }
    const again = readSettings(writeSettings(read.settings));
    if (again.ignored.length > 0) throw new Broken(`wrote what it ignores: ${again.ignored.join()}`);
    if (JSON.stringify(again.settings) !== JSON.stringify(read.settings))
      throw new Broken('reads another than it wrote');
    const long = read.ignored.find((phrase) => phrase.length > 2000);
    if (long !== undefined) throw new Broken(`a phrase of ${long.length} characters`);
    if (read.settings.facts.length === 0 || defaultFacts(read.settings.pages).length === 0) throw new Broken('no fact');
  },
};
