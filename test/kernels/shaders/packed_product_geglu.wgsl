// A workgroup computes 4 columns of the output, that is takes 4 rows of the matrix. 32 neighbouring invocations share one:
// 8 of them a group of its values, four each, so that they read x and the matrix side by side; they hold sums for each row of x in
// registers. The sums of a row are added up in workgroup memory. The norm's divisor is the same for all inputs, so it waits for the end.

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

fn upScaleOf(group : i32) -> vec2<f32> {
  return bitcast<vec2<f32>>(vec2<i32>(upScales[2 * group + 0], upScales[2 * group + 1]));
}

fn upUnpack4(group : i32, part : i32, scale : vec2<f32>) -> vec4<f32> {
  let at = group * 4;
  let q = upBytesOf(upQuants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u);
  return fma(vec4<f32>(scale.x), vec4<f32>(q), vec4<f32>(scale.y));
}

// A word moved down by 0, 8, 16 and 24 bits.
fn upBytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}
// By sums, then by invocations.
var<workgroup> partials : array<array<f32, 128>, 2>;

// Of the invocations of a row, from the first on.
fn total(which : i32, first : i32) -> f32 {
  var sum = 0.0;
  for (var i = 0; i < 32; i++) {
    sum += partials[which][first + i];
  }
  return sum;
}

fn main(index : i32) {
  let local = i32(min(localIndex, 127u));
  let lane = local % 32;
  let outputTile = workgroupIndex();
  let output = outputTile * 4 + local / 32;
  let groups = uniforms.xShape.y / 32;
  // Past the last row it is taken once more, for the barriers' sake.
  let firstGroup = min(output, uniforms.outputs - 1) * groups;
  var products = array<f32, 1>();
  var upProducts = array<f32, 1>();
  let part = lane % 8;
  for (var g = lane / 8; g < groups; g += 4) {
    let values = unpack4(firstGroup + g, part, scaleOf(firstGroup + g));
    let upValues = upUnpack4(firstGroup + g, part, upScaleOf(firstGroup + g));
    {
      var value = x[(0 * groups + g) * 8 + part];
      
      products[0] += dot(values, value);
      upProducts[0] += dot(upValues, value);
    }
  }
  partials[0][local] = products[0];
  partials[1][local] = upProducts[0];
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < uniforms.outputs) {
    for (var r = 0; r < 1; r++) {
      var sum = total(r, local);
      var up = total(1 + r, local);
      
      
      
      sum = sum / (1.0 + exp(-sum * (1.5957691216057308 + 0.07135481627260025 * sum * sum))) * up;
      let at = r * uniforms.outShape.y + uniforms.firstColumn + output;
      
      result[at] = sum;
    }
  }
}
