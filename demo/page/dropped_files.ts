/** What dropped files are for. */
export type Dropped = {use: 'model'; files: File[]} | {use: 'text'; file: File} | {use: 'none'; why: string};

/** Files with weights or a configuration are a model, a lone file otherwise a text. */
export function sortDropped(files: File[]): Dropped {
  if (files.some(({name}) => /\.gguf$|\.safetensors(\.index\.json)?$|^config\.json$|^tokenizer\.json$/.test(name))) {
    return {use: 'model', files};
  }
  if (files.length === 1) return {use: 'text', file: files[0]};
  const what = files.length === 0 ? 'no file' : `${files.length} files, none of them of a model`;
  return {use: 'none', why: `${what}; accepted: one text, or the files or the folder of one model`};
}

/** The dropped files, and those directly in a dropped folder: a checkpoint has no folders of its own. */
export async function readDropped(transfer: DataTransfer): Promise<File[]> {
  // Entries are gone once the event's task has ended, so all are taken before the first wait.
  const items = [...transfer.items].map((item) => ({entry: item.webkitGetAsEntry(), file: item.getAsFile()}));
  const found = await Promise.all(
    items.map(async ({entry, file}) => {
      // A file that does not come from a file system, such as a picture of another page, has no entry.
      if (entry === null) return file === null ? [] : [file];
      const inside = isFolder(entry) ? await listFolder(entry) : [entry];
      return Promise.all(inside.filter(isFile).map(readEntry));
    }),
  );
  return found.flat();
}

async function listFolder(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader();
  const entries: FileSystemEntry[] = [];
  // A batch at a time; an empty one is the end.
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) return entries;
    entries.push(...batch);
  }
}

function readEntry(entry: FileSystemFileEntry): Promise<File> {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

function isFolder(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory;
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}

/** Takes files that are dropped anywhere on the page, and shows that they can be. */
export function takeDrops(onDrop: (files: Promise<File[]>) => void): void {
  const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;
  const mark = (over: boolean) => document.body.classList.toggle('dropping', over);
  document.addEventListener('dragover', (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  document.addEventListener('dragleave', ({relatedTarget}) => {
    if (relatedTarget === null) mark(false);
  });
  document.addEventListener('drop', (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(false);
    onDrop(readDropped(event.dataTransfer!));
  });
}
