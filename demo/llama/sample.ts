/** How the next token is chosen from the logits. */
export interface Sampling {
  /** Logits are divided by it; 0 takes the most likely token (greedy). */
  temperature: number;
  /** Only the most likely tokens whose probabilities reach this sum are drawn from, 0 (exclusive) to 1. */
  topP: number;
  /** Decides what is drawn: the same seed draws the same from the same logits. */
  seed: number;
}
