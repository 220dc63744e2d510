/** Shader text: the functions by which a shader reads an input that is rows. */
export const rowInput = (name: string) => `
uniform sampler2DArray ${name};
uniform int ${name}Shift;
uniform int ${name}Texels;
ivec2 ${name}At(int row) {
  return ivec2(row & ((1 << ${name}Shift) - 1), (row >> ${name}Shift) * ${name}Texels);
}
vec4 fetch${capital(name)}(ivec2 at, int texel, int layer) {
  return texelFetch(${name}, ivec3(at.x, at.y + texel, layer), 0);
}
vec4 read${capital(name)}(int row, int texel) {
  return fetch${capital(name)}(${name}At(row), texel, 0);
}`;

/** The same of one that is a tensor. Several values in a row have one division. */
export const tensorInput = (name: string) => `
uniform sampler2D ${name};
uniform int ${name}Width;
uniform int ${name}Offset;
ivec2 ${name}At(int i) {
  int at = ${name}Offset + i;
  int line = divide(at, ${name}Width);
  return ivec2(at - line * ${name}Width, line);
}
float read${capital(name)}(int i) {
  return texelFetch(${name}, ${name}At(i), 0).r;
}
ivec2 after${capital(name)}(ivec2 at) {
  int isNext = int(at.x + 1 >= ${name}Width);
  return ivec2(at.x + 1 - isNext * ${name}Width, at.y + isNext);
}
// The first \`count\` of four values, and zeros.
vec4 four${capital(name)}(ivec2 at, int count) {
  ivec2 at1 = after${capital(name)}(at);
  ivec2 at2 = after${capital(name)}(at1);
  ivec2 at3 = after${capital(name)}(at2);
  vec4 four = vec4(${['at', 'at1', 'at2', 'at3'].map((at) => `texelFetch(${name}, ${at}, 0).r`).join(', ')});
  return mix(vec4(0.0), four, lessThan(ivec4(0, 1, 2, 3), ivec4(count)));
}`;

export const divide = `
// Quotient of two whole numbers that are not negative, below 2^24, or with a quotient below 2^16, as of a line of a texture: integer
// division takes several times as long.
int divide(int a, int b) {
  int q = int((float(a) + 0.5) / float(b));
  int rest = a - q * b;
  return q + int(rest >= b) - int(rest < 0);
}`;

/** Shader text: runs `compute` where rows are drawn. */
export const rowMain = `uniform int outShift;
uniform int outTexels;
uniform int firstRow;
uniform int endRow;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  int band = divide(at.y, outTexels);
  int row = (band << outShift) + at.x;
  int texel = at.y - band * outTexels;
  // A band can hold rows that are not to be drawn, or that do not exist.
  if (row < firstRow || row >= endRow) {
    discard;
  }
  compute(row, texel);
}
`;

/** The same where a tensor is drawn. */
export const tensorMain = `uniform int outWidth;
uniform int outSize;
void main() {
  int index = int(gl_FragCoord.y) * outWidth + int(gl_FragCoord.x);
  if (index >= outSize) {
    discard;
  }
  compute(index);
}
`;

function capital(name: string): string {
  return name[0].toUpperCase() + name.slice(1);
}
