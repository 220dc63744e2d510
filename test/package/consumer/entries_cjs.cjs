require('@tensorflow/tfjs-backend-cpu');
const tf = require('@tensorflow/tfjs-core');
const {registerPBSAttentionOp, rewriteAttention} = require('tfjs-pbs-attention/graph');
const {PBSAttention, usePBSAttention} = require('tfjs-pbs-attention/layers');

registerPBSAttentionOp();
const x = tf.ones([1, 2, 64, 8]);
const attended = new PBSAttention({blockSize: 8, segmentSize: 16}).apply([x, x]);
console.log(attended.shape.join(), typeof usePBSAttention, typeof rewriteAttention);
