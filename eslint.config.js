import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  {ignores: ['dist/', 'build/', '**/dist/', 'demo/public/']},
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    files: ['**/*.js', '**/*.cjs'],
    languageOptions: {globals: {process: 'readonly', console: 'readonly', URL: 'readonly'}},
  },
  {
    // Programs of users of the package, for Node in both module systems and for pages.
    files: ['test/package/consumer/**'],
    languageOptions: {globals: {console: 'readonly', require: 'readonly', window: 'writable'}},
    rules: {'@typescript-eslint/no-require-imports': 'off'},
  },
  {
    files: ['src/**/*.ts'],
    // The entry that makes a WebGPU device for tfjs is the one place that needs its backend.
    ignores: ['src/webgpu.ts'],
    rules: {
      // Backends are optional peers: the library may name their types, never load their code.
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          patterns: [
            {group: ['@tensorflow/tfjs-backend-*'], allowTypeImports: true, message: 'Import backends by type only.'},
          ],
        },
      ],
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
);
