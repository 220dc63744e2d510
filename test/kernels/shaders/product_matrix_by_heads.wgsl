// A workgroup computes 128 rows of the product with 128 rows of the matrix; each of its 8
// subgroups owns 32 x 64 sums, which stay in registers. It walks along the inputs, 32 at a time.
//
// Workgroup memory: tiles holds 32 inputs of all rows of x, then of all rows of weights, float16; what the next step
// needs is read from global memory while this one is computed. Who holds an element of a matrix in registers is not known,
// so sums go out by way of staged, 16 rows and columns of each subgroup at a time.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> tiles : array<f16, 10240>;
var<workgroup> staged : array<f32, 2560>;


fn stagedVector(at : i32) -> vec4<f32> {
  return vec4<f32>(staged[at], staged[at + 1], staged[at + 2], staged[at + 3]);
}

fn write(row : i32, column : i32, sums : vec4<f32>) {
  let rows = uniforms.outShape.y;
  let outputs = uniforms.outShape.x * 64;
  if (row >= rows || column >= outputs) {
    return;
  }
  let at = (column / 64 * rows + row) * 16 + column % 64 / 4;
  result[at] = sums + bias[column / 4];
}

fn main(index : i32) {
  let local = i32(min(localIndex, 255u));
  let subgroup = local / 32;
  let lane = local % 32;
  // Neighbouring workgroups take the same rows of x. Those past the last row take it once more, and write nothing.
  let tilesAcross = (uniforms.weightShape.x + 127) / 128;
  let firstRow = workgroupIndex() / tilesAcross * 128;
  let firstOutput = workgroupIndex() % tilesAcross * 128;
  let subgroupRow = subgroup / 2 * 32;
  let subgroupOutput = subgroup % 2 * 64;

  let vectors = uniforms.xShape.y / 4;
  let loadRow = local / 4;
  let loadVector = local % 4;
  let lastRow = uniforms.xShape.x - 1;
  let lastOutput = uniforms.weightShape.x - 1;
  let xAt0 = min(firstRow + loadRow + 0, lastRow) * vectors;
  let xAt1 = min(firstRow + loadRow + 64, lastRow) * vectors;
  let weightAt0 = min(firstOutput + loadRow + 0, lastOutput) * vectors;
  let weightAt1 = min(firstOutput + loadRow + 64, lastOutput) * vectors;
  var xs : array<vec4<i32>, 2>;
  var weights : array<vec4<i32>, 2>;
  var vector = loadVector;
  {
    xs[0] = x[xAt0 + vector];
    xs[1] = x[xAt1 + vector];
    weights[0] = weight[weightAt0 + vector];
    weights[1] = weight[weightAt1 + vector];
  }
  var sum0_0_0 = subgroup_matrix_result<f32, 16, 16>();
  var sum0_0_1 = subgroup_matrix_result<f32, 16, 16>();
  var sum0_0_2 = subgroup_matrix_result<f32, 16, 16>();
  var sum0_0_3 = subgroup_matrix_result<f32, 16, 16>();
    var sum1_0_0 = subgroup_matrix_result<f32, 16, 16>();
  var sum1_0_1 = subgroup_matrix_result<f32, 16, 16>();
  var sum1_0_2 = subgroup_matrix_result<f32, 16, 16>();
  var sum1_0_3 = subgroup_matrix_result<f32, 16, 16>();

  let steps = vectors / 4;
  for (var step = 0; step < steps; step++) {
    {
      let at = (loadRow + 0) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(xs[0].xy);
      let b = bitcast<vec4<f16>>(xs[0].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 64) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(xs[1].xy);
      let b = bitcast<vec4<f16>>(xs[1].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 128) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(weights[0].xy);
      let b = bitcast<vec4<f16>>(weights[0].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 192) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(weights[1].xy);
      let b = bitcast<vec4<f16>>(weights[1].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    // Barrier: a subgroup reads what others stored.
    workgroupBarrier();
    // After the last step it reads the last tile once more.
    vector = loadVector + min(step + 1, steps - 1) * 4;
    xs[0] = x[xAt0 + vector];
    xs[1] = x[xAt1 + vector];
    weights[0] = weight[weightAt0 + vector];
    weights[1] = weight[weightAt1 + vector];
    {
      let left0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 0), 40u);
      let left1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 640), 40u);
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 5120), 40u);
        sum0_0_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_0);
        sum1_0_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_0);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 5760), 40u);
        sum0_0_1 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_1);
        sum1_0_1 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_1);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 6400), 40u);
        sum0_0_2 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_2);
        sum1_0_2 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_2);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 7040), 40u);
        sum0_0_3 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_3);
        sum1_0_3 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_3);
      }
    }
    {
      let left0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 16), 40u);
      let left1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 656), 40u);
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 5136), 40u);
        sum0_0_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_0);
        sum1_0_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_0);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 5776), 40u);
        sum0_0_1 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_1);
        sum1_0_1 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_1);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 6416), 40u);
        sum0_0_2 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_2);
        sum1_0_2 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_2);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 7056), 40u);
        sum0_0_3 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_3);
        sum1_0_3 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_3);
      }
    }
    // Barrier: the next step overwrites the tiles.
    workgroupBarrier();
  }

  // Two neighbouring lanes share a row of them: each takes eight of its values.
  let stagedAt = subgroup * 320;
  let at = stagedAt + lane / 2 * 20 + lane % 2 * 8;
  let row = firstRow + subgroupRow + lane / 2;
  let column = firstOutput + subgroupOutput + lane % 2 * 8;
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum0_0_0, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 0, column + 0, a0);
    write(row + 0, column + 4, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum0_0_1, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 0, column + 16, a0);
    write(row + 0, column + 20, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum0_0_2, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 0, column + 32, a0);
    write(row + 0, column + 36, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum0_0_3, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 0, column + 48, a0);
    write(row + 0, column + 52, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_0_0, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 16, column + 0, a0);
    write(row + 16, column + 4, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_0_1, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 16, column + 16, a0);
    write(row + 16, column + 20, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_0_2, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 16, column + 32, a0);
    write(row + 16, column + 36, b0);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_0_3, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 16, column + 48, a0);
    write(row + 16, column + 52, b0);
  }
}
