/** Weight `[outputs, inputs]`, as in the checkpoint; bias `[outputs]`. */
export type Projection<T> = {weight: T; bias?: T};

export type LayerWeights<T> = {
  attentionNorm: T;
  query: Projection<T>;
  key: Projection<T>;
  value: Projection<T>;
  /** Of the architectures that norm each head's queries and keys: `[headDim]`. */
  queryNorm?: T;
  keyNorm?: T;
  output: Projection<T>;
  /** Of the architectures that norm what attention and the MLP add: `[hiddenSize]`. */
  attentionPostNorm?: T;
  mlpPostNorm?: T;
  mlpNorm: T;
  gate: Projection<T>;
  up: Projection<T>;
  down: Projection<T>;
};
