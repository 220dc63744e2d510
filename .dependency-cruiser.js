/**
 * Which way imports may point, types included; `npm run lint` checks it. In src/, arrows go one way:
 *
 *   entries (src/*.ts) → tuning, layers, graph → ops → attention ← kernels/BACKEND/STAGE → wgsl or glsl → runtime
 *
 * and nothing anywhere goes round in a circle.
 */

const STAGE = '^src/kernels/[^/]+/(permute|select|attend|gradients)/';

export default {
  forbidden: [
    {name: 'no-circles', severity: 'error', from: {}, to: {circular: true}},
    {
      name: 'every-file-is-found',
      comment: 'Else the other rules would not see it.',
      severity: 'error',
      from: {},
      to: {couldNotResolve: true, path: '^[.]'},
    },
    {
      name: 'src-imports-src',
      comment: 'The library knows nothing of its demo, benchmarks, experiments, examples and tests.',
      severity: 'error',
      from: {path: '^src/'},
      to: {path: '^(demo|runner|hosts|bench|experiments|examples|test)/'},
    },
    {
      name: 'attention-knows-no-backend-and-no-op',
      comment: 'src/attention is what ops and backends share.',
      severity: 'error',
      from: {path: '^src/attention/'},
      to: {path: '^src/.+/', pathNot: '^src/attention/'},
    },
    {
      name: 'kernels-know-no-ops',
      comment: 'Kernels are called by name, through tfjs; beside each other they know src/attention alone.',
      severity: 'error',
      from: {path: '^src/kernels/'},
      to: {path: '^src/.+/', pathNot: '^src/(attention|kernels)/'},
    },
    {
      name: 'ops-know-no-tools',
      comment: 'The tuner, the layer and graph models are built of ops.',
      severity: 'error',
      from: {path: '^src/ops/'},
      to: {path: '^src/(tuning|layers|graph|model|script_tag)/'},
    },
    {
      name: 'a-backend-knows-no-other',
      severity: 'error',
      from: {path: '^src/kernels/(cpu|webgpu|webgl)/'},
      to: {path: '^src/kernels/(cpu|webgpu|webgl|composed)/', pathNot: '^src/kernels/$1/'},
    },
    {
      name: 'composed-kernels-know-the-cpu-alone',
      comment: 'Whose stages choose blocks for them.',
      severity: 'error',
      from: {path: '^src/kernels/composed/'},
      to: {path: '^src/kernels/(webgpu|webgl)/'},
    },
    {
      name: 'runtime-and-shader-words-know-no-stage',
      comment: 'runtime/ and wgsl/ or glsl/ are what stages are made of.',
      severity: 'error',
      from: {path: '^src/kernels/[^/]+/(runtime|wgsl|glsl)/'},
      to: {path: STAGE},
    },
    {
      name: 'a-stage-knows-no-index',
      comment: 'What puts stages together imports them, never the other way.',
      severity: 'error',
      from: {path: '^src/kernels/[^/]+/[^/]+/'},
      to: {path: '^src/kernels/[^/]+/index[.]ts$'},
    },
    {
      name: 'public-entries-only',
      comment:
        'Demo, runner, bench, experiments and examples use the entries of the package, and src/internal.ts for what is internal.',
      severity: 'error',
      from: {path: '^(demo|runner|hosts|bench|experiments|examples)/'},
      to: {path: '^src/.+/'},
    },
    {
      name: 'the-runner-knows-no-user',
      severity: 'error',
      from: {path: '^(runner|hosts)/'},
      to: {path: '^(demo|bench|experiments|examples|test)/'},
    },
    {
      name: 'the-demo-knows-no-bench',
      comment: 'But for how a call is timed, and on what: the page measures a device as the bench does.',
      severity: 'error',
      from: {path: '^demo/'},
      to: {
        path: '^(bench|experiments|examples)/',
        pathNot: '^bench/(call_timing|composed_attention|synthetic_attention)[.]ts$',
      },
    },
    {
      name: 'bench-knows-no-experiments',
      severity: 'error',
      from: {path: '^bench/'},
      to: {path: '^(experiments|examples)/'},
    },
  ],
  options: {
    tsConfig: {fileName: 'tsconfig.json'},
    tsPreCompilationDeps: true,
    doNotFollow: {path: 'node_modules'},
    // Programs that run in another project.
    exclude: {path: '^test/package/consumer/'},
  },
};
