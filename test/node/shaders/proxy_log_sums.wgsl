// An invocation combines the chunks of one row.

fn workgroupIndex() -> i32 {
  return i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let row = workgroupIndex() * 64 + i32(localIndex);
  let proxyRows = uniforms.outShape.y;
  if (row < uniforms.outShape.x * proxyRows) {
    let chunks = uniforms.statisticsShape.y;
    let first = 2 * ((row / proxyRows) * chunks * proxyRows + row % proxyRows);
    var rowMax = statistics[first];
    for (var chunk = 1; chunk < chunks; chunk++) {
      rowMax = max(rowMax, statistics[first + 2 * chunk * proxyRows]);
    }
    var sum = 0.0;
    for (var chunk = 0; chunk < chunks; chunk++) {
      let at = first + 2 * chunk * proxyRows;
      sum += statistics[at + 1] * exp2(statistics[at] - rowMax);
    }
    result[row] = rowMax + log2(sum);
  }
}
