/** How far back a rate looks: long enough to be calm, short enough to follow the connection. */
const WINDOW_MS = 5000;

/** Bytes a second of a transfer, over the last seconds. */
export class TransferRate {
  private readonly samples: Array<{ms: number; bytes: number}> = [];
  private bytes = 0;

  add(bytes: number, ms = performance.now()): void {
    this.bytes += bytes;
    this.samples.push({ms, bytes: this.bytes});
    while (this.samples.length > 2 && this.samples[1].ms < ms - WINDOW_MS) this.samples.shift();
  }

  /** Nothing while there is nothing to go by. */
  get bytesPerSecond(): number | undefined {
    const [first, last] = [this.samples[0], this.samples.at(-1)];
    if (first === undefined || last!.ms - first.ms < 200) return undefined;
    return (1000 * (last!.bytes - first.bytes)) / (last!.ms - first.ms);
  }
}
