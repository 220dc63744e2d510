/** One way for a layer to attend: what it takes and what it loses. */
export interface Choice {
  time: number;
  loss: number;
}

/** Halvings of the price's logarithm, enough to tell any two choices apart. */
const steps = 60;
/** Least and largest price of a unit of loss, in units of time. */
const prices = [1e-12, 1e12];

/**
 * One of the choices of every layer, so that the losses add up to at most `allowed` and the times to as little as is found: at one
 * price for a unit of loss, the same in every layer (the Lagrangian of the problem), each layer takes what is cheapest, price
 * included; the price is the least that keeps within what is allowed. What is then left is spent on single changes, the greatest
 * saving first.
 *
 * @param layers choices of each layer, one of them without loss.
 * @returns the index of each layer's choice.
 */
export function cheapestChoice(layers: ReadonlyArray<readonly Choice[]>, allowed: number): number[] {
  const atPrice = (price: number) =>
    layers.map((choices) => {
      const costs = choices.map(({time, loss}) => time + price * loss);
      return costs.indexOf(Math.min(...costs));
    });
  const lossOf = (chosen: readonly number[]) => chosen.reduce((sum, i, layer) => sum + layers[layer][i].loss, 0);
  let [low, high] = prices;
  for (let step = 0; step < steps; ++step) {
    const price = Math.sqrt(low * high);
    if (lossOf(atPrice(price)) <= allowed) {
      high = price;
    } else {
      low = price;
    }
  }
  const chosen = atPrice(high);
  for (;;) {
    const rest = allowed - lossOf(chosen);
    let best = {layer: -1, index: -1, saved: 0};
    layers.forEach((choices, layer) => {
      const now = choices[chosen[layer]];
      choices.forEach(({time, loss}, index) => {
        if (loss - now.loss <= rest && now.time - time > best.saved) {
          best = {layer, index, saved: now.time - time};
        }
      });
    });
    if (best.layer < 0) {
      return chosen;
    }
    chosen[best.layer] = best.index;
  }
}
