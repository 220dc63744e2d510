import {expect} from 'chai';
import fc from 'fast-check';
import type {RowLayout} from '../../../../src/kernels/webgl/runtime/row_texture';
import {rowLayout, RowTexturePool} from '../../../../src/kernels/webgl/runtime/row_texture';

describe('rows in a texture', () => {
  const maxTextureSize = 4096;

  it('gives every value a texel of its own inside the texture', () => {
    fc.assert(
      fc.property(fc.integer({min: 1, max: 5000}), fc.integer({min: 1, max: 300}), (rows, columns) => {
        const {texels, shift, width, height} = rowLayout({rows, columns}, maxTextureSize)!;
        expect(4 * texels).to.be.within(columns, columns + 3);
        const places = new Set<number>();
        for (let row = 0; row < rows; ++row) {
          const x = row % 2 ** shift;
          const y = (row >> shift) * texels;
          expect(x).to.be.below(width);
          expect(y + texels).to.be.at.most(height);
          places.add(y * width + x);
        }
        expect(places.size).to.equal(rows);
      }),
      {seed: 20261123, numRuns: 100},
    );
  });

  it('is about square, so that neither side limits the rows', () => {
    const {width, height} = rowLayout({rows: 2 ** 18, columns: 64}, maxTextureSize)!;
    expect(Math.max(width, height) / Math.min(width, height)).to.be.at.most(2);
  });

  it('is not wider than a few long rows need', () => {
    expect(rowLayout({rows: 8, columns: 8192, layers: 8}, maxTextureSize)).to.include({width: 8, height: 2048});
    expect(rowLayout({rows: 5, columns: 8192}, maxTextureSize)).to.include({width: 8, height: 2048});
  });

  it('fills a texture, and refuses one row more', () => {
    const rows = maxTextureSize ** 2 / 16;
    expect(rowLayout({rows, columns: 64}, maxTextureSize)).to.include({width: 4096, height: 4096});
    expect(rowLayout({rows: rows + 1, columns: 64}, maxTextureSize)).to.equal(undefined);
    expect(rowLayout({rows: 1, columns: 4 * maxTextureSize}, maxTextureSize)).to.include({height: 4096});
    expect(rowLayout({rows: 1, columns: 4 * maxTextureSize + 1}, maxTextureSize)).to.equal(undefined);
  });
});

describe('the pool of textures', () => {
  /** A context that only counts, with room for so many bytes. */
  function fakeContext(room = Infinity) {
    const live = new Map<object, number>();
    let bound: object | null = null;
    let error = 0;
    const nothing = () => {};
    const gl = {
      NO_ERROR: 0,
      OUT_OF_MEMORY: 1285,
      FRAMEBUFFER_COMPLETE: 1,
      COLOR_ATTACHMENT0: 0,
      isContextLost: () => false,
      getError: () => [error, (error = 0)][0],
      createTexture: () => {
        const texture = {};
        live.set(texture, 0);
        return texture;
      },
      bindTexture: (_target: number, texture: object | null) => (bound = texture),
      texStorage3D: (_target: number, _levels: number, _format: number, ...[w, h, d]: [number, number, number]) => {
        live.set(bound!, 16 * w * h * d);
        if ([...live.values()].reduce((a, b) => a + b) > room) {
          error = 1285;
        }
      },
      deleteTexture: (texture: object) => live.delete(texture),
      createFramebuffer: () => ({}),
      checkFramebufferStatus: () => 1,
      ...{texParameteri: nothing, bindFramebuffer: nothing, framebufferTextureLayer: nothing},
      ...{drawBuffers: nothing, deleteFramebuffer: nothing},
    };
    return {live, pool: new RowTexturePool(gl as unknown as WebGL2RenderingContext)};
  }
  const layout = (rows: number): RowLayout => rowLayout({rows, columns: 4, layers: 8}, 8192)!;

  it('hands out again what was given back, in the same size alone', () => {
    const {live, pool} = fakeContext();
    const first = pool.acquire(layout(64), 'test');
    const second = pool.acquire(layout(64), 'test');
    expect(pool.inUse).to.equal(2);
    expect(second.texture).not.to.equal(first.texture);
    pool.release(first);
    expect(pool.acquire(layout(1024), 'test').texture).not.to.equal(first.texture);
    expect(pool.acquire(layout(64), 'test').texture).to.equal(first.texture);
    expect(live.size).to.equal(3);
    expect(pool.inUse).to.equal(3);
  });

  /** 64 MiB each, in different sizes. */
  const sizes = Array.from({length: 8}, (_, i) => layout(2 ** 19 + 1024 * i));
  const bytesOf = (live: Map<object, number>) => [...live.values()].reduce((a, b) => a + b);

  it('keeps at most 256 MiB that nobody uses, where no call has had more at once', () => {
    const {live, pool} = fakeContext();
    const textures = sizes.map((size) => {
      const texture = pool.acquire(size, 'test');
      pool.release(texture);
      return texture;
    });
    expect(pool.inUse).to.equal(0);
    expect(bytesOf(live)).to.be.within(192 * 2 ** 20, 256 * 2 ** 20);
    expect(live.has(textures[7].texture), 'the last one is kept').to.equal(true);
    expect(live.has(textures[0].texture), 'the first one is not').to.equal(false);
  });

  it('keeps all that a call has had at once, and less again after a smaller one', () => {
    const {live, pool} = fakeContext();
    const call = (layouts: RowLayout[]) => {
      const textures = layouts.map((size) => pool.acquire(size, 'test'));
      textures.forEach((texture) => pool.release(texture));
      return textures.map(({texture}) => texture);
    };
    const first = call(sizes);
    expect(live.size).to.equal(8);
    expect(new Set(call(sizes))).to.deep.equal(new Set(first));
    call(sizes.slice(0, 1));
    expect(bytesOf(live)).to.be.within(192 * 2 ** 20, 256 * 2 ** 20);
  });

  it('says what did not fit when the memory is spent, and keeps nothing of it', () => {
    const {live, pool} = fakeContext(2 ** 20);
    expect(() => pool.acquire(layout(2 ** 19), 'AttendScoresProgram')).to.throw(
      'AttendScoresProgram: no texture of 1024 x 512 x 8 (67108864 bytes): out of memory.',
    );
    expect(live.size).to.equal(0);
    expect(pool.inUse).to.equal(0);
  });
});
