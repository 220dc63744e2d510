import {unroll} from '../../unroll.js';

/** Loads of an invocation that are on their way at a time where nothing else is to be done: more take too many registers. */
const loadsAtOnce = 8;

/**
 * Rows on their way from global to workgroup memory. The words of a tile of `rows` rows of `width` words are dealt out to the
 * invocations of a workgroup, neighbours to neighbours; an invocation carries one a round in its registers, `vectors` vec4 each.
 * The text needs `local`, the index of the invocation.
 */
export class TileLoad {
  /** Words of an invocation. */
  readonly rounds: number;

  constructor(
    private readonly rows: number,
    private readonly width: number,
    private readonly threads: number,
    /** vec4 of global memory that make a word: two of float32 make one of float16. */
    readonly vectors: 1 | 2 = 1,
  ) {
    this.rounds = Math.ceil((rows * width) / threads);
  }

  /** Expressions: which row of the tile, and which word of the row, is carried in round `j`. */
  row(j: number): string {
    return `(${this.place(j)} / ${this.width})`;
  }
  word(j: number): string {
    return `${this.place(j)} % ${this.width}`;
  }

  /** Whether each invocation has a word in round `j`: the last round may deal out fewer. */
  isWhole(j: number): boolean {
    return this.rows * this.width >= (j + 1) * this.threads;
  }

  /** Statements: reads the words into `fetched`, from `at` on. `read` gives a vec4 of a row. */
  fetch(read: (j: number, vector: string) => string, at = 0): string {
    const {rounds, vectors} = this;
    return unroll(rounds, (j) =>
      unroll(vectors, (g) => `fetched[${at + j * vectors + g}] = ${read(j, this.vector(j, g))};`),
    );
  }

  /** Statements: stores them in a tile, whose rows are `tileStride` words apart; `word` makes a word of what was fetched. */
  store(
    tile: string,
    word: (j: number) => string,
    {
      from = 0,
      to = this.rounds,
      also = (): string => '',
    }: {from?: number; to?: number; also?: (j: number) => string} = {},
  ): string {
    return unroll(to - from, (i) => {
      const j = from + i;
      return `${this.isWhole(j) ? '' : `if (${this.place(j)} < ${this.rows * this.width}) `}{
      ${tile}[${this.row(j)} * tileStride + ${this.word(j)}] = ${word(j)};${also(j)}
    }`;
    });
  }

  /**
   * Statements: a whole tile, zeros where a row does not exist. Several loads of an invocation come before the first of their
   * stores: in a loop each would wait for the one before.
   */
  loadTile(
    tile: string,
    {
      exists,
      read,
      word = (at) => `fetched[${at}]`,
    }: {
      exists: (row: string) => string;
      read: (row: string, vector: string) => string;
      /** The word made of what was fetched from `at` on. */
      word?: (at: number) => string;
    },
  ): string {
    const atOnce = loadsAtOnce / this.vectors;
    return unroll(Math.ceil(this.rounds / atOnce), (group) => {
      const from = group * atOnce;
      const to = Math.min(from + atOnce, this.rounds);
      const guarded = (j: number) => {
        const reads = unroll(
          this.vectors,
          (g) => `fetched[${(j - from) * this.vectors + g}] = ${read(this.row(j), this.vector(j, g))};`,
          ' ',
        );
        const isThere = this.isWhole(j) ? '' : `${this.place(j)} < ${this.rows * this.width} && `;
        return `if (${isThere}${exists(this.row(j))}) { ${reads} }`;
      };
      return `{
    var fetched = array<vec4<f32>, ${(to - from) * this.vectors}>();
    ${unroll(to - from, (i) => guarded(from + i))}
    ${this.store(tile, (j) => word((j - from) * this.vectors), {from, to})}
    }`;
    });
  }

  private place(j: number): string {
    return j === 0 ? 'local' : `(local + ${j * this.threads})`;
  }

  private vector(j: number, g: number): string {
    return this.vectors === 1 ? this.word(j) : `(${this.word(j)}) * ${this.vectors} + ${g}`;
  }
}
