// Chapter 4. Drag one x: every grad_x moves, and their sum stays 0.

import { AFTER, BEFORE, INK, MUTED, WRONG } from "../colours.js";
import { batchNormBackward, draws } from "../core.js";
import { explorable } from "../explorable.js";
import { list, number } from "../fields.js";
import { cross, dot, grip, group, heading, line, picture, rules, scale, show, text } from "../svg.js";

const COUNT = 6;
const upstream = (seed) =>
  seed === 1
    ? [1.2, -0.4, 0.7, 0.2, -0.9, 1]
    : draws(seed, COUNT).map((z) => Math.round(10 * z) / 10);

const fields = {
  x: list([-1.2, 0.4, 1.6, -0.3, 0.9, -2], -3, 3, 0.1),
  seed: number(1, 1, 999, 1),
};

const total = (values) => values.reduce((a, b) => a + b, 0);
const nothing = (value) => (Math.abs(value) < 1e-9 ? 0 : value);

function numbers({ x, seed }) {
  const { gradX, direct } = batchNormBackward(upstream(seed), x);
  return { gradX, direct, sum: total(gradX), directSum: total(direct) };
}

explorable("gradient", {
  title: "Drag one x, and watch every grad_x",
  alt:
    "Above, six values of x. Below, six orange bars, their gradients: some up, some down, and the seventh, their sum, is 0. " +
    "Pink crosses, the gradients along the direct path alone, add up to more than 1.",
  fields,
  question: {
    ask: "You are about to drag one x. How many of the six orange bars will change?",
    answers: ["one", "some", "all"],
    verdict: "Drag one, and all six change: they share a mean and a variance. Their sum stays 0.",
  },
  numbers,
  picture({ x, seed }, { gradX, direct, sum, directSum }, width, before) {
    const left = 44;
    const pitch = (width - left) / (COUNT + 1);
    const small = pitch < 50 ? 11 : 12;
    const at = (i) => Number((left + (i + 0.5) * pitch).toFixed(2));
    const up = scale(-3, 3, 176, 30);
    const down = scale(-1.6, 1.6, 412, 252);
    const middle = { "text-anchor": "middle" };
    const column = (value, alone, i, ghost) =>
      group(
        line(at(i), down(0), at(i), down.clip(value), AFTER, {
          "stroke-width": Math.min(26, pitch / 2),
        }),
        ghost != null &&
          Math.abs(ghost - value) > 0.004 &&
          line(at(i) - 18, down.clip(ghost), at(i) + 18, down.clip(ghost), INK, {
            "stroke-dasharray": "3 2",
          }),
        cross(at(i), down.clip(alone), WRONG),
        text(at(i), 434, show(value, pitch < 40 ? 1 : 2), { ...middle, "font-size": small, fill: INK }),
      );
    return picture(
      width,
      446,
      text(0, 14, "x"),
      rules(up, left, at(COUNT) - pitch / 2, [-2, 0, 2]),
      text(0, 212, "grad_y"),
      upstream(seed).map((g, i) => text(at(i), 212, show(g, 1), middle)),
      rules(down, left, width, [-1, 0, 1]),
      gradX.map((value, i) => column(value, direct[i], i, before.gradX[i])),
      line(at(COUNT) - pitch / 2, 196, at(COUNT) - pitch / 2, 440, MUTED),
      heading(0, 240, "grad_x: bars by all paths, crosses direct"),
      text(at(COUNT), 212, "sum", { ...middle, "font-weight": 600 }),
      column(nothing(sum), directSum, COUNT),
      x.map((value, i) =>
        group(
          line(at(i), up(0), at(i), up(value), BEFORE, { "stroke-width": 2 }),
          grip(
            {
              label: `x ${i + 1}`,
              field: "x",
              index: i,
              value,
              along: "y",
              to: up,
              limits: fields.x,
              at: [at(i), up(value)],
            },
            dot(at(i), up(value), BEFORE, 7.5),
          ),
        ),
      ),
    );
  },
  sentence: (state, { gradX, sum, directSum }, before) => {
    const changed = gradX.filter((value, i) => Math.abs(value - before.gradX[i]) > 1e-9).length;
    const since = changed ? `${changed === COUNT ? "All six" : changed} grad_x have changed. ` : "";
    return `${since}The six grad_x add up to ${show(nothing(sum), 3)}. Along the direct path alone they would add up to ${show(directSum)}.`;
  },
  buttons: [{ label: "Other grad_y", change: ({ seed }) => ({ seed: (seed % 999) + 1 }) }],
  python: ({ x, seed }) => `\
import numpy as np
from bnlib import batch_norm, batch_norm_backward, batch_norm_inference_backward

x = np.array([${x.join(", ")}], float)[:, np.newaxis]
grad_y = np.array([${upstream(seed).join(", ")}], float)[:, np.newaxis]

grad_x, grad_gamma, grad_beta = batch_norm_backward(grad_y, x)
_, mean, variance = batch_norm(x)
direct, *_ = batch_norm_inference_backward(grad_y, x, mean, variance)
print(grad_x.ravel(), grad_x.sum(), direct.sum())
`,
});
