import {join, sep} from 'node:path';
import ts from 'typescript';

/**
 * What the compiler says of a file of the project and of the package's declarations. tfjs's own declarations are not asked:
 * some name types that they do not import.
 */
export function typeErrors(folder: string, file: string, resolution: 'NodeNext' | 'Bundler'): string[] {
  const program = ts.createProgram([join(folder, file)], {
    module: resolution === 'Bundler' ? ts.ModuleKind.ESNext : ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind[resolution],
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'],
    strict: true,
    noEmit: true,
    types: [],
  });
  const ours = program
    .getSourceFiles()
    .filter(({fileName}) => fileName.startsWith(folder) && !fileName.includes(`${sep}@tensorflow${sep}`));
  return [
    ...program.getOptionsDiagnostics(),
    ...ours.flatMap((source) => ts.getPreEmitDiagnostics(program, source)),
  ].map(
    ({file: source, messageText}) => `${source?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
  );
}
