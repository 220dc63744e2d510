/** How long tests took, for `TEST_TIMES=1`: the slowest, and sums by suite and by backend. */
export class TestTimes {
  private readonly tests = new Map<string, {path: string[]; seconds: number}>();

  /** @param path titles, from the outermost suite to the test. */
  add(path: string[], milliseconds: number): void {
    const name = path.join(' ');
    const before = this.tests.get(name)?.seconds ?? 0;
    this.tests.set(name, {path, seconds: before + milliseconds / 1000});
  }

  print(): void {
    if (!process.env.TEST_TIMES) return;
    const tests = [...this.tests.values()];
    const suites = this.sums(([suite]) => suite);
    const backends = this.sums(([suite]) => /\[(\w+)\]/.exec(suite)?.[1] ?? 'none named');
    printLongest('tests', 40, new Map(tests.map(({path, seconds}) => [path.join(' › '), seconds])));
    printLongest('suites', Infinity, suites);
    printLongest('backends', Infinity, backends);
  }

  private sums(keyOf: (path: string[]) => string): Map<string, number> {
    const sums = new Map<string, number>();
    for (const {path, seconds} of this.tests.values()) {
      sums.set(keyOf(path), (sums.get(keyOf(path)) ?? 0) + seconds);
    }
    return sums;
  }
}

function printLongest(what: string, count: number, seconds: Map<string, number>): void {
  console.log(`\n${what}, longest first`);
  const sorted = [...seconds].sort((a, b) => b[1] - a[1]).slice(0, count);
  sorted.forEach(([name, s]) => console.log(`${s.toFixed(1).padStart(6)} s  ${name}`));
}
