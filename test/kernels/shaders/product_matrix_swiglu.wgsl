// A workgroup computes 64 rows of the product with 32 rows of each of two matrices, gates and ups of the same outputs; each of its 4
// subgroups owns 32 x 32 sums, which stay in registers. It walks along the inputs, 32 at a time.
//
// Workgroup memory: tiles holds 32 inputs of all rows of x, then of all rows of weights, float16; what the next step
// needs is read from global memory while this one is computed. Who holds an element of a matrix in registers is not known,
// so sums go out by way of staged, 16 rows and columns of each subgroup at a time.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
var<workgroup> tiles : array<f16, 5120>;
var<workgroup> staged : array<f32, 1280>;


fn float16Word(x : vec2<f32>) -> i32 {
  return bitcast<i32>(pack2x16float(clamp(x, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn float16Words(a : vec4<f32>, b : vec4<f32>) -> vec4<i32> {
  return vec4<i32>(float16Word(a.xy), float16Word(a.zw), float16Word(b.xy), float16Word(b.zw));
}
fn stagedVector(at : i32) -> vec4<f32> {
  return vec4<f32>(staged[at], staged[at + 1], staged[at + 2], staged[at + 3]);
}

fn gatedBy(gates : vec4<f32>, ups : vec4<f32>) -> vec4<f32> {
  return gates / (vec4<f32>(1.0) + exp(-gates)) * ups;
}

fn write(row : i32, column : i32, gates0 : vec4<f32>, gates1 : vec4<f32>, ups0 : vec4<f32>, ups1 : vec4<f32>) {
  let rows = uniforms.outShape.x;
  let outputs = uniforms.outShape.y * 2;
  if (row >= rows || column >= outputs) {
    return;
  }
  result[(row * outputs + column) / 8] = float16Words(gatedBy(gates0, ups0), gatedBy(gates1, ups1));
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let subgroup = local / 32;
  let lane = local % 32;
  // Neighbouring workgroups take the same rows of x. Those past the last row take it once more, and write nothing.
  let tilesAcross = (uniforms.weightShape.x + 31) / 32;
  let firstRow = workgroupIndex() / tilesAcross * 64;
  let firstOutput = workgroupIndex() % tilesAcross * 32;
  let subgroupRow = subgroup / 2 * 32;
  let subgroupOutput = subgroup % 2 * 16;

  let vectors = uniforms.xShape.y / 4;
  let loadRow = local / 4;
  let loadVector = local % 4;
  let lastRow = uniforms.xShape.x - 1;
  let lastOutput = uniforms.weightShape.x - 1;
  let xAt0 = min(firstRow + loadRow + 0, lastRow) * vectors;
  let xAt1 = min(firstRow + loadRow + 32, lastRow) * vectors;
  let weightAt0 = min(firstOutput + loadRow + 0, lastOutput) * vectors;
  let weightAt1 = min(firstOutput + loadRow + 0, lastOutput) * vectors;
  var xs : array<vec4<i32>, 2>;
  var weights : array<vec4<i32>, 2>;
  var vector = loadVector;
  {
    xs[0] = x[xAt0 + vector];
    xs[1] = x[xAt1 + vector];
    weights[0] = weight[weightAt0 + vector];
    weights[1] = up[weightAt1 + vector];
  }
  var sum0_0_0 = subgroup_matrix_result<f32, 16, 16>();
  var sum0_1_0 = subgroup_matrix_result<f32, 16, 16>();
    var sum1_0_0 = subgroup_matrix_result<f32, 16, 16>();
  var sum1_1_0 = subgroup_matrix_result<f32, 16, 16>();

  let steps = vectors / 4;
  for (var step = 0; step < steps; step++) {
    {
      let at = (loadRow + 0) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(xs[0].xy);
      let b = bitcast<vec4<f16>>(xs[0].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 32) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(xs[1].xy);
      let b = bitcast<vec4<f16>>(xs[1].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 64) * 40 + 8 * loadVector;
      let a = bitcast<vec4<f16>>(weights[0].xy);
      let b = bitcast<vec4<f16>>(weights[0].zw);
      tiles[at + 0] = a[0]; tiles[at + 1] = a[1]; tiles[at + 2] = a[2]; tiles[at + 3] = a[3]; tiles[at + 4] = b[0]; tiles[at + 5] = b[1]; tiles[at + 6] = b[2]; tiles[at + 7] = b[3];
    }
    {
      let at = (loadRow + 96) * 40 + 8 * loadVector;
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
    weights[1] = up[weightAt1 + vector];
    {
      let left0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 0), 40u);
      let left1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 640), 40u);
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 2560), 40u);
        sum0_0_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_0);
        sum1_0_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_0);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 3840), 40u);
        sum0_1_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_1_0);
        sum1_1_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_1_0);
      }
    }
    {
      let left0 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 16), 40u);
      let left1 = subgroupMatrixLoad<subgroup_matrix_left<f16, 16, 16>, row_major>(&tiles, u32(subgroupRow * 40 + 656), 40u);
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 2576), 40u);
        sum0_0_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_0_0);
        sum1_0_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_0_0);
      }
      {
        let right = subgroupMatrixLoad<subgroup_matrix_right<f16, 16, 16>, col_major>(&tiles, u32(subgroupOutput * 40 + 3856), 40u);
        sum0_1_0 = subgroupMatrixMultiplyAccumulate(left0, right, sum0_1_0);
        sum1_1_0 = subgroupMatrixMultiplyAccumulate(left1, right, sum1_1_0);
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
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum0_1_0, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a1 = stagedVector(at);
    let b1 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 0, column + 0, a0, b0, a1, b1);
  }
  {
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_0_0, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a0 = stagedVector(at);
    let b0 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&staged, u32(stagedAt), sum1_1_0, 20u);
    // Barrier: a lane reads what the subgroup stored.
    workgroupBarrier();
    let a1 = stagedVector(at);
    let b1 = stagedVector(at + 4);
    // Barrier: the next ones overwrite these.
    workgroupBarrier();
write(row + 16, column + 0, a0, b0, a1, b1);
  }
}
