// The roles of bnlib.book.style, [light, dark]; tests/site/test_explorables.py holds them equal.

export const ROLES = {
  before: ["#163c98", "#6ca8f5"],
  after: ["#b95b00", "#ffb04d"],
  truth: ["#005f46", "#7de8c8"],
  wrong: ["#c1166b", "#ee62a6"],
  muted: ["#868c94", "#727a84"],
  ink: ["#1f2328", "#eef2f6"],
  grid: ["#e3e6ea", "#2b323b"],
  paper: ["#ffffff", "#14181e"],
};

const names = Object.keys(ROLES);

export const [BEFORE, AFTER, TRUTH, WRONG, MUTED, INK, GRID, PAPER] = names.map(
  (name) => `var(--bn-${name})`,
);

/** The custom properties of one theme: 0 light, 1 dark. */
export const variables = (theme) =>
  names.map((name) => `--bn-${name}:${ROLES[name][theme]}`).join(";");
