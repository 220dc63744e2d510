/** The texts that come with the page, in `books/`. */
export const BOOKS = {
  dubliners: {title: 'Dubliners', author: 'James Joyce', year: 1914},
  'the-scarlet-letter': {title: 'The Scarlet Letter', author: 'Nathaniel Hawthorne', year: 1850},
  'sense-and-sensibility': {title: 'Sense and Sensibility', author: 'Jane Austen', year: 1811},
} as const;

export type BookName = keyof typeof BOOKS;

export const BOOK_NAMES = Object.keys(BOOKS) as BookName[];

/** @throws Error named `DownloadError`. */
export async function fetchBook(name: BookName): Promise<string> {
  const url = new URL(`./books/${name}.txt`, document.baseURI);
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    return await response.text();
  } catch (error) {
    const failure = new Error(`${url.pathname} could not be loaded: ${(error as Error).message}`, {cause: error});
    failure.name = 'DownloadError';
    throw failure;
  }
}
