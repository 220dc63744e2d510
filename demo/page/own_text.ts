/** Far more than the longest prompt takes: 16,384 tokens are about 80,000 characters of English. */
const MAX_BYTES = 8 * 2 ** 20;

/** @throws Error that says why a file is no text for a prompt. */
export async function readTextFile(file: File): Promise<string> {
  if (file.size > MAX_BYTES) {
    throw new Error(`${file.name} has ${(file.size / 2 ** 20).toFixed(0)} MiB; accepted: text of up to 8 MiB`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', {fatal: true}).decode(await file.arrayBuffer());
  } catch (error) {
    if (!(error instanceof TypeError))
      throw new Error(`${file.name} cannot be read: ${(error as Error).message}`, {cause: error});
    throw new Error(`${file.name} is not a text in UTF-8; accepted: plain text, saved as UTF-8`, {cause: error});
  }
  if (text.includes('\0')) throw new Error(`${file.name} is not a text: it holds zero bytes; accepted: plain text`);
  return text;
}
