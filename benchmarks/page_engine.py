"""How fast the model in the page writes, and how soon an edit shows, on one core under node.

    python benchmarks/page_engine.py

Prints new tokens a second while a thought and its answer are written, the milliseconds from an edit
to the first token that may change (the rest of the thought is read again and one token is written),
and the floor: the multiply-adds that no exact way avoids, at the speed of the kernel over numbers
that lie in the processor's cache. Times are the processor's, so that other work on the machine
counts little. Asserts nothing. Needs node on the PATH.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from r2a_utils.runs.stage import ROOT
from r2a_utils.tiny import world
from r2a_utils.tiny.page_weights import write_page_weights

MODULES = ("kernel", "tokenizer", "interventions", "forward", "greedy")
PROBLEMS = 12

TIMES = """
const live = globalThis.r2aLive;
const milliseconds = (work) => {
  const start = process.cpuUsage().user;
  const result = work();
  return [(process.cpuUsage().user - start) / 1000, result];
};
const [load, model] = milliseconds(() => live.readModel(live.packed));
const questions = JSON.parse(require("fs").readFileSync(0));
const writing = questions.map((question) => {
  const pass = live.extend(live.newPass(model), model.tokenizer.prompt(question));
  return milliseconds(() => [pass, [...live.continueGreedily(pass)].length]);
});
// the digit of an edit, its thought's end: early edits leave most to read again
const closed = model.tokenizer.encode("</think>")[0], [five] = model.tokenizer.encode("5");
const latencies = writing.map(([, [pass, written]], i) => {
  const start = pass.ids.length - written, stop = pass.ids.indexOf(closed) + 1;
  const at = start + Math.floor(((stop - start - 1) * i) / writing.length);
  const ids = pass.ids.slice(0, stop);
  ids[at] = five;
  const first = () => live.likeliest(live.editTokens(pass, ids), ids.length - 1);
  return [stop - at, milliseconds(first)[0]];
});
const weights = model.layers.reduce((sum, { qkv, out, gateUp, down }) =>
  sum + qkv.length + out.length + gateUp.length + down.length, model.unembed.length);
const { floats, linear } = model.kernel, small = floats(64 * 192), x = floats(192), y = floats(64);
const often = (turns) => { while (turns--) linear(small, 64, 192, x, 1, y); };
often(2000);
console.log(JSON.stringify({
  load,
  tokens: writing.reduce((sum, [, [, n]]) => sum + n, 0),
  seconds: writing.reduce((sum, [time]) => sum + time, 0) / 1000,
  length: writing.reduce((sum, [, [pass]]) => sum + pass.ids.length, 0) / writing.length,
  latencies,
  weights,
  attended: 2 * model.layers.length * model.hidden,
  rate: (50000 * small.length) / milliseconds(() => often(50000))[0] / 1e6,
}));
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_page_weights(Path(folder) / "model.js")
        size = (Path(folder) / "model.js").stat().st_size
        scripts = [ROOT / "book" / "assets" / "live" / f"{name}.js" for name in MODULES]
        loaded = [f"require({json.dumps(str(p))});" for p in [*scripts, f"{folder}/model.js"]]
        problems = [problem.question for problem in world.held_out_problems(PROBLEMS)]
        done = subprocess.run(
            ["node", "-e", "".join(loaded) + TIMES],
            input=json.dumps(problems),
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    operations = found["weights"] + found["attended"] * found["length"] / 2
    speed = found["tokens"] / found["seconds"]
    print(f"{size / 1e6:.2f} MB, unpacked in {found['load']:.0f} ms")
    print(f"{speed:.0f} tokens/s over {found['tokens']} tokens")
    print(
        f"{operations / 1e6:.2f} million multiply-adds a token, {speed * operations / 1e9:.2f} of "
        f"the kernel's {found['rate']:.2f} thousand million a second: floor "
        f"{found['rate'] * 1e9 / operations:.0f} tokens/s"
    )
    for read, time in sorted(found["latencies"]):
        print(f"edit {read:4d} tokens before the thought's end: {time:4.0f} ms")


if __name__ == "__main__":
    main()
