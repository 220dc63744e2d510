import {readTextFile} from '../own_text';

export interface ReadDocument {
  name: string;
  text: string;
}

/** Far more than any context holds, pictures included. */
const MAX_PDF_BYTES = 200 * 2 ** 20;

/** @throws Error that says why a file is no document for a chat. */
export async function readDocument(file: File): Promise<ReadDocument> {
  const text = (await isPDF(file)) ? await readPDF(file) : await readTextFile(file);
  if (text.trim() === '')
    throw new Error(`${file.name} holds no text; accepted: text, also in a PDF that is not scanned`);
  return {name: file.name, text};
}

/** By its content, whatever it is called: some bytes may come before the mark. */
async function isPDF(file: File): Promise<boolean> {
  return (await file.slice(0, 1024).text()).includes('%PDF-');
}

async function readPDF(file: File): Promise<string> {
  if (file.size > MAX_PDF_BYTES) {
    throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB; accepted: a PDF of up to 200 MiB`);
  }
  try {
    const {pdfText} = await import('./pdf_text');
    return await pdfText(await file.arrayBuffer());
  } catch (error) {
    const {name, message} = error as Error;
    const why = name === 'PasswordException' ? 'it has a password' : message;
    throw new Error(`${file.name} cannot be read as a PDF: ${why}`, {cause: error});
  }
}
