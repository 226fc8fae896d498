// The arithmetic of bnlib in float64, for one channel at a time. No document, no drawing.

export const EPSILON = 1e-3;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const average = (values) => sum(values) / values.length;

/** Mean and biased variance: bnlib.moments, with its second pass over what the mean missed. */
export function moments(x) {
  const rough = average(x);
  const centred = x.map((value) => value - rough);
  const residue = average(centred);
  const variance = average(centred.map((value) => (value - residue) ** 2));
  return { mean: rough + residue, variance, count: x.length };
}

/** bnlib.batch_norm_inference: given statistics. */
export function batchNormInference(x, { mean, variance }, gamma = 1, beta = 0) {
  const inverse = 1 / Math.sqrt(variance + EPSILON);
  return x.map((value) => (value - mean) * inverse * gamma + beta);
}

/** bnlib.batch_norm: the statistics of the batch. */
export function batchNorm(x, gamma = 1, beta = 0) {
  const statistics = moments(x);
  return { y: batchNormInference(x, statistics, gamma, beta), ...statistics };
}

/** bnlib.batch_norm_backward, gamma 1: the closed form. `direct` keeps the statistics constant. */
export function batchNormBackward(gradY, x) {
  const { y: xHat, variance } = batchNorm(x);
  const inverse = 1 / Math.sqrt(variance + EPSILON);
  const gradBeta = sum(gradY);
  const gradGamma = sum(gradY.map((g, i) => g * xHat[i]));
  const gradX = gradY.map((g, i) => (g - (gradBeta + xHat[i] * gradGamma) / x.length) * inverse);
  return { gradX, gradGamma, gradBeta, direct: gradY.map((g) => g * inverse) };
}

/** One update of bnlib.Exponential. */
export function blend(old, batch, momentum) {
  const rate = 1 - momentum;
  return {
    mean: old.mean + rate * (batch.mean - old.mean),
    variance: old.variance + rate * (batch.variance - old.variance),
  };
}

/** Park and Miller's generator: numbers between 0 and 1. */
export function generator(seed) {
  let state = (seed * 811290697) % 2147483647;
  return () => {
    const u = state / 2147483647;
    state = (state * 16807) % 2147483647;
    return u;
  };
}

/** Numbers with mean near 0 and deviation near 1: three draws of the generator each. */
export function normals(seed) {
  const uniform = generator(seed);
  return () => 2 * (uniform() + uniform() + uniform() - 1.5);
}

export function draws(seed, count) {
  const normal = normals(seed);
  return Array.from({ length: count }, normal);
}

/** The same numbers in Python, as the array `z`. */
export const drawsInPython = (seed, count) => `\
state, z = ${seed} * 811290697 % 2147483647, []     # the page's random numbers
for _ in range(3 * ${count}):
    z.append(state / 2147483647)
    state = state * 16807 % 2147483647
z = 2 * (np.reshape(z, (-1, 3)).sum(axis=1) - 1.5)`;
