// Chapter 3. One channel: the marked example in training and in inference, while others are dragged.

import { AFTER, BEFORE, INK, PAPER, TRUTH } from "../colours.js";
import { batchNorm, batchNormInference, draws } from "../core.js";
import { explorable } from "../explorable.js";
import { list, number } from "../fields.js";
import {
  axis,
  bar,
  diamond,
  dot,
  grip,
  group,
  heading,
  line,
  picture,
  scale,
  show,
} from "../svg.js";

const FIXED = { mean: 1, variance: 4 };
const HALO = {
  "paint-order": "stroke",
  stroke: PAPER,
  "stroke-width": 9,
  "stroke-linejoin": "round",
};
const LANES = [0, -30, 30, 30, 0, -30]; // dots that meet stay apart

const neighbours = (seed) => {
  const [place, ...others] = draws(seed, 6);
  return others.map((z) => 1 + 2 * place + 1.5 * z);
};

const fields = {
  x: list([3, 4.4, 3.7, 1.6, 5.2, 2.2], -4, 6, 0.1),
  gamma: number(1, 0, 2, 0.1, "gamma"),
  beta: number(0, -2, 2, 0.1, "beta"),
  seed: number(1, 1, 999, 1),
};

function numbers({ x, gamma, beta }) {
  const { y, mean, variance } = batchNorm(x, gamma, beta);
  return { training: y, mean, variance, inference: batchNormInference(x, FIXED, gamma, beta) };
}

function outputs(to, top, values, ghost, title) {
  const [now, then] = [to.clip(values[0]), to.clip(ghost)];
  const others = values
    .slice(1)
    .map((value, i) => dot(to.clip(value), top + 38 + LANES[i + 1] / 2.5, AFTER, 4));
  return group(
    heading(to.ends[0], top, title, HALO),
    axis(to, top + 62, [-4, -2, 0, 2, 4], HALO),
    others,
    Math.abs(now - then) > 0.5 &&
      diamond(then, top + 38, "none", 8, {
        stroke: INK,
        "stroke-width": 1.5,
        "stroke-dasharray": "3 2",
      }),
    diamond(now, top + 38, INK),
  );
}

explorable("transform", {
  title: "One example, its neighbours, and two modes",
  alt:
    "Six dots on a line are one channel of a batch; one is marked. Below, what batch norm makes of them: " +
    "with the statistics of the batch the marked one lands left of 0, with fixed statistics right of it.",
  fields,
  question: {
    ask: "You are about to drag a blue neighbour. Which output of the diamond will move?",
    answers: ["training", "inference", "both"],
    verdict:
      "Drag a neighbour, and only the output in training moves: its mean and variance are the batch\u2019s. In inference they are fixed.",
  },
  numbers,
  picture({ x }, { mean, variance, training, inference }, width, before) {
    const to = scale(-4, 6, 16, width - 16);
    const out = scale(-5, 5, 16, width - 16);
    const top = 66;
    const lines = [
      [training, 272],
      [inference, 384],
    ].map(([y, at]) =>
      line(to(x[0]), top, out.clip(y[0]), at, INK, {
        "stroke-dasharray": "2 4",
        "stroke-width": 1.5,
      }),
    );
    const handle = (value, i) =>
      grip(
        {
          label: i ? `neighbour ${i}, x` : "marked example, x",
          field: "x",
          index: i,
          value,
          along: "x",
          to,
          limits: fields.x,
          at: [to(value), top + LANES[i]],
        },
        i ? dot(to(value), top + LANES[i], BEFORE, 6.5) : diamond(to(value), top, INK, 11),
      );
    return picture(
      width,
      428,
      lines,
      group(bar(to, { mean, variance }, 146, AFTER), bar(to, FIXED, 168, TRUTH)),
      axis(to, 184, [-4, -2, 0, 2, 4, 6], HALO),
      heading(16, 14, "x of six examples"),
      heading(16, 128, "mean, deviation: batch above, fixed below", HALO),
      outputs(out, 234, training, before.training[0], "y in training: batch statistics"),
      outputs(out, 346, inference, before.inference[0], "y in inference: fixed statistics"),
      x.map(handle).reverse(), // the marked one on top
    );
  },
  sentence: ({ x }, { mean, variance, training, inference }, before) => {
    const moved = [training[0] - before.training[0], inference[0] - before.inference[0]];
    const since = moved.some((d) => Math.abs(d) > 1e-9)
      ? ` Since the start, the first has moved by ${show(moved[0])} and the second by ${show(moved[1])}.`
      : "";
    return (
      `The marked x is ${show(x[0], 1)}. With the statistics of its batch (mean ${show(mean)}, variance ${show(variance)}) ` +
      `it becomes ${show(training[0])}, with the fixed ones (mean 1, variance 4) ${show(inference[0])}.${since}`
    );
  },
  buttons: [
    {
      label: "Other neighbours",
      change: ({ x, seed }) => {
        const next = (seed % 999) + 1;
        return { seed: next, x: [x[0], ...neighbours(next).map(fields.x.fit)] };
      },
    },
  ],
  python: ({ x, gamma, beta }) => `\
import numpy as np
from bnlib import batch_norm, batch_norm_inference

x = np.array([${x.join(", ")}], float)[:, np.newaxis]  # marked: x[0]
gamma, beta = [${gamma}], [${beta}]

training, mean, variance = batch_norm(x, gamma, beta)
inference = batch_norm_inference(x, [${FIXED.mean}], [${FIXED.variance}], gamma, beta)
print(training[0], inference[0])
`,
});
