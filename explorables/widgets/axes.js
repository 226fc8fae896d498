// Chapter 5. Which numbers share one mean, in batch, layer, instance and group norm.

import { AFTER, BEFORE, GRID, INK, MUTED, PAPER } from "../colours.js";
import { batchNorm, draws, drawsInPython } from "../core.js";
import { explorable } from "../explorable.js";
import { choice, flag, number } from "../fields.js";
import { h, picture, show, text } from "../svg.js";

const [N, SIDE, C] = [4, 3, 4];
const WIDTHS = [1, 0.5, 2, 1];
const PLACES = [0, 2, -1, 1];
const OFFSETS = [0, 1.5, -1, 0.5]; // of the examples

const fields = {
  norm: choice("batch", ["batch", "layer", "instance", "group"], "norm"),
  batch: number(4, 1, N, 1, "examples in the batch"),
  groups: { ...choice(2, [1, 2, 4], "groups of channels"), when: ({ norm }) => norm === "group" },
  shown: flag(false, "show the values after normalising"),
  n: number(1, 0, N - 1, 1),
  c: number(2, 0, C - 1, 1),
  seed: number(1, 1, 999, 1),
};

const KEPT = { batch: "-1", layer: "0", instance: "(0, -1)", group: "(0, 3)" };
const numbersOf = (seed) => draws(seed, N * SIDE * SIDE * C);
const places = [...Array(N * SIDE * SIDE * C).keys()].map((i) => ({
  n: Math.floor(i / (SIDE * SIDE * C)),
  h: Math.floor(i / (SIDE * C)) % SIDE,
  w: Math.floor(i / C) % SIDE,
  c: i % C,
}));

/** The name of the set that a value shares its mean with. */
const setOf = ({ norm, groups }, { n, c }) =>
  ({
    batch: `c${c}`,
    layer: `n${n}`,
    instance: `n${n}c${c}`,
    group: `n${n}g${Math.floor((c * groups) / C)}`,
  })[norm];

/** The chosen map, inside the present batch. */
const chosen = ({ n, c, batch }) => ({ n: Math.min(n, batch - 1), c });

function numbers(state) {
  const z = numbersOf(state.seed);
  const here = places.filter(({ n }) => n < state.batch);
  const x = here.map(({ n, c }, i) => z[i] * WIDTHS[c] + PLACES[c] + OFFSETS[n]);
  const members = {};
  here.forEach((place, i) => (members[setOf(state, place)] ||= []).push(i));
  const y = [];
  const statistics = {};
  for (const [name, indices] of Object.entries(members)) {
    const result = batchNorm(indices.map((i) => x[i]));
    indices.forEach((i, k) => (y[i] = result.y[k]));
    statistics[name] = result;
  }
  const name = setOf(state, chosen(state));
  const { mean, variance, count } = statistics[name];
  return { x, y, mean, variance, count, means: Object.keys(members).length };
}

function mapAt(state, values, n, c, [x0, y0], cell, act) {
  const mine = chosen(state);
  const isMine = n === mine.n && c === mine.c;
  const inSet = setOf(state, { n, c }) === setOf(state, mine);
  const own = state.shown ? AFTER : BEFORE;
  const colour = inSet ? own : MUTED;
  const size = SIDE * cell;
  const squares = [];
  for (let k = 0; k < SIDE * SIDE; k++) {
    const value = values[(n * SIDE * SIDE + k) * C + c];
    const side = Math.min(1, Math.sqrt(Math.abs(value) / 4)) * (cell - 3);
    squares.push(
      h("rect", {
        x: (x0 + (k % SIDE) * cell + (cell - side) / 2).toFixed(2),
        y: (y0 + Math.floor(k / SIDE) * cell + (cell - side) / 2).toFixed(2),
        width: side.toFixed(2),
        height: side.toFixed(2),
        fill: value > 0 ? colour : PAPER,
        stroke: colour,
        "stroke-width": 1.4,
      }),
    );
  }
  const pick = (dn, dc) => () =>
    act({ n: (mine.n + dn + state.batch) % state.batch, c: (mine.c + dc + C) % C });
  const moves = {
    ArrowRight: pick(0, 1),
    ArrowLeft: pick(0, -1),
    ArrowDown: pick(1, 0),
    ArrowUp: pick(-1, 0),
  };
  return h(
    "g",
    {
      class: "pick",
      role: "radio",
      tabindex: isMine ? 0 : -1,
      "aria-checked": isMine,
      "aria-label": `example ${n}, channel ${c}${inSet ? ", in the set" : ""}`,
      onclick: () => act({ n, c }),
      keys: (key) => moves[key] && (moves[key](), true),
    },
    h("rect", {
      class: "target",
      x: x0 - 2,
      y: y0 - 2,
      width: size + 4,
      height: size + 4,
      rx: 3,
      fill: inSet ? own : PAPER,
      "fill-opacity": inSet ? 0.14 : 1,
      stroke: isMine ? INK : inSet ? own : GRID,
      "stroke-width": isMine ? 2.5 : 1,
    }),
    squares,
  );
}

const WORDS = {
  batch: ({ c }, s) =>
    `Batch norm: channel ${c} of ${s.batch === 1 ? "the one example" : `all ${s.batch} examples`}, at every place`,
  layer: ({ n }) => `Layer norm: example ${n}, all its channels and places`,
  instance: ({ n, c }) => `Instance norm: the one map of example ${n} and channel ${c}`,
  group: ({ n, c }, { groups }) => {
    const size = C / groups;
    const first = Math.floor(c / size) * size;
    const which = size === 1 ? `channel ${c}` : `channels ${first} to ${first + size - 1}`;
    return `Group norm: example ${n}, ${which}, at every place`;
  },
};

const REMARKS = {
  "batch 1": " With one example in the batch this is instance norm.",
  "group 1": " One group: this is layer norm.",
  "group 4": " A group for each channel: this is instance norm.",
};

explorable("axes", {
  title: "Which numbers share one mean?",
  alt:
    "A table of four examples by four channels, each cell a map of three by three squares. " +
    "All four maps of channel 2 are coloured: in batch norm they share one mean and one variance.",
  fields,
  question: {
    ask: "Batch norm colours one column. What will layer norm colour?",
    answers: ["one row", "one map", "everything"],
    verdict:
      "Layer norm colours one row: all channels and places of one example, and nothing of the others.",
  },
  numbers,
  picture(state, { x, y }, width, before, act = () => {}) {
    const left = 74;
    const pitch = Math.min(104, (width - left) / C);
    const cell = Math.floor((pitch - 10) / SIDE);
    const down = SIDE * cell + 12;
    const values = state.shown ? y : x;
    const rows = [...Array(state.batch).keys()];
    const middle = { "text-anchor": "middle" };
    const at = (n, c) => [left + c * pitch, 42 + n * down];
    return picture(
      width,
      42 + N * down,
      text(left, 14, `${state.shown ? "x_hat" : "x"}: filled is positive, hollow negative`),
      [...Array(C).keys()].map((c) =>
        text(left + c * pitch + (SIDE * cell) / 2, 34, width < 420 ? `c = ${c}` : `channel ${c}`, {
          ...middle,
          "font-size": 12,
        }),
      ),
      rows.map((n) =>
        text(0, at(n, 0)[1] + (SIDE * cell) / 2 + 4, `example ${n}`, { "font-size": 12 }),
      ),
      h(
        "g",
        { role: "radiogroup", "aria-label": "map of one example and one channel" },
        rows.map((n) =>
          [...Array(C).keys()].map((c) => mapAt(state, values, n, c, at(n, c), cell, act)),
        ),
      ),
    );
  },
  sentence: (state, { mean, variance, count, means }) =>
    `${WORDS[state.norm](chosen(state), state)}. These ${count} numbers share the mean ${show(mean)} and the variance ${show(variance)}; ` +
    `there ${means === 1 ? "is 1 mean" : `are ${means} means`} in all.` +
    (REMARKS[`${state.norm} ${state.norm === "batch" ? state.batch : state.groups}`] || ""),
  buttons: [{ label: "Other numbers", change: ({ seed }) => ({ seed: (seed % 999) + 1 }) }],
  python: (state) => {
    const { n, c } = chosen(state);
    const isGroup = state.norm === "group";
    const index = {
      batch: `${c}`,
      layer: `${n}`,
      instance: `${n}, ${c}`,
      group: `${n}, ${Math.floor((c * state.groups) / C)}`,
    };
    const shape = `(${state.batch}, ${SIDE}, ${SIDE}, ${C})`;
    const grouped = `x.reshape(${state.batch}, ${SIDE}, ${SIDE}, ${state.groups}, ${C / state.groups})`;
    return `\
import numpy as np
from bnlib import batch_norm

${drawsInPython(state.seed, N * SIDE * SIDE * C)}
x = z.reshape(${N}, ${SIDE}, ${SIDE}, ${C}) * [${WIDTHS.join(", ")}] + [${PLACES.join(", ")}]
x += np.reshape([${OFFSETS.join(", ")}], (${N}, 1, 1, 1))
x = x[:${state.batch}]                                        # ${shape}, channels last

y, mean, variance = batch_norm(${isGroup ? grouped : "x"}, axis=${KEPT[state.norm]})
y = y.reshape(x.shape)
print(mean[${index[state.norm]}], variance[${index[state.norm]}], mean.size)
`;
  },
});
