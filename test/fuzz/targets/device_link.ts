import {readResultLink, writeResultLink} from '../../../demo/page/device/device_link';
import {markdownOf} from '../../../demo/page/device/device_words';
import {Broken, bytesOf, textOf, type FuzzTarget} from '../fuzz_target';
import {mutateText} from '../mutations';

const RESULTS = [
  '{"version":1,"date":"2026-11-29T12:00:00.000Z","backend":"webgpu","adapter":"nvidia hopper","features":["shader-f16"],' +
    '"heads":8,"headDim":64,"threshold":0.9,"lengths":[{"length":512,"ms":{"exact":0.1,"sparse":0.2,"composed":0.5},' +
    '"density":0.8,"auto":"exact"},{"length":8192,"ms":{"exact16":6,"sparse16":2},"density":0.31,"auto":"sparse"}]}',
  '{"version":1,"date":"1e9","backend":"cpu","adapter":"\\u202e|","features":[null],"heads":-1,"lengths":{"length":7}}',
];

/** Results in the fragment of an address: JSON in base64url, of which half is changed after it was encoded. */
export const deviceLink: FuzzTarget = {
  ending: 'txt',
  make(random) {
    const json = mutateText(random.pick(RESULTS), RESULTS, random);
    const link = `#device=${Buffer.from(json).toString('base64url')}`;
    return bytesOf(random.pick([true, false]) ? link : mutateText(link, [link], random));
  },
  run(input) {
    let result: ReturnType<typeof readResultLink>;
    try {
      result = readResultLink(textOf(input));
    } catch (error) {
      const {message} = error as Error;
      if (message.length > 300 || /\p{Cc}/u.test(message))
        throw new Broken(`a message of ${message.length} characters`);
      return;
    }
    if (result === undefined) return;
    if (JSON.stringify(readResultLink(writeResultLink(result))) !== JSON.stringify(result)) {
      throw new Broken('reads another than it wrote');
    }
    if (markdownOf(result).length > 10_000) throw new Broken('long words');
  },
};
