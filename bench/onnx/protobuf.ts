/**
 * The little of protocol buffers' wire format that an ONNX file takes, to write one without a dependency. A message is
 * the list of its encoded fields; large payloads are kept as they are until `concatenate`.
 */
export type Field = Uint8Array[];

const text = new TextEncoder();

/** A field of an integer type; not negative. */
export function integer(field: number, value: number): Field {
  return [Uint8Array.from([...varint(field << 3), ...varint(value)])];
}

/** A field of type float. */
export function float(field: number, value: number): Field {
  const bytes = new Uint8Array(5);
  bytes[0] = (field << 3) | 5;
  new DataView(bytes.buffer).setFloat32(1, value, true);
  return [bytes];
}

export function string(field: number, value: string): Field {
  return bytes(field, text.encode(value));
}

export function bytes(field: number, value: Uint8Array): Field {
  return [Uint8Array.from([...varint((field << 3) | 2), ...varint(value.byteLength)]), value];
}

/** A field that is itself a message. */
export function message(field: number, ...fields: Field[]): Field {
  const parts = fields.flat();
  const length = parts.reduce((sum, part) => sum + part.byteLength, 0);
  return [Uint8Array.from([...varint((field << 3) | 2), ...varint(length)]), ...parts];
}

export function concatenate(fields: Field[]): Uint8Array {
  const parts = fields.flat();
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.byteLength;
  }
  return all;
}

/** Seven bits a byte, lowest first; division instead of shifts, because lengths pass 2³¹. */
function varint(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  while (rest >= 128) {
    out.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...out, rest];
}
