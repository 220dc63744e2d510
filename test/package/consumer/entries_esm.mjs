import '@tensorflow/tfjs-backend-cpu';
import * as tf from '@tensorflow/tfjs-core';
import {registerPBSAttentionOp, rewriteAttention} from 'tfjs-pbs-attention/graph';
import {PBSAttention, usePBSAttention} from 'tfjs-pbs-attention/layers';

registerPBSAttentionOp();
const x = tf.ones([1, 2, 64, 8]);
const attended = new PBSAttention({blockSize: 8, segmentSize: 16}).apply([x, x]);
console.log(attended.shape.join(), typeof usePBSAttention, typeof rewriteAttention);
