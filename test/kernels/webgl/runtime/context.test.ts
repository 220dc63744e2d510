import type {TensorInfo} from '@tensorflow/tfjs-core';
import {
  add,
  backend as activeBackend,
  concat,
  env,
  getKernel,
  memory,
  setBackend,
  tensor4d,
} from '@tensorflow/tfjs-core';
import {MathBackendWebGL} from '@tensorflow/tfjs-backend-webgl';
import {expect} from 'chai';
import {flashAttention, pbsAttention, pbsAttentionPlan} from '../../../../src/index';
import {attentionContext} from '../../../../src/kernels/webgl/runtime/context';
import {gradientKernels} from '../../../reference/attention_gradients';
import {testBackends} from '../../../setup/environment';
import {randomInputs, tensors} from '../../../reference/attention';

if (testBackends().includes('webgl')) {
  describe('the WebGL context [webgl]', () => {
    const options = {blockSize: 16, segmentSize: 32, threshold: 0.75, auto: false};
    const inputs = randomInputs({heads: 4, keyValueHeads: 2, length: 72, headDim: 8}, 51);
    const webgl = () => activeBackend() as MathBackendWebGL;
    const glOf = (backend: MathBackendWebGL) => backend.gpgpu.gl as WebGL2RenderingContext;
    const ops = {
      flashAttention: () => {
        const [q, k, v] = tensors(inputs);
        return {inputs: [q, k, v], outputs: () => [flashAttention(q, k, v)]};
      },
      pbsAttention: () => {
        const [q, k, v] = tensors(inputs);
        return {inputs: [q, k, v], outputs: () => [pbsAttention(q, k, v, options)]};
      },
      pbsAttentionPlan: () => {
        const [q, k] = tensors(inputs);
        const outputs = () => {
          const {keyIndices, blockMask} = pbsAttentionPlan(q, k, options);
          return [keyIndices, blockMask];
        };
        return {inputs: [q, k], outputs};
      },
      ...Object.fromEntries(
        Object.entries(gradientKernels).map(([name, gradient]) => [
          name,
          () => {
            const [q, k, v] = tensors(inputs);
            return {inputs: [q, k, v], outputs: () => gradient(q, k, v)};
          },
        ]),
      ),
    };
    before(() => setBackend('webgl'));

    for (const [name, open] of Object.entries(ops)) {
      it(`${name} makes no texture that the call before has made`, async () => {
        const gl = glOf(webgl());
        const {pool} = attentionContext('test', webgl());
        const {inputs: given, outputs} = open();
        outputs().forEach((x) => x.dispose());
        const createTexture = gl.createTexture.bind(gl);
        let created = 0;
        gl.createTexture = () => (++created, createTexture());
        try {
          outputs().forEach((x) => x.dispose());
        } finally {
          gl.createTexture = createTexture;
        }
        expect(created).to.equal(0);
        expect(pool.inUse, 'textures in use').to.equal(0);
        given.forEach((x) => x.dispose());
      });

      it(`${name} frees everything when a draw fails, whichever it is`, async () => {
        const gl = glOf(webgl());
        const {pool} = attentionContext('test', webgl());
        const {inputs: given, outputs} = open();
        outputs().forEach((x) => x.dispose());
        const drawArrays = gl.drawArrays.bind(gl);
        const before = [memory().numTensors, webgl().numDataIds(), pool.inUse];
        let failures = 0;
        for (let working = 0, failed = true; failed; ++working) {
          let left = working;
          failed = false;
          gl.drawArrays = (...args) => {
            if (left-- === 0) {
              failed = true;
              throw new Error('out of memory');
            }
            drawArrays(...args);
          };
          try {
            outputs().forEach((x) => x.dispose());
            expect(failed, `draw ${working} fails and nobody notices`).to.equal(false);
          } catch (error) {
            expect((error as Error).message).to.equal('out of memory');
            ++failures;
          } finally {
            gl.drawArrays = drawArrays;
          }
          expect([memory().numTensors, webgl().numDataIds(), pool.inUse], `draw ${working}`).to.deep.equal(before);
        }
        expect(failures, 'draws of a call').to.be.at.least(7);
        given.forEach((x) => x.dispose());
      });
    }

    it('leaves the state in which tfjs draws', async () => {
      const [q, k, v] = tensors(inputs);
      const sum = () => add(q, concat([k, k], 1));
      const first = await sum().data();
      pbsAttention(q, k, v, options).dispose();
      expect(Array.from(await sum().data())).to.deep.equal(Array.from(first));
      expect(glOf(webgl()).getError()).to.equal(0);
    });

    it('reads and writes more than 2²⁴ values without losing their places', async () => {
      // With the flag tfjs takes the program of another shape, and unpacks so large a tensor wrongly.
      env().set('WEBGL_USE_SHAPES_UNIFORMS', false);
      // One token sees itself alone: the output is the value.
      const heads = 2 ** 18 + 7;
      const values = Float32Array.from({length: heads * 64}, (_, i) => i % 65_521);
      const value = tensor4d(values, [1, heads, 1, 64]);
      const query = tensor4d(new Float32Array(heads * 64), [1, heads, 1, 64]);
      const output = flashAttention(query, query, value);
      const read = await output.data();
      expect(read.length).to.equal(values.length);
      env().set('WEBGL_USE_SHAPES_UNIFORMS', true);
      expect(values.findIndex((x, i) => x !== read[i])).to.equal(-1);
      [value, query, output].forEach((x) => x.dispose());
    });

    describe('limits', () => {
      const attrs = {
        scale: 1,
        causal: true,
        blockSize: 128,
        keyBlockSize: 64,
        segmentSize: 256,
        threshold: 0.9,
        permute: true,
        estimate: 'sampled',
        auto: false,
      };
      const run = (kernel: string, shape: number[], changed: object = {}, shapes: Record<string, number[]> = {}) => {
        const query = webgl().makeTensorInfo(shape, 'float32');
        const others = Object.entries(shapes).map(([name, x]) => [name, webgl().makeTensorInfo(x, 'float32')] as const);
        try {
          const given = {query, key: query, value: query, ...Object.fromEntries(others)};
          getKernel(kernel, 'webgl').kernelFunc({
            inputs: given,
            backend: webgl(),
            attrs: {...attrs, ...changed} as never,
          });
        } finally {
          [query, ...others.map(([, x]) => x)].forEach((x) => webgl().disposeIntermediateTensorInfo(x));
        }
      };
      it('refuses what one texture cannot hold, before anything is drawn', () => {
        const limit = glOf(webgl()).getParameter(glOf(webgl()).MAX_TEXTURE_SIZE) as number;
        const before = webgl().numDataIds();
        const size = `${limit} x ${limit}`;
        const tokens = limit ** 2 / 256 + 1;
        expect(() => run('FlashAttention', [1, 1, tokens, 256])).to.throw(
          `flashAttention: query [1,1,${tokens},256] has ${256 * tokens} values, more than one texture holds; ` +
            `this WebGL device takes textures up to ${size}.`,
        );
        expect(() => run('PBSAttention', [1, 1, 2 ** 24 + 1, 1])).to.throw(
          'pbsAttention: key: got 16777217 tokens; a float32 texture holds indices up to 16777216.',
        );
        const wide = [1, 1, limit, 4 * limit];
        expect(() => run('FlashAttention', [1, 1, limit, 1], {}, {value: wide})).to.throw(
          `flashAttention: value [${wide}] has ${4 * limit ** 2} values, more than one texture holds`,
        );
        const mask = [1, 1, limit, limit + 1];
        const key = [1, 1, limit + 1, 1];
        expect(() => run('FlashAttention', [1, 1, limit, 1], {}, {key, value: key, mask})).to.throw(
          `flashAttention: mask [${mask}] has ${limit * (limit + 1)} values, more than one texture holds`,
        );
        // Small inputs whose block scores would be too large.
        const blocks = 4 * limit + 4;
        expect(() =>
          run('PBSAttention', [1, 1, 2 * blocks, 1], {blockSize: 2, keyBlockSize: 2, segmentSize: 2}),
        ).to.throw(
          `pbsAttention: block lists: got ${blocks} rows of ${blocks + 1} values, more than one texture holds; ` +
            `this WebGL device takes textures up to ${size}.`,
        );
        expect(() =>
          run('PBSAttentionPlan', [1, 1, 2 * limit + 2, 1], {blockSize: 2, keyBlockSize: 2, segmentSize: 2}),
        ).to.throw(`pbsAttentionPlan: block mask [1,1,${limit + 1},${limit + 1}] has ${(limit + 1) ** 2} values`);
        expect(webgl().numDataIds()).to.equal(before);
      });
    });

    describe('when it is lost', () => {
      const attrs = {scale: 1, causal: true, precision: 'float32'};
      const attend = (backend: MathBackendWebGL, x: TensorInfo) =>
        getKernel('FlashAttention', 'webgl').kernelFunc({
          inputs: {query: x, key: x, value: x},
          backend,
          attrs,
        }) as TensorInfo;
      const open = () => {
        const backend = new MathBackendWebGL(document.createElement('canvas'));
        return {
          backend,
          x: backend.makeTensorInfo(
            [1, 1, 4, 4],
            'float32',
            Float32Array.from({length: 16}, (_, i) => Math.sin(i)),
          ),
        };
      };
      const lose = (backend: MathBackendWebGL) => glOf(backend).getExtension('WEBGL_lose_context')!.loseContext();
      const failure = (promise: Promise<unknown>) =>
        promise.then(
          () => 'no failure',
          (error: Error) => error.message,
        );

      it('fails the read of an attention that was under way', async () => {
        const {backend, x} = open();
        const output = attend(backend, x);
        const pending = failure(backend.read(output.dataId));
        lose(backend);
        expect(await pending).to.match(/webgl: the context was lost before the values could be read/);
      });

      it('fails a read that comes later, and the next attention', async () => {
        const {backend, x} = open();
        const output = attend(backend, x);
        lose(backend);
        expect(await failure(Promise.resolve().then(() => backend.read(output.dataId)))).to.match(/context was lost/);
        expect(() => backend.readSync(output.dataId)).to.throw();
        expect(() => attend(backend, x)).to.throw('flashAttention: the WebGL context was lost');
      });

      it('makes its programs and textures anew where the browser restores it', async () => {
        const {backend, x} = open();
        const expected = await backend.read(attend(backend, x).dataId);
        const {canvas} = glOf(backend);
        const extension = glOf(backend).getExtension('WEBGL_lose_context')!;
        const event = (name: string) => new Promise((resolve) => canvas.addEventListener(name, resolve, {once: true}));
        const lost = event('webglcontextlost');
        extension.loseContext();
        await lost;
        // Not before all who listen have heard of it.
        await new Promise((resolve) => setTimeout(resolve));
        const restored = event('webglcontextrestored');
        extension.restoreContext();
        await restored;
        const again = new MathBackendWebGL(canvas as HTMLCanvasElement);
        const y = again.makeTensorInfo(
          x.shape,
          x.dtype,
          Float32Array.from({length: 16}, (_, i) => Math.sin(i)),
        );
        expect(await again.read(attend(again, y).dataId)).to.deep.equal(expected);
        expect(await again.read(attend(again, y).dataId)).to.deep.equal(expected);
      });

      it('says so whichever draw it is lost at, and another backend works', async () => {
        const expected = await (async ({backend, x}) => backend.read(attend(backend, x).dataId))(open());
        let losses = 0;
        for (let isLost = true; isLost; ++losses) {
          const {backend, x} = open();
          const gl = glOf(backend);
          const drawArrays = gl.drawArrays.bind(gl);
          let left = losses;
          gl.drawArrays = (...args) => {
            if (left-- === 0) lose(backend);
            drawArrays(...args);
          };
          const outcome = await failure(Promise.resolve().then(() => backend.read(attend(backend, x).dataId)));
          isLost = gl.isContextLost();
          expect(outcome).to.match(isLost ? /^(webgl|flashAttention): the (WebGL )?context was lost/ : /^no failure$/);
          if (!isLost) lose(backend);
          const other = open();
          expect(await other.backend.read(attend(other.backend, other.x).dataId)).to.deep.equal(expected);
          lose(other.backend);
        }
        expect(losses).to.be.at.least(5);
      });

      it('says so of a backend that was removed, and leaves another one alone', async () => {
        const [one, two] = [open(), open()];
        const [first, second] = [one, two].map(({backend, x}) => attend(backend, x));
        one.backend.dispose();
        const removed = 'the webgl backend was removed, and its tensors with it. Register it anew.';
        expect(await failure(one.backend.read(first.dataId))).to.equal(`webgl: ${removed}`);
        expect(() => one.backend.readSync(first.dataId)).to.throw(`webgl: ${removed}`);
        expect(() => attend(one.backend, one.x)).to.throw(`flashAttention: ${removed}`);
        expect(Math.max(...((await two.backend.read(second.dataId)) as Float32Array))).to.be.above(0.1);
      });

      it('still reads what was on the processor', async () => {
        const {backend, x} = open();
        const output = attend(backend, x);
        const values = await backend.read(output.dataId);
        lose(backend);
        expect(await backend.read(output.dataId)).to.deep.equal(values);
      });
    });
  });
}
