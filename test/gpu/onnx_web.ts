import type {Browser} from 'playwright-core';

interface Session {
  run(feeds: object): Promise<Record<string, {data: Float32Array; dispose(): void}>>;
}

interface OnnxRuntime {
  env: {wasm: {numThreads: number; wasmPaths: string}};
  InferenceSession: {create(path: string, options: object): Promise<Session>};
  Tensor: new (type: string, data: ArrayLike<number> | BigInt64Array, shape: number[]) => object;
}

/**
 * Milliseconds to the logits of the last row by onnxruntime-web's WebGPU provider, by length, in four runs, the first of which compiles. The
 * server's root has its files, and a decoder with float32 inputs and `GroupQueryAttention`: `input_ids`, `seqlens_k`,
 * `total_sequence_length` and `past_key_values.L.key/value`; `info.json` has its `layers`, `kv`, `dim`.
 */
export async function timeOnnxRuntimeWeb(
  browser: Browser,
  url: string,
  lengths: readonly number[],
): Promise<Record<string, number[]>> {
  const page = await browser.newPage();
  // A page of the server whose policy does not forbid modules of its own.
  await page.goto(`${url}info.json`);
  return page.evaluate(async (wanted) => {
    const path = '/ort.webgpu.bundle.min.mjs';
    const ort = (await import(path)) as OnnxRuntime;
    Object.assign(ort.env.wasm, {numThreads: 1, wasmPaths: '/'});
    const info = (await (await fetch('/info.json')).json()) as {layers: number; kv: number; dim: number};
    const ofLayers = (name: string) =>
      Array.from({length: info.layers}, (_, layer) => [`${name}.${layer}.key`, `${name}.${layer}.value`]).flat();
    const [past, present] = [ofLayers('past_key_values'), ofLayers('present')];
    const session = await ort.InferenceSession.create('/model.onnx', {
      executionProviders: ['webgpu'],
      externalData: [{path: 'model.onnx_data', data: '/model.onnx_data'}],
      preferredOutputLocation: Object.fromEntries(present.map((name) => [name, 'gpu-buffer'])),
    });
    const times: Record<string, number[]> = {};
    for (const length of wanted) {
      times[length] = [];
      for (let run = 0; run < 4; ++run) {
        const ids = BigInt64Array.from({length}, (_, i) => BigInt(1000 + ((i * 7919 + run * 31) % 40_000)));
        const empty = () => new ort.Tensor('float32', new Float32Array(0), [1, info.kv, 0, info.dim]);
        const start = performance.now();
        const outputs = await session.run({
          input_ids: new ort.Tensor('int64', ids, [1, length]),
          seqlens_k: new ort.Tensor('int32', Int32Array.of(length - 1), [1]),
          total_sequence_length: new ort.Tensor('int32', Int32Array.of(length), []),
          ...Object.fromEntries(past.map((name) => [name, empty()])),
        });
        if (!Number.isFinite(outputs.logits.data[0])) throw new Error('logits are not finite');
        times[length].push(Math.round(performance.now() - start));
        present.forEach((name) => outputs[name].dispose());
      }
    }
    return times;
  }, lengths);
}
