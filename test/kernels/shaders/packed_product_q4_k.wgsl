// A workgroup computes 16 columns of the output, that is takes 16 rows of the matrix; 8 invocations share one, each with every
// 8th group of its values, and a sum for each row of x in registers. The sums of a row are added up in workgroup memory.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}

fn scaleOf(group : i32) -> vec2<f32> {
  return bitcast<vec2<f32>>(vec2<i32>(scales[2 * group + 0], scales[2 * group + 1]));
}

fn unpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 4;
  let q = bytesOf(quants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u);
  return fma(vec4<f32>(scale.x), vec4<f32>(q), vec4<f32>(scale.y));
}

// A word moved down by 0, 8, 16 and 24 bits.
fn bytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}
var<workgroup> partials : array<f32, 384>;

fn main(index : i32) {
  let local = i32(localIndex);
  let lane = local % 8;
  let outputs = uniforms.outShape.y;
  let output = workgroupIndex() * 16 + local / 8;
  let groups = uniforms.xShape.y / 32;
  // Past the last row it is taken once more, for the barrier's sake.
  let firstGroup = min(output, outputs - 1) * groups;
  var sums = array<f32, 3>();
  for (var g = lane; g < groups; g += 8) {
    let scale = scaleOf(firstGroup + g);
    {
      let values = unpack4(firstGroup + g, 0, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 0]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 0]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 0]);
    }
    {
      let values = unpack4(firstGroup + g, 1, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 1]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 1]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 1]);
    }
    {
      let values = unpack4(firstGroup + g, 2, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 2]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 2]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 2]);
    }
    {
      let values = unpack4(firstGroup + g, 3, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 3]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 3]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 3]);
    }
    {
      let values = unpack4(firstGroup + g, 4, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 4]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 4]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 4]);
    }
    {
      let values = unpack4(firstGroup + g, 5, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 5]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 5]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 5]);
    }
    {
      let values = unpack4(firstGroup + g, 6, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 6]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 6]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 6]);
    }
    {
      let values = unpack4(firstGroup + g, 7, scale);
      sums[0] += dot(values, x[(0 * groups + g) * 8 + 7]);
    sums[1] += dot(values, x[(1 * groups + g) * 8 + 7]);
    sums[2] += dot(values, x[(2 * groups + g) * 8 + 7]);
    }
  }
  partials[0 + local] = sums[0];
    partials[128 + local] = sums[1];
    partials[256 + local] = sums[2];
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < outputs) {
    for (var r = 0; r < 3; r++) {
      var sum = 0.0;
      for (var i = 0; i < 8; i++) {
        sum += partials[r * 128 + local + i];
      }
      result[r * outputs + output] = sum;
    }
  }
}
