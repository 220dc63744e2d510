// An invocation writes one element: of the page, and of the row where its row is the one.

fn workgroupIndex() -> i32 {
  return uniforms.firstWorkgroup + i32((workgroupId.z * numWorkgroups.y + workgroupId.y) * numWorkgroups.x + workgroupId.x);
}
fn main(index : i32) {
  let i = workgroupIndex() * 64 + i32(localIndex);
  let rows = uniforms.outShape.z;
  let pageRow = i / 16;
  if (pageRow < uniforms.outShape.y * rows) {
    let head = pageRow / rows;
    result[i] = page[i] + at[pageRow % rows] * row[head * 16 + i % 16];
  }
}
