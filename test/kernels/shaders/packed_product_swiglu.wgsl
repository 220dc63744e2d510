// A workgroup computes 8 columns of the output, that is takes 8 rows of the matrix. 16 neighbouring invocations share one, each with
// every 16th group of its values, so that they read side by side, and hold sums for each row of x in registers. The sums of a row
// are added up in workgroup memory. The norm's divisor is the same for all inputs, so it waits for the end.

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
  let at = group * 6;
  let high = bitcast<u32>(upQuants[at + 4 + part / 4]) >> u32(8 * (part % 4));
  let q = (upBytesOf(upQuants[at + part / 2] >> u32(4 * (part % 2))) & vec4<u32>(15u)) |
    (((vec4<u32>(high) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u)) << vec4<u32>(4u));
  return select(scale.x, scale.y, part >= 4) * (vec4<f32>(q) - 32.0);
}

// A word moved down by 0, 8, 16 and 24 bits.
fn upBytesOf(word : i32) -> vec4<u32> {
  return vec4<u32>(bitcast<u32>(word)) >> vec4<u32>(0u, 8u, 16u, 24u);
}
// By sums, then by invocations.
var<workgroup> partials : array<array<f32, 128>, 3>;

// Of the invocations of a row, from the first on.
fn total(which : i32, first : i32) -> f32 {
  var sum = 0.0;
  for (var i = 0; i < 16; i++) {
    sum += partials[which][first + i];
  }
  return sum;
}

fn main(index : i32) {
  let local = i32(localIndex);
  let lane = local % 16;
  let outputTile = workgroupIndex();
  let output = outputTile * 8 + local / 16;
  let groups = uniforms.xShape.y / 32;
  // Past the last row it is taken once more, for the barriers' sake.
  let firstGroup = min(output, uniforms.outputs - 1) * groups;
  var products = array<f32, 1>();
  var upProducts = array<f32, 1>();
  var squares = array<f32, 1>();
  for (var g = lane; g < groups; g += 16) {
    let scale = scaleOf(firstGroup + g);
    let upScale = upScaleOf(firstGroup + g);
    {
      let values = unpack4(firstGroup + g, 0, scale);
      let upValues = upUnpack4(firstGroup + g, 0, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 0];
        squares[0] += dot(value, value); value *= norm[g * 8 + 0];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 1, scale);
      let upValues = upUnpack4(firstGroup + g, 1, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 1];
        squares[0] += dot(value, value); value *= norm[g * 8 + 1];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 2, scale);
      let upValues = upUnpack4(firstGroup + g, 2, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 2];
        squares[0] += dot(value, value); value *= norm[g * 8 + 2];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 3, scale);
      let upValues = upUnpack4(firstGroup + g, 3, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 3];
        squares[0] += dot(value, value); value *= norm[g * 8 + 3];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 4, scale);
      let upValues = upUnpack4(firstGroup + g, 4, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 4];
        squares[0] += dot(value, value); value *= norm[g * 8 + 4];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 5, scale);
      let upValues = upUnpack4(firstGroup + g, 5, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 5];
        squares[0] += dot(value, value); value *= norm[g * 8 + 5];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 6, scale);
      let upValues = upUnpack4(firstGroup + g, 6, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 6];
        squares[0] += dot(value, value); value *= norm[g * 8 + 6];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
    {
      let values = unpack4(firstGroup + g, 7, scale);
      let upValues = upUnpack4(firstGroup + g, 7, upScale);
      {
        var value = x[(0 * groups + g) * 8 + 7];
        squares[0] += dot(value, value); value *= norm[g * 8 + 7];
        products[0] += dot(values, value);
        upProducts[0] += dot(upValues, value);
      }
    }
  }
  partials[0][local] = products[0];
  partials[1][local] = upProducts[0];
  partials[2][local] = squares[0];
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < uniforms.outputs) {
    for (var r = 0; r < 1; r++) {
      var sum = total(r, local);
      var up = total(1 + r, local);
      let scale = inverseSqrt(total(2 + r, local) / f32(uniforms.xShape.y) + uniforms.epsilon);
      sum *= scale;
      up *= scale;
      sum += bias[uniforms.firstBias + output];
      up += upBias[uniforms.firstBias + output];
      sum = sum / (1.0 + exp(-sum)) * up;
      let at = r * uniforms.outShape.y + uniforms.firstColumn + output;
      sum += residual[at];
      result[at] = sum;
    }
  }
}
