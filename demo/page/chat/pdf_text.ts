import {getDocument, PDFWorker, type PDFPageProxy} from 'pdfjs-dist/legacy/build/pdf.mjs';

/**
 * The text of a PDF, page by page, by pdf.js. Its own module, as only who opens a PDF loads it.
 *
 * @throws what pdf.js throws.
 */
export async function pdfText(data: ArrayBuffer): Promise<string> {
  const port = new Worker(new URL('./pdf_worker.ts', import.meta.url), {type: 'module', name: 'pdf'});
  const worker = PDFWorker.create({port});
  try {
    const document = await getDocument({
      data,
      worker,
      // Texts in Chinese, Japanese and Korean name their encodings.
      cMapUrl: new URL('./cmaps/', window.document.baseURI).href,
      // Nothing is drawn.
      disableFontFace: true,
      useWasm: false,
      verbosity: 0,
    }).promise;
    const pages: string[] = [];
    for (let number = 1; number <= document.numPages; ++number) {
      const page = await document.getPage(number);
      pages.push(await pageText(page));
      page.cleanup();
    }
    return pages.join('\n\n').trim();
  } finally {
    worker.destroy();
    port.terminate();
  }
}

async function pageText(page: PDFPageProxy): Promise<string> {
  const {items} = await page.getTextContent();
  return items
    .map((item) => ('str' in item ? item.str + (item.hasEOL ? '\n' : '') : ''))
    .join('')
    .trim();
}
