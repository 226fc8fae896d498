// The tiny networks of bnlib.book.network, in float64. No document, no drawing.
// An array of shape (N, C) is a Float64Array, row after row.

import { EPSILON } from "./core.js";

const zeros = (count) => new Float64Array(count);

const descend = (values, gradient, rate) => {
  for (let i = 0; i < values.length; i++) values[i] -= rate * gradient[i];
};

/** bnlib.book.network.Dense. `normal` draws one number; without a bias it stays 0. */
function dense(inputs, units, normal, deviation, hasBias) {
  const kernel = zeros(inputs * units).map(() => deviation * normal());
  const bias = zeros(units);
  let x, gradKernel, gradBias;
  return {
    forward(input) {
      x = input;
      const y = zeros((x.length / inputs) * units);
      for (let n = 0; n * units < y.length; n++) {
        const row = n * units;
        for (let c = 0; c < units; c++) y[row + c] = bias[c];
        for (let d = 0; d < inputs; d++) {
          const value = x[n * inputs + d];
          for (let c = 0; c < units; c++) y[row + c] += value * kernel[d * units + c];
        }
      }
      return y;
    },
    backward(gradY) {
      const gradX = zeros(x.length);
      gradKernel = zeros(kernel.length);
      gradBias = zeros(units);
      for (let n = 0; n * units < gradY.length; n++) {
        const row = n * units;
        for (let c = 0; c < units; c++) gradBias[c] += gradY[row + c];
        for (let d = 0; d < inputs; d++) {
          const value = x[n * inputs + d];
          let grad = 0;
          for (let c = 0; c < units; c++) {
            gradKernel[d * units + c] += value * gradY[row + c];
            grad += gradY[row + c] * kernel[d * units + c];
          }
          gradX[n * inputs + d] = grad;
        }
      }
      return gradX;
    },
    step(rate) {
      descend(kernel, gradKernel, rate);
      if (hasBias) descend(bias, gradBias, rate);
    },
  };
}

/** bnlib.BatchNorm over all but the last axis; `fixed` keeps the statistics of the last call. */
function batchNorm(units) {
  const gamma = zeros(units).fill(1);
  const beta = zeros(units);
  const means = zeros(units);
  const inverses = zeros(units);
  let x, xHat, gradGamma, gradBeta;

  function measure(c) {
    const count = x.length / units;
    let sum = 0;
    for (let i = c; i < x.length; i += units) sum += x[i];
    const rough = sum / count;
    let missed = 0;
    for (let i = c; i < x.length; i += units) missed += x[i] - rough;
    const residue = missed / count;
    let squares = 0;
    for (let i = c; i < x.length; i += units) squares += (x[i] - rough - residue) ** 2;
    means[c] = rough + residue;
    inverses[c] = 1 / Math.sqrt(squares / count + EPSILON);
  }

  return {
    forward(input, fixed) {
      x = input;
      xHat = zeros(x.length);
      const y = zeros(x.length);
      for (let c = 0; c < units; c++) {
        if (!fixed) measure(c);
        for (let i = c; i < x.length; i += units) {
          xHat[i] = (x[i] - means[c]) * inverses[c];
          y[i] = xHat[i] * gamma[c] + beta[c];
        }
      }
      return y;
    },
    backward(gradY) {
      const gradX = zeros(x.length);
      const count = x.length / units;
      gradGamma = zeros(units);
      gradBeta = zeros(units);
      for (let c = 0; c < units; c++) {
        for (let i = c; i < x.length; i += units) {
          gradBeta[c] += gradY[i];
          gradGamma[c] += gradY[i] * xHat[i];
        }
        const slope = gamma[c] * inverses[c];
        for (let i = c; i < x.length; i += units)
          gradX[i] = (gradY[i] - (gradBeta[c] + xHat[i] * gradGamma[c]) / count) * slope;
      }
      return gradX;
    },
    step(rate) {
      descend(gamma, gradGamma, rate);
      descend(beta, gradBeta, rate);
    },
  };
}

// The function, and its derivative in terms of its output.
const ACTIVATIONS = {
  tanh: [Math.tanh, (y) => 1 - y * y],
  ReLU: [(x) => (x > 0 || x !== x ? x : 0), (y) => (y > 0 ? 1 : 0)],
};

function activation(name) {
  const [apply, slope] = ACTIVATIONS[name];
  let y;
  return {
    isActivation: true,
    forward: (x) => (y = x.map(apply)),
    backward: (gradY) => gradY.map((grad, i) => grad * slope(y[i])),
    step() {},
  };
}

/** A network of `depth` hidden layers, for two classes; batch norm, if any, before each activation. */
export function network({ inputs, units, depth, scale, activation: name, norm, normal }) {
  const layers = [];
  for (let k = 0; k < depth; k++) {
    const fan = k ? units : inputs;
    layers.push(dense(fan, units, normal, scale / Math.sqrt(fan), !norm));
    if (norm) layers.push(batchNorm(units));
    layers.push(activation(name));
  }
  layers.push(dense(units, 2, normal, scale / Math.sqrt(units), true));
  return {
    /** The logits; `seen` gets what enters each activation. */
    forward(x, { fixed = false, seen = [] } = {}) {
      for (const layer of layers) {
        if (layer.isActivation) seen.push(x);
        x = layer.forward(x, fixed);
      }
      return x;
    },
    backward: (grad) => layers.reduceRight((g, layer) => layer.backward(g), grad),
    step: (rate) => layers.forEach((layer) => layer.step(rate)),
  };
}

/** bnlib.book.network.softmax_cross_entropy, of two classes. */
export function softmaxCrossEntropy(logits, labels) {
  const grad = zeros(logits.length);
  let loss = 0;
  labels.forEach((label, n) => {
    const [a, b] = [logits[2 * n], logits[2 * n + 1]];
    const most = Math.max(a, b);
    const shifted = [a - most, b - most];
    const logTotal = Math.log(Math.exp(shifted[0]) + Math.exp(shifted[1]));
    loss += logTotal - shifted[label];
    for (const c of [0, 1])
      grad[2 * n + c] = (Math.exp(shifted[c] - logTotal) - (c === label ? 1 : 0)) / labels.length;
  });
  return { loss: loss / labels.length, grad };
}
