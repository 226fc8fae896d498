// What all widgets share. A widget is a plain object (see any file in widgets/); here it becomes the
// custom element <bn-NAME>: question, picture, sentence, controls, buttons, state in the address.

import { variables } from "./colours.js";
import { readState, startOf, writeState } from "./fields.js";
import { h, patch, show, still } from "./svg.js";

export const WIDGETS = {};
export const STILL_WIDTH = 560;

const KEYS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
const CALM = "(prefers-reduced-motion: reduce)";
const calm = () => matchMedia(CALM).matches;

/**
 * Define a widget.
 *   title, alt   its name; what the still picture shows
 *   fields       its state (fields.js)
 *   question     {ask, answers, verdict}: asked before the first touch
 *   numbers      state -> the numbers that bnlib would give
 *   picture      (state, numbers, width, start numbers, act) -> an svg
 *   sentence     (state, numbers, start numbers) -> what is seen
 *   python       state -> a program that gives the same numbers
 *   buttons      [{label, change: state -> changes}], optional
 *   time         {field, perSecond}: has Step and Play, optional; a tick of Play takes `stride` steps,
 *                one more button takes `leap`; `restarts` if any other change begins anew
 *   still        changes to the start for the still picture, optional
 */
export function explorable(name, spec) {
  const start = startOf(spec.fields);
  WIDGETS[name] = {
    ...spec,
    still: () => {
      const state = { ...start, ...spec.still };
      const numbers = spec.numbers(state);
      return still(spec.picture(state, numbers, STILL_WIDTH, numbers), spec.alt);
    },
  };
  if (typeof customElements === "undefined") return; // building the stills
  if (!customElements.get(`bn-${name}`))
    customElements.define(`bn-${name}`, element(name, spec, start));
}

function colourThePage() {
  if (document.getElementById("bn-colours")) return;
  const style = document.createElement("style");
  style.id = "bn-colours";
  style.textContent = `html{${variables(0)}}html[data-theme=dark]{${variables(1)}}`;
  document.head.append(style);
}

const element = (name, spec, start) =>
  class extends HTMLElement {
    connectedCallback() {
      if (this.live) return;
      colourThePage();
      this.state = readState(name, spec.fields, location.search);
      this.atStart = spec.numbers(start);
      this.live = document.createElement("div");
      this.live.className = "bn-live";
      this.live.setAttribute("role", "group");
      this.live.setAttribute("aria-label", spec.title);
      this.append(this.live);
      this.live.addEventListener("pointerdown", (event) => this.take(event));
      this.live.addEventListener("keydown", (event) => this.press(event));
      new ResizeObserver(() => this.render()).observe(this);
      this.render();
      if (spec.time) this.standStill();
    }

    /** All numbers of the present state, unrounded. */
    get numbers() {
      return spec.numbers(this.state);
    }

    /** A program that gives the same numbers. */
    get python() {
      return spec.python(this.state);
    }

    /** Change the state, draw it, and soon write it into the address. */
    change(changes) {
      if (!this.touched) this.room = this.live.querySelector(".bn-question").offsetHeight;
      const { field, restarts } = spec.time || {};
      if (restarts && !(field in changes)) this.state[field] = spec.fields[field].min;
      Object.assign(this.state, changes);
      this.touched = true;
      this.copied = "";
      this.render();
      clearTimeout(this.soon);
      this.soon = setTimeout(() => {
        this.soon = undefined;
        const search = writeState(name, spec.fields, this.state, location.search);
        const address = location.pathname + search + location.hash;
        try {
          history.replaceState(history.state, "", address);
        } catch {} // a page from disk in a browser that forbids it
      }, 150);
    }

    // Drawing

    render() {
      const width = Math.round(Math.min(620, this.clientWidth || STILL_WIDTH));
      const numbers = this.numbers;
      const drawn = spec.picture(this.state, numbers, width, this.atStart, (changes) =>
        this.change(changes),
      );
      Object.assign(drawn.attributes, {
        role: "group",
        "aria-label": spec.title,
        class: "bn-picture",
      });
      const says = { class: "bn-says", "aria-live": "polite", "aria-busy": Boolean(this.busy) };
      const parts = [
        h("p", { class: "bn-title" }, spec.title),
        this.question(),
        drawn,
        spec.time && h("div", { class: "bn-buttons bn-time" }, this.clock()),
        h("p", says, spec.sentence(this.state, numbers, this.atStart)),
        h("div", { class: "bn-controls" }, this.controls()),
        h("div", { class: "bn-buttons" }, this.buttons()),
        h(
          "div",
          { class: "bn-code", hidden: !this.copied },
          h("p", { role: "status" }, this.copied || ""),
          h("pre", { tabindex: 0, "aria-label": "Python" }, this.copied ? this.python : ""),
        ),
      ];
      patch(this.live, parts.filter(Boolean));
    }

    question() {
      const { ask, answers, verdict } = spec.question;
      if (this.touched) {
        const said = this.guess ? `You said: ${this.guess}. ` : "";
        const style = `min-height:${this.room}px`; // nothing below is to move
        return h("div", { class: "bn-question", style }, h("p", {}, said + verdict));
      }
      const buttons = answers.map((answer) =>
        h(
          "button",
          {
            type: "button",
            "aria-pressed": this.guess === answer,
            onclick: () => {
              this.guess = answer;
              this.render();
            },
          },
          answer,
        ),
      );
      const then = this.guess ? " Now try it." : "";
      return h(
        "div",
        { class: "bn-question" },
        h("p", {}, `${ask}${then}`),
        h("div", { class: "bn-answers" }, buttons),
      );
    }

    controls() {
      const labelled = Object.entries(spec.fields).filter(([, field]) => field.label);
      return labelled.map(([key, field]) =>
        h(
          "div",
          { hidden: field.when ? !field.when(this.state) : false },
          CONTROLS[field.kind](key, field, this, name),
        ),
      );
    }

    clock() {
      const { leap } = spec.time;
      const atEnd = this.atEnd();
      const jump = (steps) => () => this.pause() || this.advance(steps);
      return [
        !(leap && calm()) &&
          (this.playing
            ? button("Pause", () => this.pause())
            : button("Play", () => this.play())),
        button("Step", jump(1), atEnd),
        leap && button(`${leap} steps`, jump(leap), atEnd),
      ];
    }

    buttons() {
      return [
        (spec.buttons || []).map(({ label, change }) =>
          button(label, () => this.change(change(this.state))),
        ),
        button("Reset", () => this.pause() || this.change(startOf(spec.fields))),
        button("Copy as Python", () => this.copy()),
      ];
    }

    async copy() {
      let copied = "The program below gives the same numbers. Select it and copy it.";
      try {
        await navigator.clipboard.writeText(this.python);
        copied = "Copied. This program gives the same numbers:";
      } catch {} // no clipboard here: the text is shown
      this.copied = copied;
      this.render();
    }

    // Time

    atEnd() {
      const { field } = spec.time;
      return this.state[field] >= spec.fields[field].max;
    }

    advance(steps) {
      const { field } = spec.time;
      const { fit, step } = spec.fields[field];
      this.change({ [field]: fit(this.state[field] + steps * step) });
      if (this.atEnd()) this.pause();
    }

    /** Stop where nobody looks, and where motion is not wanted. */
    standStill() {
      const stop = () => (this.playing ? this.pause() : this.render());
      new IntersectionObserver(([entry]) => {
        if (!entry.isIntersecting && this.playing) this.pause();
      }).observe(this.live.querySelector("svg"));
      document.addEventListener("visibilitychange", () => document.hidden && stop());
      matchMedia(CALM).addEventListener("change", stop);
    }

    play() {
      const { field, perSecond, stride = 1 } = spec.time;
      if (this.atEnd()) this.change({ [field]: spec.fields[field].min });
      if (calm()) return this.change({ [field]: spec.fields[field].max });
      this.playing = setInterval(() => this.advance(stride), 1000 / perSecond);
      this.busy = true;
      this.render();
    }

    pause() {
      clearInterval(this.playing);
      this.playing = undefined;
      this.busy = false;
      this.render();
    }

    // Dragging and keys

    take(event) {
      if (event.button || !event.target.closest(".grip")) return;
      const svg = this.live.querySelector("svg");
      const place = svg.getBoundingClientRect();
      const [x, y] = [event.clientX - place.left, event.clientY - place.top];
      const far = ({ grip }) => Math.hypot(grip.at[0] - x, grip.at[1] - y);
      const node = [...svg.querySelectorAll(".grip")].sort((a, b) => far(a) - far(b))[0];
      const { along, at } = node.grip;
      const pointer = (e) => (along === "x" ? e.clientX : e.clientY);
      const offset = at[along === "x" ? 0 : 1] - pointer(event);
      const move = (e) => this.put(node.grip, node.grip.to.invert(pointer(e) + offset));
      const drop = () => {
        this.busy = false;
        svg.onpointermove = svg.onpointerup = svg.onpointercancel = null;
        this.render();
      };
      event.preventDefault();
      node.focus({ preventScroll: true });
      svg.setPointerCapture(event.pointerId);
      this.busy = true;
      Object.assign(svg, { onpointermove: move, onpointerup: drop, onpointercancel: drop });
    }

    put({ field, index }, value) {
      const values = [...this.state[field]];
      values[index] = spec.fields[field].fit(value);
      this.change({ [field]: values });
    }

    press(event) {
      const node = event.target.closest(".grip, .pick");
      if (!node || event.ctrlKey || event.altKey || event.metaKey) return;
      const handled = node.grip ? this.nudge(node.grip, event.key) : node.keys?.(event.key);
      if (!handled) return;
      event.preventDefault();
      if (node.keys) this.live.querySelector(".pick[tabindex='0']")?.focus();
    }

    nudge(grip, key) {
      const { min, max, step } = spec.fields[grip.field];
      const target = { Home: min, End: max }[key] ?? (KEYS[key] && grip.value + KEYS[key] * step);
      if (target === undefined) return false;
      this.put(grip, target);
      return true;
    }
  };

const button = (label, onclick, disabled = false) =>
  h("button", { type: "button", onclick, disabled }, label);

// One control for each kind of field

const slider = (label, shown, attributes) =>
  h(
    "label",
    { class: "bn-slider" },
    h("span", {}, label),
    h("input", { type: "range", "aria-valuetext": shown, ...attributes }),
    h("output", {}, shown),
  );

const CONTROLS = {
  number: (key, { min, max, step, label }, widget) => {
    const digits = step < 1 ? 1 : 0;
    return slider(label, show(widget.state[key], digits), {
      min,
      max,
      step,
      value: String(widget.state[key]),
      oninput: ({ target }) => widget.change({ [key]: Number(target.value) }),
    });
  },
  slider: (key, { options, label }, widget) =>
    slider(label, String(widget.state[key]), {
      min: 0,
      max: options.length - 1,
      step: 1,
      value: String(options.indexOf(widget.state[key])),
      oninput: ({ target }) => widget.change({ [key]: options[target.value] }),
    }),
  radio: (key, { options, label }, widget, name) =>
    h(
      "div",
      { class: "bn-choice", role: "radiogroup", "aria-label": label },
      h("span", { "aria-hidden": true }, label),
      options.map((option) =>
        h(
          "label",
          {},
          h("input", {
            type: "radio",
            name: `${name}-${key}`,
            checked: option === widget.state[key],
            onchange: () => widget.change({ [key]: option }),
          }),
          h("span", {}, option),
        ),
      ),
    ),
  flag: (key, { label }, widget) =>
    h(
      "label",
      { class: "bn-flag" },
      h("input", {
        type: "checkbox",
        checked: widget.state[key],
        onchange: ({ target }) => widget.change({ [key]: target.checked }),
      }),
      h("span", {}, label),
    ),
};
