# Source this on the GPU host, in the project's root: . .ort/kit/setup.sh
# It keeps every .ort/N/part that it sees in /opt/ort/parts; once all are there it unpacks them and exports ORT_PATH.
ort_parts=$(cat .ort/kit/parts)
mkdir -p /opt/ort/parts
for i in $(seq "$ort_parts"); do
  if [ -f ".ort/$i/part" ] && [ ! -f "/opt/ort/parts/$i" ]; then cp ".ort/$i/part" "/opt/ort/parts/$i"; fi
done
ort_have=$(ls /opt/ort/parts | wc -l)
if [ "$ort_have" -lt "$ort_parts" ]; then
  echo "ort kit: $ort_have of $ort_parts parts here; bring the others"
else
  if [ ! -d /opt/ort/node_modules ]; then
    for i in $(seq "$ort_parts"); do cat "/opt/ort/parts/$i"; done | xz -dc -T0 | tar x -C /opt/ort
  fi
  export ORT_PATH=/opt/ort/node_modules/onnxruntime-node
fi
