"""Ask TensorFlow.js what its batch norm layer does; for the table of conventions.

    npm install --prefix /tmp/tfjs @tensorflow/tfjs-{core,layers,backend-cpu}@4
    python benchmarks/tfjs.py --modules /tmp/tfjs [--json bnlib/book/stored/tfjs.json]

It needs Node. A few seconds.
"""

import argparse
import json
import subprocess
from pathlib import Path

from bnlib.book.experiments import keep

STORED = Path(__file__).parents[1] / "bnlib/book/stored/tfjs.json"
PROGRAM = """
const core = require("@tensorflow/tfjs-core");
require("@tensorflow/tfjs-backend-cpu");
const tfjs = require("@tensorflow/tfjs-layers");

const batch = [[1, 10], [2, 30], [3, 10], [4, 30]];

async function trained(settings) {
  const x = core.tensor2d(batch);
  const norm = tfjs.layers.batchNormalization({ inputShape: [2], momentum: 0.9, ...settings });
  const model = tfjs.sequential({ layers: [norm] });
  model.compile({ optimizer: core.train.sgd(0), loss: "meanSquaredError" });
  try {
    await model.fit(x, x, { batchSize: 4, epochs: 1, verbose: 0 });
  } catch (error) {
    return { error: error.message };
  }
  const [mean, variance] = norm.getWeights().slice(-2).map((weight) => weight.arraySync());
  return { mean, variance, inference: model.predict(x).arraySync() };
}

async function main() {
  await core.setBackend("cpu");
  const { momentum, epsilon, axis } = tfjs.layers.batchNormalization({}).getConfig();
  const found = { version: core.version_core, defaults: { momentum, epsilon, axis }, trained: {} };
  for (const [name, settings] of Object.entries({
    "as it is": {}, "center: false": { center: false }, "scale: false": { scale: false } })) {
    found.trained[name] = await trained(settings);
  }
  console.log(JSON.stringify(found));
}
main();
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    parser.add_argument("--modules", type=Path, required=True, help="where npm put it")
    options = parser.parse_args()
    done = subprocess.run(
        ["node", "-e", PROGRAM],
        cwd=options.modules,
        check=True,
        capture_output=True,
        text=True,
    )
    keep(options.json, __file__, **json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
