import type {Tensor, Tensor4D} from '@tensorflow/tfjs-core';
import {
  getKernel,
  memory,
  ones,
  randomNormal,
  registerKernel,
  setBackend,
  unregisterKernel,
  zeros,
} from '@tensorflow/tfjs-core';
import {expect} from 'chai';
import type {PBSAttentionOptions} from '../../src/index';
import {
  extendPBSAttentionPlan,
  flashAttention,
  pbsAttention,
  pbsAttentionDensity,
  pbsAttentionPlan,
} from '../../src/index';
import type {RegisteredKernel} from '../../src/attention/attention_kernels';
import {version} from '../../src/version';

const tensor = (...shape: number[]) => ones(shape as [number, number, number, number]) as Tensor4D;

describe('arguments', () => {
  before(() => setBackend('cpu'));

  const q = () => tensor(2, 4, 6, 8);
  const kv = () => tensor(2, 2, 6, 8);
  const wrongTensors: Array<[string, () => [unknown, unknown, unknown], RegExp]> = [
    ['rank', () => [tensor(6, 8), kv(), kv()], /query: got float32 \[6,8\]; takes a float32 tensor \[batch, heads/],
    [
      'mixed ranks',
      () => [tensor(4, 6, 8), kv(), kv()],
      /key: got float32 \[2,2,6,8\]; takes a float32 tensor \[keyValueHeads, .* as the query is one of rank 3/,
    ],
    [
      'mixed ranks',
      () => [q(), tensor(2, 6, 8), kv()],
      /key: got float32 \[2,6,8\]; takes a float32 tensor \[batch, keyV/,
    ],
    ['ragged arrays', () => [q(), [[[1, 2]], [[1]]], kv()], /key: got arrays of different lengths; takes nested/],
    ['dtype', () => [q(), ones([2, 2, 6, 8], 'int32'), kv()], /key: got int32 \[2,2,6,8\]; takes a float32 tensor/],
    ['no tensor', () => [q(), kv(), [1, 2]], /value: got float32 \[2\]; takes a float32 tensor/],
    ['undefined', () => [undefined, kv(), kv()], /query: got undefined; takes/],
    ['batch', () => [q(), tensor(1, 2, 6, 8), kv()], /key: got key \[1,2,6,8\] with query \[2,4,6,8\].*batch, 2/],
    ['length', () => [q(), kv(), tensor(2, 2, 5, 8)], /value: got value \[2,2,5,8\] with key.*the key's length, 6/],
    [
      'more queries than keys',
      () => [q(), tensor(2, 2, 5, 8), tensor(2, 2, 5, 8)],
      /query: got query.*or causal: false/,
    ],
    ['batch of value', () => [q(), kv(), tensor(1, 2, 6, 8)], /value: got value \[1,2,6,8\].*key's batch, 2/],
    ['head dim', () => [q(), tensor(2, 2, 6, 4), kv()], /key: got key \[2,2,6,4\].*headDim, 8/],
    ['heads', () => [q(), tensor(2, 3, 6, 8), kv()], /key: got key \[2,3,6,8\].*divides the query's 4/],
    ['heads of value', () => [q(), kv(), tensor(2, 4, 6, 8)], /value: got value.*key's number of heads, 2/],
    ['empty', () => [zeros([2, 4, 0, 8]), zeros([2, 2, 0, 8]), zeros([2, 2, 0, 8])], /query:.*no dimension of 0/],
  ];
  for (const [name, make, message] of wrongTensors) {
    it(`names a wrong tensor: ${name}`, () => {
      const [query, key, value] = make() as [Tensor4D, Tensor4D, Tensor4D];
      for (const [op, run] of Object.entries<typeof pbsAttention>({flashAttention, pbsAttention})) {
        expect(() => run(query, key, value))
          .to.throw(Error, message)
          .with.property('message')
          .match(new RegExp(`^${op}: `));
      }
      if (!/value/.test(message.source)) {
        expect(() => pbsAttentionPlan(query, key)).to.throw(Error, message);
      }
    });
  }

  it('chained ops take the tensor as query', async () => {
    const [query, key, value] = [q(), kv(), kv()].map(({shape}) => randomNormal(shape)) as Tensor4D[];
    for (const [op, chained, plain] of [
      ['flashAttention', query.flashAttention(key, value, {scale: 2}), flashAttention(query, key, value, {scale: 2})],
      ['pbsAttention', query.pbsAttention(key, value), pbsAttention(query, key, value)],
    ] as const) {
      expect(Array.from(await chained.data())).to.deep.equal(Array.from(await plain.data()));
      expect(() => (ones([6, 8]) as Tensor)[op as 'pbsAttention'](key, value)).to.throw(
        Error,
        `${op}: query: got float32 [6,8]; takes`,
      );
    }
  });

  it('names a disposed tensor', () => {
    const gone = q();
    gone.dispose();
    expect(() => flashAttention(gone, kv(), kv())).to.throw('flashAttention: query: got a disposed tensor');
  });

  const wrongOptions: Array<[object, RegExp]> = [
    [{threshold: 1.1}, /threshold: got 1.1; takes a number from 0 to 1/],
    [{threshold: -0.1}, /threshold: got -0.1;/],
    [{expectedDensity: 1.1}, /expectedDensity: got 1.1; takes a number from 0 to 1/],
    [{expectedDensity: '0.3'}, /expectedDensity: got '0.3';/],
    [{threshold: NaN}, /threshold: got NaN;/],
    [{threshold: '0.9'}, /threshold: got '0.9';/],
    [{scale: Infinity}, /scale: got Infinity; takes a finite number/],
    [{scale: NaN}, /scale: got NaN;/],
    [{blockSize: 0}, /blockSize: got 0; takes a positive 32-bit integer/],
    [{blockSize: 2.5}, /blockSize: got 2.5;/],
    [{keyBlockSize: 0}, /keyBlockSize: got 0; takes a positive 32-bit integer/],
    [{keyBlockSize: '64'}, /keyBlockSize: got '64';/],
    [
      {keyBlockSize: 64, segmentSize: 100},
      /segmentSize: got 100 with keyBlockSize 64; takes a multiple of keyBlockSize/,
    ],
    [{blockSize: 48, segmentSize: 100}, /segmentSize: got 100 with keyBlockSize 48;/],
    [{blockSize: 256, segmentSize: 32}, /segmentSize: got 32 with keyBlockSize 64;/],
    [{precision: 'half'}, /precision: got 'half'; takes 'float32' or 'float16'/],
    [{causal: 1}, /causal: got 1; takes true or false/],
    [{permute: 'no'}, /permute: got 'no'; takes true or false/],
    [{auto: 'never'}, /auto: got 'never'; takes true or false/],
    [{causalSafe: null}, /causalSafe: got null; takes true or false/],
    [{estimate: 'probed'}, /estimate: got 'probed'; takes 'sampled' or 'pooled'/],
    [{estimate: true}, /estimate: got true;/],
    [{treshold: 0.5}, /options: got 'treshold'; takes .*threshold/],
  ];
  for (const [options, message] of wrongOptions) {
    it(`names a wrong option: ${JSON.stringify(options)}`, () => {
      const given = options as PBSAttentionOptions;
      expect(() => pbsAttention(q(), kv(), kv(), given)).to.throw(Error, message);
      expect(() => pbsAttentionPlan(q(), kv(), given)).to.throw(Error, message);
    });
  }

  const wrongInputs: Array<[ops: string, options: () => object, message: RegExp]> = [
    [
      'all',
      () => ({queryOffset: 1}),
      /queryOffset: got 1 for 6 queries and 6 keys; takes an integer from 0 to keyLength/,
    ],
    ['all', () => ({queryOffset: -1}), /queryOffset: got -1/],
    ['all', () => ({queryOffset: 0.5, causal: false}), /queryOffset: got 0.5/],
    ['all', () => ({keyLengths: [6]}), /keyLengths: got \[6\]; takes 2 integers from 0 to 6, or an int32 tensor \[2\]/],
    ['all', () => ({keyLengths: [6, 7]}), /keyLengths: got \[6,7\];/],
    ['all', () => ({keyLengths: [1.5, -1]}), /keyLengths: got \[1.5,-1\];/],
    ['all', () => ({keyLengths: 6}), /keyLengths: got 6;/],
    // eslint-disable-next-line no-sparse-arrays
    ['all', () => ({keyLengths: [, 6]}), /keyLengths: got \[,6\];/],
    [
      'all',
      () => ({keyLengths: new Array(1e6).fill(3)}),
      /keyLengths: got \[3,3,3,3,3,3,3,3, and 999992 more\]; takes 2/,
    ],
    ['all', () => ({window: 0}), /window: got 0; takes an integer from 1 on/],
    ['all', () => ({window: 2.5}), /window: got 2.5;/],
    ['all', () => ({softCap: 0}), /softCap: got 0; takes a number from 1e-30 to 1e30/],
    ['all', () => ({softCap: NaN}), /softCap: got NaN;/],
    [
      'all',
      () => ({sinks: [1, 2]}),
      /sinks: got \[1,2\]; takes 4 finite numbers, one for each query head, or a float32 tensor \[4\]/,
    ],
    ['all', () => ({sinks: 1}), /sinks: got 1;/],
    ['all', () => ({alibiSlopes: [1, 2, 3, Infinity]}), /alibiSlopes: got \[1,2,3,Infinity\];/],
    ['all', () => ({alibiSlopes: ones([4], 'int32')}), /alibiSlopes: got int32 \[4\];/],
    ['all', () => ({queryOffset: 7, causal: false, window: 2}), /queryOffset: got 7 .* from 0 to keyLength\./],
    ['all', () => 0.9 as never, /options: got 0\.9; takes an object of options/],
    ['all', () => null as never, /options: got null; takes an object of options/],
    [
      'all',
      () => ones([1, 1, 6, 6]) as never,
      /options: got Tensor; takes an object of options, of which a mask is one/,
    ],
    ['all', () => ({keyLengths: ones([2])}), /keyLengths: got float32 \[2\];/],
    ['all', () => ({keyLengths: ones([2, 1], 'int32')}), /keyLengths: got int32 \[2,1\];/],
    [
      'all',
      () => ({mask: [1]}),
      /mask: got Array; takes a bool, int32 \(0 and 1\) or float32 \(added\) tensor of rank 4 that broadcasts to \[2,4,6,6\]/,
    ],
    ['all', () => ({mask: ones([6, 6])}), /mask: got float32 \[6,6\];/],
    ['all', () => ({mask: ones([2, 2, 6, 6])}), /mask: got float32 \[2,2,6,6\];/],
    ['all', () => ({mask: ones([1, 1, 6, 6], 'complex64')}), /mask: got complex64 \[1,1,6,6\];/],
    ['flash', () => ({plan: {}}), /options: got 'plan'; takes/],
    ['pbs', () => ({plan: {}}), /plan: got Object; takes what pbsAttentionPlan or extendPBSAttentionPlan returned/],
    ['pbs', () => ({plan: null}), /plan: got null; takes what/],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(tensor(2, 4, 5, 8), tensor(2, 2, 5, 8))}),
      /plan: got int32 \[2,4,5\]; takes keyIndices/,
    ],
    ['pbs', () => ({plan: pbsAttentionPlan(q(), tensor(2, 2, 7, 8))}), /plan: got int32 \[2,4,7\]; takes keyIndices/],
    [
      'pbs',
      () => ({plan: {...pbsAttentionPlan(q(), kv(), {blockSize: 2}), sizes: undefined}}),
      /plan: got bool \[2,4,3,3\]; takes .*blocks of 128 queries and 64 keys/,
    ],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(q(), kv(), {blockSize: 2}), blockSize: 128}),
      /blockSize: got 128 with a plan of 2; takes 2, also where it is not given/,
    ],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(q(), kv(), {blockSize: 2}), keyBlockSize: 1}),
      /keyBlockSize: got 1 with a plan of 2; takes 2, also where it is not given/,
    ],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(q(), kv(), {blockSize: 2, segmentSize: 4}), segmentSize: 2}),
      /segmentSize: got 2 with a plan of 4;/,
    ],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(q(), kv(), {causal: false}), causal: true}),
      /causal: got true with a plan of false;/,
    ],
    ['pbs', () => ({plan: pbsAttentionPlan(q(), kv()), window: 3}), /window: got 3 with a plan of none; takes none/],
    [
      'pbs',
      () => ({plan: pbsAttentionPlan(q(), kv(), {window: 2}), window: 3}),
      /window: got 3 with a plan of 2; takes 2, also where it is not given/,
    ],
    ['plan', () => ({plan: {}}), /options: got 'plan'; takes/],
  ];
  for (const [ops, make, message] of wrongInputs) {
    it(`names a wrong input of ${ops}: ${message.source}`, () => {
      const given = make() as object;
      const runs = {
        flash: () => flashAttention(q(), kv(), kv(), given),
        pbs: () => pbsAttention(q(), kv(), kv(), given),
        plan: () => pbsAttentionPlan(q(), kv(), given),
      };
      for (const [name, run] of Object.entries(runs)) {
        if (ops === 'all' || ops === name) {
          expect(run, name).to.throw(Error, message);
        }
      }
    });
  }

  it('names what extendPBSAttentionPlan cannot take', () => {
    const sizes = {blockSize: 2, segmentSize: 4};
    const plan = pbsAttentionPlan(q(), kv(), sizes);
    const token = tensor(2, 4, 1, 8);
    const extend =
      (key: Tensor4D, options: object, of: unknown = plan) =>
      () =>
        extendPBSAttentionPlan(of as typeof plan, token, key, options);
    expect(extend(tensor(2, 2, 5, 8), sizes)).to.throw(
      'extendPBSAttentionPlan: plan: got one of 6 keys for a key [2,2,5,8]; takes a plan of as many keys or fewer.',
    );
    const byHand = {...plan, sizes: undefined};
    expect(extend(kv(), {segmentSize: 8})).to.throw(/segmentSize: got 8 with a plan of 4;/);
    expect(extend(kv(), {}, byHand)).to.throw(
      /plan: got bool \[2,4,3,3\]; takes blockMask as bool \[2,4,3,1\].*blocks of 128 queries and 64 keys/,
    );
    expect(extend(kv(), sizes, null)).to.throw(/plan: got null; takes what pbsAttentionPlan/);
    expect(extend(tensor(2, 2, 7, 8), {...sizes, queryOffset: 7})).to.throw(
      /queryOffset: got 7 for 1 queries and 7 keys/,
    );
    expect(extend(kv(), {...sizes, plan})).to.throw(/options: got 'plan'/);
    expect(extend(tensor(1, 2, 7, 8), sizes)).to.throw(/key: got key \[1,2,7,8\].*batch, 2/);
  });

  it('takes the rows of a plan from the plan, and refuses others', async () => {
    const [query, key] = [tensor(2, 4, 2, 8), kv()];
    const plan = pbsAttentionPlan(query, key, {blockSize: 2, segmentSize: 4, threshold: 1, queryOffset: 2});
    const attended = await pbsAttention(query, key, key, {plan}).data();
    const expected = await flashAttention(query, key, key, {queryOffset: 2}).data();
    attended.forEach((x, i) => expect(x).to.be.closeTo(expected[i], 1e-5));
    expect(() => pbsAttention(query, key, key, {plan, queryOffset: 4})).to.throw(
      'pbsAttention: queryOffset: got 4 with a plan of rows from 2; takes 2, also where it is not given.',
    );
    expect(() => pbsAttention(tensor(2, 4, 1, 8), key, key, {plan})).to.throw(
      'pbsAttention: query: got [2,4,1,8] with a plan for 2 rows; takes the 2 rows that the plan was made for.',
    );
    const density = await pbsAttentionDensity(plan, {queryOffset: 0}).catch((error: Error) => error);
    expect(density)
      .to.be.an('error')
      .with.property('message')
      .match(/queryOffset: got 0 with a plan of rows from 2/);
    const all = pbsAttentionPlan(query, key, {
      blockSize: 2,
      segmentSize: 4,
      threshold: 1,
      causal: false,
      queryOffset: 9,
    });
    expect(await pbsAttentionDensity(all, {queryOffset: 9}), 'without a causal mask it says nothing').to.equal(1);
  });

  it('has blocks of keys no longer than those of queries by default, of up to 64', () => {
    for (const [given, keyBlockSize] of [
      [{}, 64],
      [{blockSize: 256}, 64],
      [{blockSize: 16}, 16],
      [{blockSize: 16, keyBlockSize: 128}, 128],
    ] as const) {
      expect(pbsAttentionPlan(q(), kv(), given).sizes).to.include({blockSize: 128, ...given, keyBlockSize});
    }
  });

  it('takes an undefined option for the default', async () => {
    const [query, key] = [q(), kv()];
    const plain = await pbsAttention(query, key, key).data();
    const given = await pbsAttention(query, key, key, {threshold: undefined, scale: undefined}).data();
    expect(Array.from(given)).to.deep.equal(Array.from(plain));
    expect(Array.from(await pbsAttention(query, key, key, {mask: undefined}).data())).to.deep.equal(Array.from(plain));
  });

  it('refuses kernels that another version of the package has registered', () => {
    const kernel = getKernel('PBSAttention', 'cpu') as RegisteredKernel;
    expect(kernel.packageVersion).to.equal(version);
    unregisterKernel('PBSAttention', 'cpu');
    registerKernel({...kernel, packageVersion: '0.0.9'} as RegisteredKernel);
    try {
      const message = `pbsAttention: kernel: got that of tfjs-pbs-attention 0.0.9, loaded first; takes that of ${version}`;
      expect(() => pbsAttention(q(), kv(), kv())).to.throw(Error, message);
    } finally {
      unregisterKernel('PBSAttention', 'cpu');
      registerKernel(kernel);
    }
  });

  it('rejects a density asked with another block size than the plan has', async () => {
    const plan = pbsAttentionPlan(q(), kv(), {blockSize: 2, segmentSize: 4});
    for (const [of, message] of [
      [plan, /pbsAttentionDensity: blockSize: got 3 with a plan of 2/],
      [{...plan, sizes: undefined}, /pbsAttentionDensity: plan: got a mask \[2,4,3,3\] for 6 keys/],
      [undefined, /pbsAttentionDensity: plan: got undefined; takes what pbsAttentionPlan returned/],
    ] as const) {
      const options = {blockSize: 3, segmentSize: 6};
      const rejected = await pbsAttentionDensity(of as typeof plan, options).catch((error: Error) => error);
      expect(rejected).to.be.an('error').with.property('message').match(message);
    }
  });

  it('rejects a density of a chunk that does not say where it starts', async () => {
    const options = {blockSize: 2, segmentSize: 4};
    const plan = {...pbsAttentionPlan(tensor(2, 4, 1, 8), kv(), options), sizes: undefined};
    for (const [queryOffset, message] of [
      [undefined, /queryOffset: got none for a mask \[2,4,1,3\]; takes the position of the first query row/],
      [6, /queryOffset: got 6 for 6 keys; takes an integer below the number of keys/],
    ] as const) {
      const rejected = await pbsAttentionDensity(plan, {...options, queryOffset}).catch((error: Error) => error);
      expect(rejected).to.be.an('error').with.property('message').match(message);
    }
  });

  it('leaks nothing when it throws', () => {
    const [query, key] = [q(), kv()];
    const before = memory().numTensors;
    expect(() => pbsAttention(query, key, key, {threshold: 2})).to.throw();
    expect(memory().numTensors).to.equal(before);
  });
});
