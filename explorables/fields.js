// What a state is made of. A field knows its start, its limits, and how it is written in an address.
// A field with a label gets a control: a slider, a row of choices or a tick box; `when`, if it has
// one, says from the state whether the control is shown.

const snap = (value, { min, max, step }) => {
  const inside = Math.min(max, Math.max(min, value));
  return Number((min + Math.round((inside - min) / step) * step).toFixed(6));
};

const readNumber = (text) => (text.trim() === "" ? NaN : Number(text));

/** A number between min and max, in steps. */
export const number = (start, min, max, step, label) => {
  const field = { kind: "number", start, min, max, step, label };
  field.fit = (value) => snap(value, field);
  field.read = (text) => {
    const value = readNumber(text);
    return Number.isFinite(value) ? field.fit(value) : undefined;
  };
  field.write = String;
  return field;
};

/** As many numbers as `start` has. */
export const list = (start, min, max, step) => {
  const field = { kind: "list", start, min, max, step };
  field.fit = (value) => snap(value, field);
  field.read = (text) => {
    const values = text.split(",").map(readNumber);
    const sound = values.length === start.length && values.every(Number.isFinite);
    return sound ? values.map(field.fit) : undefined;
  };
  field.write = (values) => values.join(",");
  return field;
};

/** One of a few values. `as` is "radio" or "slider". */
export const choice = (start, options, label, as = "radio") => ({
  kind: as,
  start,
  options,
  label,
  read: (text) => options.find((option) => String(option) === text),
  write: String,
});

/** Yes or no. */
export const flag = (start, label) => ({
  kind: "flag",
  start,
  label,
  read: (text) => [false, true][["0", "1"].indexOf(text)],
  write: (value) => (value ? "1" : "0"),
});

export const startOf = (fields) =>
  Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.start]));

/** Read the state of the widget `name` from an address; what is missing or unsound is the start's. */
export function readState(name, fields, search) {
  const query = new URLSearchParams(search);
  const state = startOf(fields);
  for (const [key, field] of Object.entries(fields)) {
    const text = query.get(`${name}.${key}`);
    state[key] = (text === null ? undefined : field.read(text)) ?? field.start;
  }
  return state;
}

/** Write all fields into an address, beside those of other widgets; nothing for the start. */
export function writeState(name, fields, state, search) {
  const mine = Object.entries(fields).map(([key, field]) => [key, field.write(state[key])]);
  const moved = mine.some(([key, text]) => text !== fields[key].write(fields[key].start));
  const others = search
    .replace(/^\?/, "")
    .split("&")
    .filter((part) => part && !part.startsWith(`${name}.`));
  const ours = moved ? mine.map(([key, text]) => `${name}.${key}=${text}`) : [];
  const all = [...others, ...ours].join("&");
  return all ? `?${all}` : "";
}
