// A workgroup computes 64 rows of the product with 64 columns of each of two matrices, gates and ups of the same outputs. It walks along the
// inputs, 16 at a time. An invocation owns 8 x 8 sums in registers, four neighbouring rows by four neighbouring columns at a time, so that
// two reads of 16 bytes from workgroup memory feed 16 multiply-adds.
//
// Workgroup memory: xTile holds the inputs of all rows, weightTile of all columns, by inputs; what the next step needs is read from
// global memory while this one is computed.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> xTile : array<vec4<f32>, 272>;
var<workgroup> weightTile : array<vec4<f32>, 528>;

fn gatedBy(gates : vec4<f32>, ups : vec4<f32>) -> vec4<f32> {
  return gates / (vec4<f32>(1.0) + exp(-gates)) * ups;
}

fn write(row : i32, column : i32, gates : vec4<f32>, ups : vec4<f32>) {
  let rows = uniforms.outShape.x;
  let outputs = uniforms.outShape.y;
  if (row >= rows || column >= outputs) {
    return;
  }
  result[(row * outputs + column) / 4] = gatedBy(gates, ups);
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  // Eight by four neighbours own neighbouring columns and rows, and share what they read.
  let across = local / 32 % 2 * 8 + local % 8;
  let y = local / 64 * 4 + local / 8 % 4;
  // Neighbouring workgroups take the same rows of x. Those past the last row take it once more, and write nothing.
  let tilesAcross = (uniforms.weightShape.y + 63) / 64;
  let firstRow = workgroupIndex() / tilesAcross * 64;
  let firstOutput = workgroupIndex() % tilesAcross * 64;
  let firstVector = firstOutput / 4;
  let vectors = uniforms.weightShape.y / 4;
  let inputs = uniforms.xShape.y;
  let xRow = local % 16;
  let xVector = local / 16 % 4;
  let xAt0 = min(firstRow + 4 * xRow + 0, uniforms.xShape.x - 1) * (inputs / 4) + xVector;
  let xAt1 = min(firstRow + 4 * xRow + 1, uniforms.xShape.x - 1) * (inputs / 4) + xVector;
  let xAt2 = min(firstRow + 4 * xRow + 2, uniforms.xShape.x - 1) * (inputs / 4) + xVector;
  let xAt3 = min(firstRow + 4 * xRow + 3, uniforms.xShape.x - 1) * (inputs / 4) + xVector;
  var xs : array<vec4<f32>, 4>;
  var weights : array<vec4<f32>, 4>;
  var input = 0;
  {
    if (local < 64) {
      xs[0] = x[xAt0 + input / 4];
      xs[1] = x[xAt1 + input / 4];
      xs[2] = x[xAt2 + input / 4];
      xs[3] = x[xAt3 + input / 4];
    }
    weights[0] = weight[(input + (local + 0) / 16) * vectors + min(firstVector + (local + 0) % 16, vectors - 1)];
    weights[1] = weight[(input + (local + 128) / 16) * vectors + min(firstVector + (local + 128) % 16, vectors - 1)];
    weights[2] = up[(input + (local + 0) / 16) * vectors + min(firstVector + (local + 0) % 16, vectors - 1)];
    weights[3] = up[(input + (local + 128) / 16) * vectors + min(firstVector + (local + 128) % 16, vectors - 1)];
  }
  var sum0_0 = vec4<f32>();
  var sum0_1 = vec4<f32>();
  var sum1_0 = vec4<f32>();
  var sum1_1 = vec4<f32>();
  var sum2_0 = vec4<f32>();
  var sum2_1 = vec4<f32>();
  var sum3_0 = vec4<f32>();
  var sum3_1 = vec4<f32>();
  var sum4_0 = vec4<f32>();
  var sum4_1 = vec4<f32>();
  var sum5_0 = vec4<f32>();
  var sum5_1 = vec4<f32>();
  var sum6_0 = vec4<f32>();
  var sum6_1 = vec4<f32>();
  var sum7_0 = vec4<f32>();
  var sum7_1 = vec4<f32>();

  let steps = inputs / 16;
  for (var step = 0; step < steps; step++) {
    if (local < 64) {
      xTile[(4 * xVector + 0) * 17 + xRow] = vec4<f32>(xs[0][0], xs[1][0], xs[2][0], xs[3][0]);
      xTile[(4 * xVector + 1) * 17 + xRow] = vec4<f32>(xs[0][1], xs[1][1], xs[2][1], xs[3][1]);
      xTile[(4 * xVector + 2) * 17 + xRow] = vec4<f32>(xs[0][2], xs[1][2], xs[2][2], xs[3][2]);
      xTile[(4 * xVector + 3) * 17 + xRow] = vec4<f32>(xs[0][3], xs[1][3], xs[2][3], xs[3][3]);
    }
    weightTile[((local + 0) / 16) * 33 + 0 + (local + 0) % 16] = weights[0];
    weightTile[((local + 128) / 16) * 33 + 0 + (local + 128) % 16] = weights[1];
    weightTile[((local + 0) / 16) * 33 + 16 + (local + 0) % 16] = weights[2];
    weightTile[((local + 128) / 16) * 33 + 16 + (local + 128) % 16] = weights[3];
    // Barrier: an invocation reads what others stored.
    workgroupBarrier();
    // After the last step it reads the last inputs once more.
    input = min(step + 1, steps - 1) * 16;
    if (local < 64) {
      xs[0] = x[xAt0 + input / 4];
      xs[1] = x[xAt1 + input / 4];
      xs[2] = x[xAt2 + input / 4];
      xs[3] = x[xAt3 + input / 4];
    }
    weights[0] = weight[(input + (local + 0) / 16) * vectors + min(firstVector + (local + 0) % 16, vectors - 1)];
    weights[1] = weight[(input + (local + 128) / 16) * vectors + min(firstVector + (local + 128) % 16, vectors - 1)];
    weights[2] = up[(input + (local + 0) / 16) * vectors + min(firstVector + (local + 0) % 16, vectors - 1)];
    weights[3] = up[(input + (local + 128) / 16) * vectors + min(firstVector + (local + 128) % 16, vectors - 1)];
    {
      let a0 = xTile[0 + y]; let a1 = xTile[8 + y];
      let b0 = weightTile[0 + across]; let b1 = weightTile[16 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[17 + y]; let a1 = xTile[25 + y];
      let b0 = weightTile[33 + across]; let b1 = weightTile[49 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[34 + y]; let a1 = xTile[42 + y];
      let b0 = weightTile[66 + across]; let b1 = weightTile[82 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[51 + y]; let a1 = xTile[59 + y];
      let b0 = weightTile[99 + across]; let b1 = weightTile[115 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[68 + y]; let a1 = xTile[76 + y];
      let b0 = weightTile[132 + across]; let b1 = weightTile[148 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[85 + y]; let a1 = xTile[93 + y];
      let b0 = weightTile[165 + across]; let b1 = weightTile[181 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[102 + y]; let a1 = xTile[110 + y];
      let b0 = weightTile[198 + across]; let b1 = weightTile[214 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[119 + y]; let a1 = xTile[127 + y];
      let b0 = weightTile[231 + across]; let b1 = weightTile[247 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[136 + y]; let a1 = xTile[144 + y];
      let b0 = weightTile[264 + across]; let b1 = weightTile[280 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[153 + y]; let a1 = xTile[161 + y];
      let b0 = weightTile[297 + across]; let b1 = weightTile[313 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[170 + y]; let a1 = xTile[178 + y];
      let b0 = weightTile[330 + across]; let b1 = weightTile[346 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[187 + y]; let a1 = xTile[195 + y];
      let b0 = weightTile[363 + across]; let b1 = weightTile[379 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[204 + y]; let a1 = xTile[212 + y];
      let b0 = weightTile[396 + across]; let b1 = weightTile[412 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[221 + y]; let a1 = xTile[229 + y];
      let b0 = weightTile[429 + across]; let b1 = weightTile[445 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[238 + y]; let a1 = xTile[246 + y];
      let b0 = weightTile[462 + across]; let b1 = weightTile[478 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    {
      let a0 = xTile[255 + y]; let a1 = xTile[263 + y];
      let b0 = weightTile[495 + across]; let b1 = weightTile[511 + across];
      sum0_0 = fma(vec4<f32>(a0[0]), b0, sum0_0);
  sum0_1 = fma(vec4<f32>(a0[0]), b1, sum0_1);
  sum1_0 = fma(vec4<f32>(a0[1]), b0, sum1_0);
  sum1_1 = fma(vec4<f32>(a0[1]), b1, sum1_1);
  sum2_0 = fma(vec4<f32>(a0[2]), b0, sum2_0);
  sum2_1 = fma(vec4<f32>(a0[2]), b1, sum2_1);
  sum3_0 = fma(vec4<f32>(a0[3]), b0, sum3_0);
  sum3_1 = fma(vec4<f32>(a0[3]), b1, sum3_1);
  sum4_0 = fma(vec4<f32>(a1[0]), b0, sum4_0);
  sum4_1 = fma(vec4<f32>(a1[0]), b1, sum4_1);
  sum5_0 = fma(vec4<f32>(a1[1]), b0, sum5_0);
  sum5_1 = fma(vec4<f32>(a1[1]), b1, sum5_1);
  sum6_0 = fma(vec4<f32>(a1[2]), b0, sum6_0);
  sum6_1 = fma(vec4<f32>(a1[2]), b1, sum6_1);
  sum7_0 = fma(vec4<f32>(a1[3]), b0, sum7_0);
  sum7_1 = fma(vec4<f32>(a1[3]), b1, sum7_1);
    }
    // Barrier: the next step overwrites the tiles.
    workgroupBarrier();
  }
  write(firstRow + 4 * (y + 0) + 0, firstOutput + 4 * across, sum0_0, sum0_1);
    write(firstRow + 4 * (y + 0) + 1, firstOutput + 4 * across, sum1_0, sum1_1);
    write(firstRow + 4 * (y + 0) + 2, firstOutput + 4 * across, sum2_0, sum2_1);
    write(firstRow + 4 * (y + 0) + 3, firstOutput + 4 * across, sum3_0, sum3_1);
    write(firstRow + 4 * (y + 8) + 0, firstOutput + 4 * across, sum4_0, sum4_1);
    write(firstRow + 4 * (y + 8) + 1, firstOutput + 4 * across, sum5_0, sum5_1);
    write(firstRow + 4 * (y + 8) + 2, firstOutput + 4 * across, sum6_0, sum6_1);
    write(firstRow + 4 * (y + 8) + 3, firstOutput + 4 * across, sum7_0, sum7_1);
}
