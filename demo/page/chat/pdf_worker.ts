// Answers to pdfjs by itself when it is loaded. A file of its own, so that a build makes a worker's script of this origin of it.
import 'pdfjs-dist/legacy/build/pdf.worker.mjs';
