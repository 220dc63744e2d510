import type {AttentionName, ModelInfo} from '../../engine/protocol';
import type {Sampling} from '../../../runner/llama/sample';
import {byId} from '../dom';
import type {EngineSession} from '../engine_session';
import {formatPercent, formatTokens} from '../format';
import {describeGain, describeWays, type Ways} from './chat_words';

const NO_SYSTEM = 'This model takes none: it only continues text.';

/** The settings of the chat. */
export class ChatForm {
  private readonly system = byId<HTMLTextAreaElement>('system');
  private readonly temperature = byId<HTMLInputElement>('chat-temperature');
  private readonly topP = byId<HTMLInputElement>('chat-top-p');
  private readonly most = byId<HTMLInputElement>('chat-max-tokens');
  private readonly seed = byId<HTMLInputElement>('chat-seed');
  private readonly radios = [...document.querySelectorAll<HTMLInputElement>('input[name=attention]')];

  /** @param onChange of what the count depends on, or the choice of attention. */
  constructor(onChange: () => void) {
    const controls = [this.system, this.temperature, this.topP, this.most, this.seed, ...this.radios];
    for (const control of controls) {
      control.addEventListener('input', () => {
        this.summarise();
        onChange();
      });
    }
    this.summarise();
  }

  get ways(): Ways {
    return this.radios.find(({checked}) => checked)!.value as Ways;
  }

  /** In the order in which they run: the conversation goes on from the first. */
  get attentions(): readonly AttentionName[] {
    return this.ways === 'both' ? ['pbs', 'exact'] : [this.ways];
  }

  get systemPrompt(): string {
    return this.system.value.trim();
  }

  get maxTokens(): number {
    return this.most.valueAsNumber;
  }

  /** @param times how often the same message was answered before. */
  sampling(times: number): Sampling {
    return {
      temperature: this.temperature.valueAsNumber,
      topP: this.topP.valueAsNumber,
      seed: this.seed.valueAsNumber + times,
    };
  }

  /** Whether all values can be used; shows the first that cannot. */
  showsValid(): boolean {
    const wrong = [this.temperature, this.topP, this.most, this.seed].find(({validity}) => !validity.valid);
    const part = wrong?.closest('details');
    if (part) part.open = true;
    return wrong === undefined || wrong.reportValidity();
  }

  /** Says before what sparse attention gains. */
  showGain({machine, model}: Pick<EngineSession, 'machine' | 'model'>, unread?: number): void {
    const words =
      machine && model ? [describeWays(this.ways, machine), describeGain(model, this.ways, unread, machine)] : [];
    byId('attention-note').textContent = words.filter(Boolean).join(' ');
  }

  showModel({isChat}: ModelInfo): void {
    byId('system-note').textContent = isChat ? '' : NO_SYSTEM;
    byId('plain-note').hidden = isChat;
  }

  private summarise(): void {
    byId('system-summary').textContent = this.systemPrompt === '' ? 'none' : this.systemPrompt;
    const {temperature, topP, seed} = this.sampling(0);
    const words =
      temperature === 0
        ? ['the likeliest each time']
        : [`temperature ${temperature}`, `top-p ${formatPercent(topP)}`, `seed ${seed}`];
    byId('sampling-summary').textContent = [...words, `at most ${formatTokens(this.maxTokens)}`].join(' · ');
  }
}
