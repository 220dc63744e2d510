import {openGGUF} from '../gguf/gguf_checkpoint';
import {CHAT_FILES, readChatForm, type ChatForm} from './chat_form';
import {readJsonObject, type CheckpointFile} from './checkpoint_file';
import {parseConfig, type LlamaConfig} from './config';
import {Safetensors} from './safetensors';
import {Shards} from './shards';
import {cut, listed, shown} from '../message_text';
import {checkTokenizerJson, checkVocabulary} from '../tokenizer_json';
import type {WeightSource} from './weight_source';
import {checkWeights} from './weights';

/** A Hugging Face checkpoint whose files fit together; no weight has been read yet. */
export interface Checkpoint {
  config: LlamaConfig;
  weights: WeightSource;
  /** `tokenizer.json`, parsed, or made of the metadata of a GGUF file. */
  tokenizer: Record<string, unknown>;
  /** How a chat is written, where the files say it. */
  chat?: ChatForm;
}

const CONFIG = 'config.json';
const TOKENIZER = 'tokenizer.json';
const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** `model-00002-of-00003.safetensors` */
const SHARD_NAME = /^(.*)-(\d+)-of-(\d+)\.safetensors$/;

/** Past this, the number in a file's name is no count of shards. */
const MAX_SHARDS = 10_000;

/**
 * Finds the files of a checkpoint among those given, checks them against each other and reads everything but the
 * weights, for `LlamaModel.load`.
 *
 * Needs `config.json`, `tokenizer.json` and the weights: the files that `model.safetensors.index.json` names where it
 * is given, otherwise every `.safetensors` file. Reads the template of chats where it is given, in
 * `chat_template.jinja` or `tokenizer_config.json`. All else, such as a README, is left alone.
 *
 * @throws Error that names the file, and the field or tensor, what came and what is accepted.
 */
export async function openCheckpoint(files: readonly CheckpointFile[]): Promise<Checkpoint> {
  const gguf = files.filter(({name}) => name.endsWith('.gguf'));
  if (gguf.length > 1) {
    throw new Error(`${listed(gguf.map(({name}) => name))}: came together; accepted: one .gguf file`);
  }
  if (gguf.length === 1) {
    const checkpoint = await openGGUF(gguf[0]);
    checkWeights(checkpoint.config, checkpoint.weights);
    return checkpoint;
  }
  const folder = new Map<string, CheckpointFile>();
  for (const file of files.filter(({name}) => isOfCheckpoint(name))) {
    if (folder.has(file.name)) throw new Error(`${file.name}: came twice; accepted: the files of one checkpoint`);
    folder.set(file.name, file);
  }
  const index = folder.get(INDEX);
  const weightMap = index && readWeightMap(await readJsonObject(index));
  const weightFiles = weightMap ? [...new Set(weightMap.values())] : namesOfShards([...folder.keys()]);

  const missing = [CONFIG, TOKENIZER, ...weightFiles].filter((name) => !folder.has(name));
  if (missing.length > 0) {
    const got = files.length === 0 ? 'no files' : listed(files.map(({name}) => name));
    throw new Error(`missing: ${listed(missing)}; got ${got}`);
  }
  const config = parseConfig(await readJsonObject(folder.get(CONFIG)!));
  const tokenizer = await readJsonObject(folder.get(TOKENIZER)!);
  if (typeof tokenizer.model !== 'object' || tokenizer.model === null) {
    throw new Error(`${TOKENIZER}: model is ${shown(tokenizer.model)}; accepted: an object`);
  }
  checkTokenizerJson(tokenizer);
  checkVocabulary(tokenizer, config.vocabSize);
  const shards = await Promise.all(weightFiles.map((name) => Safetensors.open(folder.get(name)!)));
  if (weightMap) checkWeightMap(weightMap, shards);
  const weights = new Shards(shards);
  checkWeights(config, weights);
  const chat = await readChatForm(folder);
  return {config, weights, tokenizer, ...(chat && {chat})};
}

function isOfCheckpoint(name: string): boolean {
  return [CONFIG, TOKENIZER, INDEX, ...CHAT_FILES].includes(name) || name.endsWith('.safetensors');
}

/** Without an index: what is there, and what the names of shards say should be; one whole file if nothing is. */
function namesOfShards(names: string[]): string[] {
  const found = names.filter((name) => name.endsWith('.safetensors'));
  const all = new Set<string>();
  // Each shard says how many there are; all of them are counted up once.
  const families = new Set<string>();
  for (const name of found) {
    const [, stem, number, count] = SHARD_NAME.exec(name) ?? [];
    const isShard = count !== undefined && Number(count) <= MAX_SHARDS && Number(number) <= Number(count);
    const family = isShard ? `${stem}-${'0'.repeat(number.length)}-of-${count}` : name;
    if (families.has(family)) continue;
    families.add(family);
    if (!isShard) all.add(name);
    for (let i = 1; isShard && i <= Number(count); ++i) {
      all.add(`${stem}-${String(i).padStart(number.length, '0')}-of-${count}.safetensors`);
    }
    if (all.size > MAX_SHARDS) {
      throw new Error(`${cut(name)}: with it there are ${all.size} files of weights; accepted: up to ${MAX_SHARDS}`);
    }
  }
  return all.size === 0 ? [WEIGHTS] : [...all];
}

/** Tensor name to file name. */
function readWeightMap(index: Record<string, unknown>): Map<string, string> {
  const weightMap = index.weight_map;
  if (typeof weightMap !== 'object' || weightMap === null || Array.isArray(weightMap)) {
    throw new Error(`${INDEX}: weight_map is ${shown(weightMap)}; accepted: an object`);
  }
  const entries = Object.entries(weightMap as Record<string, unknown>);
  for (const [tensor, file] of entries) {
    if (typeof file !== 'string' || !file.endsWith('.safetensors')) {
      throw new Error(
        `${INDEX}: weight_map["${cut(tensor)}"] is ${shown(file)}; accepted: the name of a .safetensors file`,
      );
    }
  }
  if (entries.length === 0) throw new Error(`${INDEX}: weight_map is {}; accepted: one entry for each tensor`);
  return new Map(entries as [string, string][]);
}

/** A shard of another checkpoint, or of another version, does not hold what the index says. */
function checkWeightMap(weightMap: ReadonlyMap<string, string>, shards: readonly Safetensors[]): void {
  const byName = new Map(shards.map((shard) => [shard.fileName, shard]));
  for (const [tensor, file] of weightMap) {
    if (!byName.get(file)!.has(tensor)) {
      throw new Error(`${file}: tensor "${cut(tensor)}" is missing; ${INDEX} says that it is there`);
    }
  }
}
