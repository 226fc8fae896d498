// Chapter 6. The moving average as a clock: momentum and steps against what `predict` sees.

import { AFTER, INK, MUTED, TRUTH } from "../colours.js";
import { batchNorm, batchNormInference, blend, draws, drawsInPython, moments } from "../core.js";
import { explorable } from "../explorable.js";
import { choice, number } from "../fields.js";
import {
  axis,
  diamond,
  dot,
  group,
  h,
  line,
  path,
  picture,
  rules,
  scale,
  show,
  text,
} from "../svg.js";

const [SET, BATCH, LAST] = [160, 16, 300];
const MOMENTA = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999];
const TEST = Array.from({ length: 16 }, (_, k) => (k - 7.5) / 4);

const fields = {
  momentum: choice(0.99, MOMENTA, "momentum", "slider"),
  steps: number(60, 0, LAST, 1, "steps"),
  fresh: number(-1, -1, LAST, 1), // the step after which the statistics were computed anew; -1: never
  seed: number(1, 1, 999, 1),
};

// The weights move, so the channel does: its centre falls from 4 towards 2.
const centre = (t) => 2 + 120 / (60 + t);
const seen = (z, t) => z.map((value) => centre(t) + 0.5 * value);
const batchAt = (z, t) =>
  seen(
    Array.from({ length: BATCH }, (_, k) => z[(37 * t + 53 * k) % SET]),
    t,
  );

function numbers({ momentum, steps, fresh, seed }) {
  const z = draws(seed, SET);
  let moving = { mean: 0, variance: 1 };
  const [track, batches, truth] = [[], [], []];
  for (let t = 0; t <= steps; t++) {
    const exact = moments(seen(z, t));
    if (t > 0) {
      const batch = moments(batchAt(z, t));
      moving = blend(moving, batch, momentum);
      batches.push(batch.mean);
    }
    if (t === fresh) moving = { mean: exact.mean, variance: exact.variance };
    track.push(moving.mean);
    truth.push(exact);
  }
  const exact = truth[steps];
  const test = seen(TEST, steps);
  const left = fresh >= 0 && fresh <= steps ? 0 : momentum ** steps;
  return {
    track,
    batches,
    left,
    moving,
    exact: { mean: exact.mean, variance: exact.variance },
    fit: batchNorm(test).y,
    predict: batchNormInference(test, moving),
  };
}

const percent = (share) => `${show(100 * share, share && share < 0.1 ? 1 : 0)} %`;
const positive = (values) => values.filter((value) => value > 0).length;

/** A pie that empties: the share of the start that is left. */
function clock(x, y, r, left) {
  const angle = 2 * Math.PI * Math.min(left, 0.9999);
  const end = `${(x + r * Math.sin(angle)).toFixed(2)} ${(y - r * Math.cos(angle)).toFixed(2)}`;
  return group(
    h("circle", { cx: x, cy: y, r, fill: "none", stroke: MUTED, "stroke-width": 1.5 }),
    left > 0.002 &&
      h("path", {
        d: `M${x} ${y}V${y - r}A${r} ${r} 0 ${left > 0.5 ? 1 : 0} 1 ${end}z`,
        fill: INK,
      }),
  );
}

function outputs(to, y, title, values, draw) {
  return group(
    text(0, y, title),
    axis(to, y + 36, [-2, 0, 2, 4]),
    line(to(0), y + 8, to(0), y + 36, MUTED, { "stroke-dasharray": "3 3" }),
    values.map((value) => draw(to.clip(value), y + 22)),
  );
}

explorable("population", {
  title: "The moving-average clock",
  alt:
    "Over 60 steps the moving mean with momentum 0.99 climbs from 0 to half of the exact mean; a clock shows that 55 percent of the start is left. " +
    "Below, the outputs in fit lie around 0, those in predict far right of it.",
  fields,
  question: {
    ask: "Suppose that momentum had been 0.9 in these 60 steps. Where would the outputs in predict lie?",
    answers: ["nearer to fit", "farther off", "just there"],
    verdict:
      "Nearer to fit: after 60 steps momentum 0.99 has kept 55 % of its start, 0.9 less than 1 %. More steps help too, and Recalibrate helps at once.",
  },
  numbers,
  picture({ steps, fresh }, { track, batches, left, exact, moving, fit, predict }, width) {
    const [a, b] = [30, width - 12];
    const time = scale(0, LAST, a, b);
    const up = scale(0, 5, 208, 28);
    const out = scale(-3, 6, 12, width - 12);
    const everyStep = Array.from({ length: LAST / 5 + 1 }, (_, k) => 5 * k);
    const offset = exact.mean - centre(steps);
    const r = width < 420 ? 3.5 : 4.5;
    const key = [
      ["exact", TRUTH, { "stroke-dasharray": "6 3" }],
      [
        "batches",
        MUTED,
        { "stroke-width": 3, "stroke-dasharray": "0 6", "stroke-linecap": "round" },
      ],
      ["moving average", AFTER, { "stroke-width": 2.5 }],
    ];
    const dots = batches.map((mean, i) => `M${time(i + 1)} ${up(mean)}h0`).join("");
    return picture(
      width,
      420,
      text(0, 14, "mean of the channel, by step"),
      rules(up, a, b, [0, 1, 2, 3, 4]),
      [0, 100, 200, 300].map((t) =>
        text(time(t), 226, t, { "text-anchor": t === LAST ? "end" : "middle", "font-size": 12 }),
      ),
      h("path", {
        d: dots || "M0 0",
        fill: "none",
        stroke: MUTED,
        "stroke-width": 3,
        "stroke-linecap": "round",
      }),
      path(
        everyStep.map((t) => [time(t), up(centre(t) + offset)]),
        TRUTH,
        { "stroke-dasharray": "6 3" },
      ),
      path(
        track.map((mean, t) => [time(t), up(mean)]),
        AFTER,
        { "stroke-width": 2.5 },
      ),
      key.map(([name, colour, look], i) => {
        const x = [0, 0.24, 0.5][i] * Math.min(width, 420);
        return [
          line(x + 1, 245, x + 16, 245, colour, { "stroke-width": 2, ...look }),
          text(x + 21, 249, name, { "font-size": 12 }),
        ];
      }),
      dot(time(steps), up(moving.mean), AFTER, 5.5),
      group(fresh >= 0 && fresh <= steps && diamond(time(fresh), up(track[fresh]), TRUTH, 8)),
      clock(b - 26, 38, 24, left),
      text(b - 58, 34, percent(left), { "text-anchor": "end", "font-weight": 600 }),
      text(b - 58, 50, "of the start left", { "text-anchor": "end", "font-size": 12 }),
      outputs(out, 278, "in fit: batch statistics", fit, (x, y) => dot(x, y, AFTER, r)),
      outputs(out, 360, "in predict: moving statistics", predict, (x, y) => dot(x, y, AFTER, r)),
    );
  },
  sentence: ({ momentum, steps, fresh }, { left, moving, exact, fit, predict }) => {
    const since =
      fresh >= 0 && fresh <= steps
        ? `, recalibrated at step ${fresh}: nothing`
        : `: ${percent(left)}`;
    return (
      `After ${steps} steps with momentum ${momentum}${since} of the start is left, the moving mean is ${show(moving.mean)}, the exact one ${show(exact.mean)}. ` +
      `A ReLU behind it would pass ${positive(fit)} of 16 outputs in fit and ${positive(predict)} of 16 in predict.`
    );
  },
  time: { field: "steps", perSecond: 25 },
  buttons: [
    { label: "Recalibrate", change: ({ steps }) => ({ fresh: steps }) },
    { label: "Other data", change: ({ seed }) => ({ seed: (seed % 999) + 1 }) },
  ],
  python: ({ momentum, steps, fresh, seed }) => {
    const recalibrate =
      fresh < 0 || fresh > steps
        ? ""
        : `
    if t == ${fresh}:                                   # recalibrate
        mean, variance, _ = moments(seen(z, t))
        population.restore({**population.state(), "mean": mean, "variance": variance})`;
    return `\
import numpy as np
from bnlib import Exponential, batch_norm, batch_norm_inference, moments

${drawsInPython(seed, SET)}

def seen(z, t):                                      # the channel, after t steps
    return (2 + 120 / (60 + t) + 0.5 * z)[:, np.newaxis]

population = Exponential(1, momentum=${momentum})
for t in range(${steps} + 1):
    if t > 0:
        population.update(moments(seen(z[(37 * t + 53 * np.arange(${BATCH})) % ${SET}], t)))${recalibrate}

test = seen((np.arange(16) - 7.5) / 4, ${steps})
fit, *_ = batch_norm(test)
predict = batch_norm_inference(test, population.mean, population.variance)
print(population.mean, population.variance, predict.ravel())
`;
  },
});
