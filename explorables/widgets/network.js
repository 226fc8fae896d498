// Chapter 1 and the landing page. Two networks from the same weights, one with batch norm, in training.

import { AFTER, BEFORE, GRID, INK, MUTED, PAPER, WRONG } from "../colours.js";
import { generator, moments, normals } from "../core.js";
import { explorable } from "../explorable.js";
import { choice, number } from "../fields.js";
import { network, softmaxCrossEntropy } from "../network.js";
import { cross, group, h, heading, line, path, picture, scale, show, text } from "../svg.js";

const [POINTS, UNITS, LAST] = [128, 12, 300];
const RATES = [0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const SCALES = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 5];
const GUESS = Math.log(2); // the loss of who knows nothing

const fields = {
  rate: choice(0.1, RATES, "learning rate", "slider"),
  scale: choice(0.5, SCALES, "initial scale", "slider"),
  depth: number(6, 1, 8, 1, "hidden layers"),
  batch: choice(POINTS, [2, 4, 8, 16, 32, 64, POINTS], "batch size", "slider"),
  activation: choice("ReLU", ["ReLU", "tanh"], "activation"),
  steps: number(0, 0, LAST, 1),
  seed: number(1, 1, 999, 1),
};

// Two spirals, a little blurred

const labels = Array.from({ length: POINTS }, (_, i) => i % 2);
const points = new Float64Array(2 * POINTS);
const blur = normals(1);
labels.forEach((label, i) => {
  const t = (Math.floor(i / 2) + 0.5) / (POINTS / 2);
  const angle = Math.PI * (1.5 * t + label);
  points[2 * i] = (0.15 + 0.85 * t) * Math.cos(angle) + 0.03 * blur();
  points[2 * i + 1] = (0.15 + 0.85 * t) * Math.sin(angle) + 0.03 * blur();
});

// Where the networks are asked for the regions: a grid of cells around the points

const [CELLS, REACH, BINS] = [24, 1.2, 11];
const SIDE = CELLS + 1;
const grid = Float64Array.from({ length: 2 * SIDE * SIDE }, (_, i) => {
  const node = Math.floor(i / 2);
  return i % 2
    ? REACH - ((2 * REACH) / CELLS) * Math.floor(node / SIDE)
    : ((2 * REACH) / CELLS) * (node % SIDE) - REACH;
});

const NETS = ["plain", "normed"];
const KINDS = {
  plain: ["without batch norm", BEFORE],
  normed: ["with batch norm", AFTER],
};

/** Two networks before their first step. */
function begin({ depth, scale, activation, seed }) {
  const options = { inputs: 2, units: UNITS, depth, scale, activation };
  const nets = NETS.map((name) =>
    network({ ...options, norm: name === "normed", normal: normals(seed) }),
  );
  return { nets, losses: [[], []], order: generator(seed + 1000), rows: [], steps: 0 };
}

function advance(run, { batch, rate }) {
  if (run.rows.length < batch) {
    const keys = labels.map(run.order);
    run.rows = [...labels.keys()].sort((i, j) => keys[i] - keys[j]);
  }
  const rows = run.rows.splice(0, batch);
  const x = Float64Array.from({ length: 2 * batch }, (_, i) => points[2 * rows[i >> 1] + (i % 2)]);
  run.nets.forEach((net, k) => {
    const { loss, grad } = softmaxCrossEntropy(
      net.forward(x),
      rows.map((i) => labels[i]),
    );
    net.backward(grad);
    net.step(rate);
    run.losses[k].push(loss);
  });
  run.steps += 1;
}

/** Of numbers from -3 to 3; what lies beyond is in the bars at the ends. */
function histogram(values) {
  const counts = Array(BINS).fill(0);
  for (const value of values) {
    const place = Math.floor(((value + 3) / 6) * BINS);
    if (place === place) counts[Math.min(BINS - 1, Math.max(0, place))] += 1;
  }
  return counts;
}

/** All points in one batch, and then the grid with the statistics of the points. */
function look(net) {
  const seen = [];
  const logits = net.forward(points, { seen });
  const right = labels.map((label, i) => (logits[2 * i + 1] > logits[2 * i] ? 1 : 0) === label);
  const surface = net.forward(grid, { fixed: true });
  return {
    loss: softmaxCrossEntropy(logits, labels).loss,
    right,
    share: right.filter(Boolean).length / POINTS,
    spread: Math.sqrt(moments(seen.at(-1)).variance),
    histograms: seen.map(histogram),
    surface: Array.from({ length: SIDE * SIDE }, (_, i) => surface[2 * i + 1] - surface[2 * i]),
  };
}

let kept = {}; // the run of the last state: its next step costs one step, not all

function runTo(state) {
  const { steps, ...settings } = state;
  const key = JSON.stringify(settings);
  if (kept.key !== key || kept.steps > steps) kept = { key, ...begin(state) };
  if (kept.steps === steps && kept.looks) return kept;
  while (kept.steps < steps) advance(kept, state);
  kept.looks = kept.nets.map(look);
  return kept;
}

/** The step at which a loss was beyond all measure, or -1. The first one, of random weights, may be. */
const divergence = (losses) => losses.findIndex((loss, step) => step > 0 && !(loss < 100));

function numbers(state) {
  const { losses, looks } = runTo(state);
  const of = (key) => Object.fromEntries(NETS.map((name, k) => [name, looks[k][key]]));
  const [plain, normed] = losses.map((values) => [...values]);
  const loss = of("loss");
  return {
    plain,
    normed,
    loss,
    right: of("share"),
    spread: of("spread"),
    diverged: {
      plain: divergence([...plain, loss.plain]),
      normed: divergence([...normed, loss.normed]),
    },
  };
}

const lossInWords = (loss) => {
  if (!Number.isFinite(loss)) return "not a number any more";
  if (loss > 100) return "above 100";
  return loss < 0.0001 ? "below 0.0001" : show(loss, loss < 0.01 ? 4 : 3);
};
const percent = (share) => `${show(100 * share, 0)} %`;

// Drawing

/** Where the surface is positive, as one path, and the border of that, as another. */
function region(surface, [x0, y0], cell) {
  const fill = [];
  const border = [];
  for (let row = 0; row < CELLS; row++) {
    let whole = 0;
    for (let column = 0; column <= CELLS; column++) {
      const corners = [
        [0, 0],
        [1, 0],
        [1, 1],
        [0, 1],
      ].map(([dx, dy]) => [
        x0 + (column + dx) * cell,
        y0 + (row + dy) * cell,
        column < CELLS ? surface[(row + dy) * SIDE + column + dx] : 0,
      ]);
      const inside = corners.filter(([, , value]) => value > 0).length;
      if (inside === 4) {
        whole += 1;
        continue;
      }
      if (whole) fill.push(`M${x0 + column * cell} ${y0 + row * cell}h${-whole * cell}v${cell}h${whole * cell}z`);
      whole = 0;
      if (!inside) continue;
      const shape = [];
      const ends = [];
      corners.forEach(([x, y, value], i) => {
        const [nextX, nextY, next] = corners[(i + 1) % 4];
        if (value > 0) shape.push(`${x} ${y}`);
        if (value > 0 === next > 0) return;
        const part = value / (value - next);
        const at = [x + part * (nextX - x), y + part * (nextY - y)];
        shape.push(at.map((place) => Number(place.toFixed(1))).join(" "));
        ends.push(shape.at(-1));
      });
      fill.push(`M${shape.join("L")}z`);
      for (let i = 0; i < ends.length; i += 2) border.push(`M${ends[i]}L${ends[i + 1]}`);
    }
  }
  return [fill, border].map((parts) => parts.join("") || "M0 0");
}

const ROUND = { fill: "none", "stroke-linecap": "round" };

function panel({ surface, right }, colour, [x0, y0], cell) {
  const size = CELLS * cell;
  const [fill, border] = region(surface, [x0, y0], cell);
  const to = scale(-REACH, REACH, 0, size);
  const dots = (wanted) =>
    labels
      .map((label, i) =>
        wanted(label, right[i])
          ? `M${Math.round(x0 + to(points[2 * i]))} ${Math.round(y0 + size - to(points[2 * i + 1]))}h0`
          : "",
      )
      .join("") || "M0 0";
  const r = cell < 9 ? 5 : 7;
  const mark = (d, stroke, width) => h("path", { d, stroke, "stroke-width": width, ...ROUND });
  return group(
    h("rect", { x: x0, y: y0, width: size, height: size, fill: PAPER, stroke: GRID }),
    h("path", { d: fill, fill: colour, opacity: 0.22 }),
    h("path", { d: border, fill: "none", stroke: colour, "stroke-width": 1.5 }),
    mark(dots((_, isRight) => isRight), INK, r),
    mark(dots((_, isRight) => !isRight), WRONG, r),
    mark(dots((label) => !label), PAPER, r - 3),
  );
}

/** What enters the activation of each hidden layer, the first at the left. */
function layers(histograms, colour, x0, y0, size) {
  const pitch = size / histograms.length;
  const wide = Math.floor(Math.min(46, pitch - 4) / BINS) || 1.3;
  return histograms.map((counts, k) => {
    const left = Math.round(x0 + k * pitch + (pitch - BINS * wide) / 2);
    const most = Math.max(1, ...counts);
    const steps = counts.map((count) => `V${(y0 - (36 * count) / most).toFixed(1)}h${wide}`);
    return group(
      h("path", { d: `M${left} ${y0}${steps.join("")}V${y0}z`, fill: colour }),
      line(left - 1, y0 + 0.5, left + BINS * wide + 1, y0 + 0.5),
      text(left + (BINS * wide) / 2, y0 + 15, k + 1, { "text-anchor": "middle", "font-size": 11 }),
    );
  });
}

function curve(losses, now, wild, colour, time, up, isSquare) {
  const ends = losses.findIndex((loss) => !Number.isFinite(loss));
  const drawn = ends < 0 ? [...losses, now] : losses.slice(0, ends);
  const at = (loss) => up.clip(Math.log10(loss));
  const places = drawn
    .filter(Number.isFinite)
    .map((loss, t) => [time(t), Number(at(loss).toFixed(1))]);
  if (!places.length) places.push([time(0), at(GUESS)]);
  const [x, y] = places.at(-1);
  const end = { fill: colour, stroke: PAPER };
  return group(
    path(places, colour, { "stroke-linejoin": "round", "stroke-width": 1.8 }),
    group(
      isSquare
        ? h("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9, ...end })
        : h("circle", { cx: x, cy: y, r: 5, ...end }),
    ),
    group(wild > 0 && cross(time(wild), up.clip(1), WRONG, 6)),
  );
}

function verdict({ plain, normed, loss }) {
  const [one, other] = NETS.map((name) => (Number.isFinite(loss[name]) ? loss[name] : Infinity));
  if (Math.max(one, other) < 0.1) {
    const [late, early] = [plain, normed].map((losses) => losses.findIndex((l) => l < 0.1));
    const when = `: the loss first fell below 0.1 at step ${late} without batch norm, at step ${early} with it`;
    return `Both have learned the spirals${[late, early].includes(-1) ? "" : when}.`;
  }
  if (Math.min(one, other) > 0.98 * GUESS) return "Neither does better than guessing, whose loss is 0.693.";
  if (Math.abs(Math.log(one / other)) < 0.2) return "The two are level.";
  return one > other
    ? "The network with batch norm is ahead."
    : "The network without batch norm is ahead.";
}

explorable("network", {
  title: "Two networks, the same weights, one with batch norm",
  alt:
    "After 300 steps. Left, without batch norm: a third of the points of two spirals are wrong, and the loss has not moved. " +
    "Right, with batch norm: all are right, and the loss has fallen below 0.01.",
  fields,
  still: { steps: LAST },
  question: {
    ask: "Both networks start from the same small weights. How many of them will have told the two spirals apart after 100 steps?",
    answers: ["none", "one", "both"],
    verdict:
      "One: from weights this small only the network with batch norm learns. With initial scale 1.4 both do, and if the batches then have 4 examples, the other one is ahead.",
  },
  numbers,
  picture(state, { plain, normed, loss, right, diverged }, width) {
    const { looks } = runTo(state);
    const cell = Math.floor((width - 14) / 2 / CELLS);
    const size = CELLS * cell;
    const lefts = [0, width - size];
    const small = { "font-size": 12 };
    const below = 44 + size;
    const [a, b, top] = [50, width - 8, below + 116];
    const time = scale(0, LAST, a, b);
    const up = scale(-4, 1, top + 130, top);
    const result = (name) =>
      diverged[name] > 0
        ? text(0, 0, `diverged, ${percent(right[name])} right`, { fill: WRONG, "font-weight": 600 })
        : [
            text(0, 0, `${percent(right[name])} right`),
            right[name] < 1 &&
              text(82, 0, `${100 - Math.round(100 * right[name])} % wrong`, { fill: WRONG }),
          ];
    return picture(
      width,
      top + 154,
      NETS.map((name, k) => {
        const [title, colour] = KINDS[name];
        const left = lefts[k];
        return group(
          k
            ? h("rect", { x: left, y: 5, width: 9, height: 9, fill: colour })
            : h("circle", { cx: left + 5, cy: 10, r: 5, fill: colour }),
          text(left + 16, 14, title, { "font-weight": 600 }),
          h("g", { transform: `translate(${left} 33)` }, result(name)),
          panel(looks[k], colour, [left, 42], cell),
          layers(looks[k].histograms, colour, left, below + 62, size),
        );
      }),
      heading(0, below + 18, `what enters each ${state.activation}, by layer, from \u22123 to 3`, small),
      heading(0, top - 12, "loss, by step", small),
      [10, 1, 0.1, 0.01, 0.001, 0.0001].map((tick) => [
        line(a, up(Math.log10(tick)), b, up(Math.log10(tick)), GRID),
        text(a - 6, up(Math.log10(tick)) + 4, tick, { "text-anchor": "end", "font-size": 12 }),
      ]),
      line(a, up(Math.log10(GUESS)), b, up(Math.log10(GUESS)), MUTED, { "stroke-dasharray": "4 3" }),
      heading(b - 14, up(Math.log10(GUESS)) - 6, "guessing", { "text-anchor": "end", "font-size": 12 }),
      [0, 100, 200, 300].map((t) =>
        text(time(t), top + 148, t, {
          "text-anchor": t === LAST ? "end" : "middle",
          "font-size": 12,
        }),
      ),
      curve(plain, loss.plain, diverged.plain, BEFORE, time, up, false),
      curve(normed, loss.normed, diverged.normed, AFTER, time, up, true),
    );
  },
  sentence: ({ steps, depth }, all) => {
    const { loss, right, spread } = all;
    if (!steps) {
      const inWords = (value) => (value < 0.001 ? "less than 0.001" : show(value, value < 0.1 ? 3 : 2));
      return (
        `Nothing is trained yet. What enters the activation of hidden layer ${depth} has the deviation ` +
        `${inWords(spread.plain)} without batch norm, and ${inWords(spread.normed)} with it.`
      );
    }
    const says = NETS.map((name) => {
      const wild = all.diverged[name];
      const its = lossInWords(loss[name]);
      return wild > 0
        ? `training diverged at step ${wild}, and the loss is ${its}`
        : `the loss is ${its} and ${percent(right[name])} of the points are right`;
    });
    return `After ${steps} ${steps === 1 ? "step" : "steps"}: without batch norm ${says[0]}; with it ${says[1]}. ${verdict(all)}`;
  },
  time: { field: "steps", perSecond: 20, stride: 3, leap: 100, restarts: true },
  buttons: [{ label: "Other weights", change: ({ seed }) => ({ seed: (seed % 999) + 1 }) }],
  python: ({ rate, scale, depth, batch, activation, steps, seed }) => `\
import numpy as np
from bnlib import BatchNorm
from bnlib.book.network import Activation, Dense, Network, softmax_cross_entropy

class Draws:                                         # the page's random numbers
    def __init__(self, seed):
        self.state = seed * 811290697 % 2147483647

    def uniform(self):
        u, self.state = self.state / 2147483647, self.state * 16807 % 2147483647
        return u

    def normal(self, mean, deviation, shape):
        z = [self.uniform() + self.uniform() + self.uniform() for _ in range(np.prod(shape))]
        return mean + deviation * (2 * (np.reshape(z, shape) - 1.5))

i = np.arange(${POINTS})                                   # two spirals
y, t = i % 2, (i // 2 + 0.5) / ${POINTS / 2}
angle = np.pi * (1.5 * t + y)
x = ((0.15 + 0.85 * t) * [np.cos(angle), np.sin(angle)]).T
x += Draws(1).normal(0, 0.03, (${POINTS}, 2))

def build(norm):
    rng, layers, inputs = Draws(${seed}), [], 2
    for _ in range(${depth}):
        bias = None if norm else 0.0
        layers.append(Dense(inputs, ${UNITS}, rng, deviation=${scale} / inputs**0.5, bias=bias))
        layers += [BatchNorm(${UNITS})] if norm else []
        layers.append(Activation("${activation.toLowerCase()}"))
        inputs = ${UNITS}
    return Network([*layers, Dense(inputs, 2, rng, deviation=${scale} / inputs**0.5)])

def train(network):
    order, rows, losses = Draws(${seed} + 1000), [], []
    for _ in range(${steps}):
        if len(rows) < ${batch}:
            rows = sorted(range(${POINTS}), key=lambda _: order.uniform())
        now, rows = rows[:${batch}], rows[${batch}:]
        loss, grad = softmax_cross_entropy(network(x[now], training=True), y[now])
        network.backward(grad)
        network.step(${rate})
        losses.append(loss)
    return losses

without, with_bn = build(norm=False), build(norm=True)
plain, normed = train(without), train(with_bn)       # the loss at each step
for network in (without, with_bn):                   # and at the end, of all points
    logits = network(x, training=True, update=False)
    print(softmax_cross_entropy(logits, y)[0], np.mean(logits.argmax(axis=1) == y))
`,
});
