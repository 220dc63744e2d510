import {fixture} from '../../../setup/environment';

/** The files of the checkpoint that comes with the demo. */
export function demoFiles(): Promise<File[]> {
  const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
  return Promise.all(names.map(async (name) => new File([await fixture(`demo/public/model/${name}`)], name)));
}
