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

// By sums, then by invocations.
var<workgroup> partials : array<array<f32, 128>, 8>;

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
  // Neighbouring workgroups take the same rows of the matrix.
  let firstRow = workgroupIndex() % 4 * 8;
  let outputTile = workgroupIndex() / 4;
  let output = outputTile * 8 + local / 16;
  let groups = uniforms.xShape.y / 32;
  // Past the last row it is taken once more, for the barriers' sake.
  let firstGroup = min(output, uniforms.outputs - 1) * groups;
  var products = array<f32, 8>();
  for (var g = lane; g < groups; g += 16) {
    let scale = scaleOf(firstGroup + g);
    
    {
      let values = unpack4(firstGroup + g, 0, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 0];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 0];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 0];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 0];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 0];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 0];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 0];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 0];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 1, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 1];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 1];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 1];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 1];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 1];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 1];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 1];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 1];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 2, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 2];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 2];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 2];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 2];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 2];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 2];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 2];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 2];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 3, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 3];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 3];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 3];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 3];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 3];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 3];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 3];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 3];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 4, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 4];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 4];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 4];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 4];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 4];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 4];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 4];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 4];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 5, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 5];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 5];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 5];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 5];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 5];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 5];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 5];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 5];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 6, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 6];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 6];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 6];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 6];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 6];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 6];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 6];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 6];
        
        products[7] += dot(values, value);
        
      }
    }
    {
      let values = unpack4(firstGroup + g, 7, scale);
      
      {
        var value = x[((firstRow + 0) * groups + g) * 8 + 7];
        
        products[0] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 1) * groups + g) * 8 + 7];
        
        products[1] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 2) * groups + g) * 8 + 7];
        
        products[2] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 3) * groups + g) * 8 + 7];
        
        products[3] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 4) * groups + g) * 8 + 7];
        
        products[4] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 5) * groups + g) * 8 + 7];
        
        products[5] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 6) * groups + g) * 8 + 7];
        
        products[6] += dot(values, value);
        
      }
    {
        var value = x[((firstRow + 7) * groups + g) * 8 + 7];
        
        products[7] += dot(values, value);
        
      }
    }
  }
  partials[0][local] = products[0];
    partials[1][local] = products[1];
    partials[2][local] = products[2];
    partials[3][local] = products[3];
    partials[4][local] = products[4];
    partials[5][local] = products[5];
    partials[6][local] = products[6];
    partials[7][local] = products[7];
  // Barrier: the first invocation of a row adds up what the others wrote.
  workgroupBarrier();
  if (lane == 0 && output < uniforms.outputs) {
    for (var r = 0; r < 8; r++) {
      var sum = total(r, local);
      
      
      
      
      
      let at = (firstRow + r) * uniforms.outShape.y + uniforms.firstColumn + output;
      
      result[at] = sum;
    }
  }
}
