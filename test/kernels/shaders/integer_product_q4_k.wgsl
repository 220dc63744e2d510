// A workgroup computes 64 rows of the product with 64 rows of the matrix, an invocation (px, py) those of every 16th of each, 4 by 4. It walks
// along the inputs, 2 groups at a time: all whole numbers of a group are multiplied and added as whole numbers, four a word, and only
// the group's sum is scaled.
//
// Workgroup memory: of 2 groups the whole numbers of all rows, half a group a vector, by halves and then by rows, so that
// neighbours read side by side; and their scales.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return bitcast<vec2<f32>>(vec2<i32>(scales[2 * group + 0], scales[2 * group + 1]));
}

fn wholes(group : i32, part : i32) -> vec4<u32> {
  let at = group * 4;
  return bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u);
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}

fn integersOf(group : i32, part : i32) -> vec4<i32> {
  return vec4<i32>(wholes(group, part));
}
var<workgroup> xs : array<vec4<u32>, 256>;
var<workgroup> xScales : array<vec2<f32>, 128>;
var<workgroup> ws : array<vec4<u32>, 256>;
var<workgroup> wScales : array<vec4<f32>, 128>;

fn main(index : i32) {
  let local = i32(localIndex);
  let rows = uniforms.outShape.x;
  let outputs = uniforms.outShape.y;
  let groups = uniforms.xShape.y;
  let tilesAcross = (outputs + 63) / 64;
  // Neighbouring workgroups take the same rows of x. Rows past the last one are the last one again, and are not written.
  let firstRow = workgroupIndex() / tilesAcross * 64;
  let firstOutput = workgroupIndex() % tilesAcross * 64;
  let px = local % 16;
  let py = local / 16;
  // Half a group of a row each, when they are loaded: 64 rows, 2 groups, 2 halves.
  let loadRow = local % 64;
  let loadGroup = local / 64 / 2;
  let loadHalf = local / 64 % 2;
  let xRow = min(firstRow + loadRow, rows - 1);
  let wRow = min(firstOutput + loadRow, outputs - 1);
  let scalesAt = uniforms.xShape.x * groups * 2;
  var sums = array<array<f32, 4>, 4>();
  for (var first = 0; first < groups; first += 2) {
    let group = first + loadGroup;
    let place = (loadGroup * 2 + loadHalf) * 64 + loadRow;
    xs[place] = bitcast<vec4<u32>>(x[(xRow * groups + group) * 2 + loadHalf]);
    let w = wRow * groups + group;
    ws[place] = vec4<u32>(pack4xI8(integersOf(w, 4 * loadHalf + 0)), pack4xI8(integersOf(w, 4 * loadHalf + 1)), pack4xI8(integersOf(w, 4 * loadHalf + 2)), pack4xI8(integersOf(w, 4 * loadHalf + 3)));
    if (loadHalf == 0) {
      let at = xRow * groups + group;
      let pair = bitcast<vec4<f32>>(x[scalesAt + at / 2]);
      xScales[loadGroup * 64 + loadRow] = select(pair.xy, pair.zw, at % 2 == 1);
      let scale = scaleOf(w);
      wScales[loadGroup * 64 + loadRow] = vec4<f32>(scale.x, scale.x, scale.y, 0.0);
    }
    // Barrier: all read what others loaded.
    workgroupBarrier();
    for (var g = 0; g < 2; g++) {
      let w0_0 = ws[(2 * g + 0) * 64 + px + 0];
    let w0_1 = ws[(2 * g + 0) * 64 + px + 16];
    let w0_2 = ws[(2 * g + 0) * 64 + px + 32];
    let w0_3 = ws[(2 * g + 0) * 64 + px + 48];
    let w1_0 = ws[(2 * g + 1) * 64 + px + 0];
    let w1_1 = ws[(2 * g + 1) * 64 + px + 16];
    let w1_2 = ws[(2 * g + 1) * 64 + px + 32];
    let w1_3 = ws[(2 * g + 1) * 64 + px + 48];
      let scales0 = wScales[g * 64 + px + 0];
    let scales1 = wScales[g * 64 + px + 16];
    let scales2 = wScales[g * 64 + px + 32];
    let scales3 = wScales[g * 64 + px + 48];
      {
        let xScale = xScales[g * 64 + py + 0];
        let x0_0 = xs[(2 * g + 0) * 64 + py + 0];
    let x1_0 = xs[(2 * g + 1) * 64 + py + 0];
        sums[0][0] += xScale.x * (scales0.x * f32(dot4I8Packed(x0_0[0], w0_0[0]) + dot4I8Packed(x0_0[1], w0_0[1]) + dot4I8Packed(x0_0[2], w0_0[2]) + dot4I8Packed(x0_0[3], w0_0[3]) + dot4I8Packed(x1_0[0], w1_0[0]) + dot4I8Packed(x1_0[1], w1_0[1]) + dot4I8Packed(x1_0[2], w1_0[2]) + dot4I8Packed(x1_0[3], w1_0[3]))) + xScale.y * scales0.z;
    sums[0][1] += xScale.x * (scales1.x * f32(dot4I8Packed(x0_0[0], w0_1[0]) + dot4I8Packed(x0_0[1], w0_1[1]) + dot4I8Packed(x0_0[2], w0_1[2]) + dot4I8Packed(x0_0[3], w0_1[3]) + dot4I8Packed(x1_0[0], w1_1[0]) + dot4I8Packed(x1_0[1], w1_1[1]) + dot4I8Packed(x1_0[2], w1_1[2]) + dot4I8Packed(x1_0[3], w1_1[3]))) + xScale.y * scales1.z;
    sums[0][2] += xScale.x * (scales2.x * f32(dot4I8Packed(x0_0[0], w0_2[0]) + dot4I8Packed(x0_0[1], w0_2[1]) + dot4I8Packed(x0_0[2], w0_2[2]) + dot4I8Packed(x0_0[3], w0_2[3]) + dot4I8Packed(x1_0[0], w1_2[0]) + dot4I8Packed(x1_0[1], w1_2[1]) + dot4I8Packed(x1_0[2], w1_2[2]) + dot4I8Packed(x1_0[3], w1_2[3]))) + xScale.y * scales2.z;
    sums[0][3] += xScale.x * (scales3.x * f32(dot4I8Packed(x0_0[0], w0_3[0]) + dot4I8Packed(x0_0[1], w0_3[1]) + dot4I8Packed(x0_0[2], w0_3[2]) + dot4I8Packed(x0_0[3], w0_3[3]) + dot4I8Packed(x1_0[0], w1_3[0]) + dot4I8Packed(x1_0[1], w1_3[1]) + dot4I8Packed(x1_0[2], w1_3[2]) + dot4I8Packed(x1_0[3], w1_3[3]))) + xScale.y * scales3.z;
      }
    {
        let xScale = xScales[g * 64 + py + 16];
        let x0_1 = xs[(2 * g + 0) * 64 + py + 16];
    let x1_1 = xs[(2 * g + 1) * 64 + py + 16];
        sums[1][0] += xScale.x * (scales0.x * f32(dot4I8Packed(x0_1[0], w0_0[0]) + dot4I8Packed(x0_1[1], w0_0[1]) + dot4I8Packed(x0_1[2], w0_0[2]) + dot4I8Packed(x0_1[3], w0_0[3]) + dot4I8Packed(x1_1[0], w1_0[0]) + dot4I8Packed(x1_1[1], w1_0[1]) + dot4I8Packed(x1_1[2], w1_0[2]) + dot4I8Packed(x1_1[3], w1_0[3]))) + xScale.y * scales0.z;
    sums[1][1] += xScale.x * (scales1.x * f32(dot4I8Packed(x0_1[0], w0_1[0]) + dot4I8Packed(x0_1[1], w0_1[1]) + dot4I8Packed(x0_1[2], w0_1[2]) + dot4I8Packed(x0_1[3], w0_1[3]) + dot4I8Packed(x1_1[0], w1_1[0]) + dot4I8Packed(x1_1[1], w1_1[1]) + dot4I8Packed(x1_1[2], w1_1[2]) + dot4I8Packed(x1_1[3], w1_1[3]))) + xScale.y * scales1.z;
    sums[1][2] += xScale.x * (scales2.x * f32(dot4I8Packed(x0_1[0], w0_2[0]) + dot4I8Packed(x0_1[1], w0_2[1]) + dot4I8Packed(x0_1[2], w0_2[2]) + dot4I8Packed(x0_1[3], w0_2[3]) + dot4I8Packed(x1_1[0], w1_2[0]) + dot4I8Packed(x1_1[1], w1_2[1]) + dot4I8Packed(x1_1[2], w1_2[2]) + dot4I8Packed(x1_1[3], w1_2[3]))) + xScale.y * scales2.z;
    sums[1][3] += xScale.x * (scales3.x * f32(dot4I8Packed(x0_1[0], w0_3[0]) + dot4I8Packed(x0_1[1], w0_3[1]) + dot4I8Packed(x0_1[2], w0_3[2]) + dot4I8Packed(x0_1[3], w0_3[3]) + dot4I8Packed(x1_1[0], w1_3[0]) + dot4I8Packed(x1_1[1], w1_3[1]) + dot4I8Packed(x1_1[2], w1_3[2]) + dot4I8Packed(x1_1[3], w1_3[3]))) + xScale.y * scales3.z;
      }
    {
        let xScale = xScales[g * 64 + py + 32];
        let x0_2 = xs[(2 * g + 0) * 64 + py + 32];
    let x1_2 = xs[(2 * g + 1) * 64 + py + 32];
        sums[2][0] += xScale.x * (scales0.x * f32(dot4I8Packed(x0_2[0], w0_0[0]) + dot4I8Packed(x0_2[1], w0_0[1]) + dot4I8Packed(x0_2[2], w0_0[2]) + dot4I8Packed(x0_2[3], w0_0[3]) + dot4I8Packed(x1_2[0], w1_0[0]) + dot4I8Packed(x1_2[1], w1_0[1]) + dot4I8Packed(x1_2[2], w1_0[2]) + dot4I8Packed(x1_2[3], w1_0[3]))) + xScale.y * scales0.z;
    sums[2][1] += xScale.x * (scales1.x * f32(dot4I8Packed(x0_2[0], w0_1[0]) + dot4I8Packed(x0_2[1], w0_1[1]) + dot4I8Packed(x0_2[2], w0_1[2]) + dot4I8Packed(x0_2[3], w0_1[3]) + dot4I8Packed(x1_2[0], w1_1[0]) + dot4I8Packed(x1_2[1], w1_1[1]) + dot4I8Packed(x1_2[2], w1_1[2]) + dot4I8Packed(x1_2[3], w1_1[3]))) + xScale.y * scales1.z;
    sums[2][2] += xScale.x * (scales2.x * f32(dot4I8Packed(x0_2[0], w0_2[0]) + dot4I8Packed(x0_2[1], w0_2[1]) + dot4I8Packed(x0_2[2], w0_2[2]) + dot4I8Packed(x0_2[3], w0_2[3]) + dot4I8Packed(x1_2[0], w1_2[0]) + dot4I8Packed(x1_2[1], w1_2[1]) + dot4I8Packed(x1_2[2], w1_2[2]) + dot4I8Packed(x1_2[3], w1_2[3]))) + xScale.y * scales2.z;
    sums[2][3] += xScale.x * (scales3.x * f32(dot4I8Packed(x0_2[0], w0_3[0]) + dot4I8Packed(x0_2[1], w0_3[1]) + dot4I8Packed(x0_2[2], w0_3[2]) + dot4I8Packed(x0_2[3], w0_3[3]) + dot4I8Packed(x1_2[0], w1_3[0]) + dot4I8Packed(x1_2[1], w1_3[1]) + dot4I8Packed(x1_2[2], w1_3[2]) + dot4I8Packed(x1_2[3], w1_3[3]))) + xScale.y * scales3.z;
      }
    {
        let xScale = xScales[g * 64 + py + 48];
        let x0_3 = xs[(2 * g + 0) * 64 + py + 48];
    let x1_3 = xs[(2 * g + 1) * 64 + py + 48];
        sums[3][0] += xScale.x * (scales0.x * f32(dot4I8Packed(x0_3[0], w0_0[0]) + dot4I8Packed(x0_3[1], w0_0[1]) + dot4I8Packed(x0_3[2], w0_0[2]) + dot4I8Packed(x0_3[3], w0_0[3]) + dot4I8Packed(x1_3[0], w1_0[0]) + dot4I8Packed(x1_3[1], w1_0[1]) + dot4I8Packed(x1_3[2], w1_0[2]) + dot4I8Packed(x1_3[3], w1_0[3]))) + xScale.y * scales0.z;
    sums[3][1] += xScale.x * (scales1.x * f32(dot4I8Packed(x0_3[0], w0_1[0]) + dot4I8Packed(x0_3[1], w0_1[1]) + dot4I8Packed(x0_3[2], w0_1[2]) + dot4I8Packed(x0_3[3], w0_1[3]) + dot4I8Packed(x1_3[0], w1_1[0]) + dot4I8Packed(x1_3[1], w1_1[1]) + dot4I8Packed(x1_3[2], w1_1[2]) + dot4I8Packed(x1_3[3], w1_1[3]))) + xScale.y * scales1.z;
    sums[3][2] += xScale.x * (scales2.x * f32(dot4I8Packed(x0_3[0], w0_2[0]) + dot4I8Packed(x0_3[1], w0_2[1]) + dot4I8Packed(x0_3[2], w0_2[2]) + dot4I8Packed(x0_3[3], w0_2[3]) + dot4I8Packed(x1_3[0], w1_2[0]) + dot4I8Packed(x1_3[1], w1_2[1]) + dot4I8Packed(x1_3[2], w1_2[2]) + dot4I8Packed(x1_3[3], w1_2[3]))) + xScale.y * scales2.z;
    sums[3][3] += xScale.x * (scales3.x * f32(dot4I8Packed(x0_3[0], w0_3[0]) + dot4I8Packed(x0_3[1], w0_3[1]) + dot4I8Packed(x0_3[2], w0_3[2]) + dot4I8Packed(x0_3[3], w0_3[3]) + dot4I8Packed(x1_3[0], w1_3[0]) + dot4I8Packed(x1_3[1], w1_3[1]) + dot4I8Packed(x1_3[2], w1_3[2]) + dot4I8Packed(x1_3[3], w1_3[3]))) + xScale.y * scales3.z;
      }
    }
    // Barrier: the next groups overwrite these.
    workgroupBarrier();
  }
  if (firstRow + py + 0 < rows && firstOutput + px + 0 < outputs) {
    result[(firstRow + py + 0) * outputs + firstOutput + px + 0] = sums[0][0];
  }
    if (firstRow + py + 0 < rows && firstOutput + px + 16 < outputs) {
    result[(firstRow + py + 0) * outputs + firstOutput + px + 16] = sums[0][1];
  }
    if (firstRow + py + 0 < rows && firstOutput + px + 32 < outputs) {
    result[(firstRow + py + 0) * outputs + firstOutput + px + 32] = sums[0][2];
  }
    if (firstRow + py + 0 < rows && firstOutput + px + 48 < outputs) {
    result[(firstRow + py + 0) * outputs + firstOutput + px + 48] = sums[0][3];
  }
    if (firstRow + py + 16 < rows && firstOutput + px + 0 < outputs) {
    result[(firstRow + py + 16) * outputs + firstOutput + px + 0] = sums[1][0];
  }
    if (firstRow + py + 16 < rows && firstOutput + px + 16 < outputs) {
    result[(firstRow + py + 16) * outputs + firstOutput + px + 16] = sums[1][1];
  }
    if (firstRow + py + 16 < rows && firstOutput + px + 32 < outputs) {
    result[(firstRow + py + 16) * outputs + firstOutput + px + 32] = sums[1][2];
  }
    if (firstRow + py + 16 < rows && firstOutput + px + 48 < outputs) {
    result[(firstRow + py + 16) * outputs + firstOutput + px + 48] = sums[1][3];
  }
    if (firstRow + py + 32 < rows && firstOutput + px + 0 < outputs) {
    result[(firstRow + py + 32) * outputs + firstOutput + px + 0] = sums[2][0];
  }
    if (firstRow + py + 32 < rows && firstOutput + px + 16 < outputs) {
    result[(firstRow + py + 32) * outputs + firstOutput + px + 16] = sums[2][1];
  }
    if (firstRow + py + 32 < rows && firstOutput + px + 32 < outputs) {
    result[(firstRow + py + 32) * outputs + firstOutput + px + 32] = sums[2][2];
  }
    if (firstRow + py + 32 < rows && firstOutput + px + 48 < outputs) {
    result[(firstRow + py + 32) * outputs + firstOutput + px + 48] = sums[2][3];
  }
    if (firstRow + py + 48 < rows && firstOutput + px + 0 < outputs) {
    result[(firstRow + py + 48) * outputs + firstOutput + px + 0] = sums[3][0];
  }
    if (firstRow + py + 48 < rows && firstOutput + px + 16 < outputs) {
    result[(firstRow + py + 48) * outputs + firstOutput + px + 16] = sums[3][1];
  }
    if (firstRow + py + 48 < rows && firstOutput + px + 32 < outputs) {
    result[(firstRow + py + 48) * outputs + firstOutput + px + 32] = sums[3][2];
  }
    if (firstRow + py + 48 < rows && firstOutput + px + 48 < outputs) {
    result[(firstRow + py + 48) * outputs + firstOutput + px + 48] = sums[3][3];
  }
}
