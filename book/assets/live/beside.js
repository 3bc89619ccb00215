// A state that is kept beside the one that stands (A beside B): its text, and the grid of what the
// state of each of its tokens brings over when it is put into B. It knows no controls.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const { make } = live;
  const SLICE = 12; // milliseconds of work before the page may draw

  const pause = () => new Promise((resolve) => setTimeout(resolve));

  // Put into `column` (the text) and `below` (the grid). `onpatch([layer, position] or null)`: a cell
  // was chosen; `onleave()`: nothing shall be kept any more; `onswap()`: A and B change places.
  live.newBeside = (column, below, model, { onpatch, onleave, onswap }) => {
    const { tokenizer } = model;
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const status = make("output", { class: "r2a-status r2a-brief", "aria-live": "polite" });
    const fill = button("Fill the grid", () => fillGrid());
    const off = button("Take the patch back", () => onpatch(null));
    const place = make("div", { class: "r2a-grid" });
    let kept = null, donor = null, receiver = null, current = 0, own = 0;

    // A, computed anew where it has changed: {ids, start, closed, pass, lines}. Resolves to null
    // where a newer call took over.
    const follow = async (state, settings) => {
      const mine = ++own, address = live.stateToHash(state);
      if (kept !== address) {
        const session = live.newSession(model, state.question);
        await session.rewrite([]);
        await live.follow(state, session, session.written(), (thought, options) => session.rewrite(thought, undefined, options));
        if (mine !== own) return null;
        kept = address;
        donor = { ...session.written(), pass: session.pass };
      }
      column.replaceChildren(make("p", { class: "r2a-title" }, "A, kept beside"), make("p", { class: "r2a-help" }, settings),
        ...["prompt", "reasoning", "answer"].map((name) => make("section", { class: "r2a-segment", "data-segment": name,
          style: `border-color:var(--c-${name})` }, make("b", {}, { prompt: "problem", reasoning: "its thought", answer: "its answer" }[name]),
        make("div", {}, name === "prompt" ? state.question : live.textsOf(model, donor)[{ reasoning: "thought", answer: "answer" }[name]]))),
        make("div", { class: "r2a-controls" }, button("Swap A and B", onswap), button("Let A go", onleave)));
      return donor;
    };

    // B, as it stands without a patch. Its grid begins empty.
    const against = (written, pass) => {
      current++;
      receiver = { ...written, pass: live.copyOf(pass) };
      place.replaceChildren();
      status.textContent = "";
      below.replaceChildren(make("p", { class: "r2a-title" }, "From A into B, one token at a time"),
        make("p", { class: "r2a-help" }, "A cell takes what A's token is worth before a layer and puts it into B: how much of A's answer comes over? Click a cell to see B's answer written with that one state."),
        make("div", { class: "r2a-controls" }, fill, off), status, place);
      fill.disabled = false;
      off.hidden = true;
    };

    // A grid is of the model as it is, which is what the package's `patch_grid` computes.
    const refuse = () => {
      if ([donor, receiver].some(({ pass }) => pass.change.cuts.length || pass.change.ablations.length)) {
        throw new Error("A grid is of the model as it is: put back the heads that A or B cuts or ablates.");
      }
    };

    // The change that puts one state of A into B, and the part of B's text that stands before the
    // answers part; for null, B without it. Throws where there is nothing to contrast.
    const patched = (cell) => {
      off.hidden = cell === null;
      if (cell === null) return { kept: receiver.ids.slice(receiver.start, receiver.closed ?? undefined), change: receiver.pass.change };
      refuse();
      const [layer, position] = cell, pair = live.pairOf(donor, receiver, model.end);
      const found = live.alignedFrom(pair, donor, receiver).find(([at]) => at === position);
      if (!found || layer >= model.layers.length) throw new Error("That token of B stands nowhere in A.");
      return {
        kept: receiver.ids.slice(receiver.start, pair.stop),
        change: live.changes(receiver.pass.change, live.patchState(donor.pass, layer, position, found[1])),
      };
    };

    // Computes the grid, what decides it first, and shows each cell once it is there.
    const fillGrid = async () => {
      const mine = ++current;
      fill.disabled = true;
      try {
        refuse();
        const pair = live.pairOf(donor, receiver, model.end), places = live.alignedFrom(pair, donor, receiver);
        const layers = model.layers.map((_, layer) => layer), text = (id) => tokenizer.decode([id]);
        const empty = () => layers.map(() => places.map(() => null));
        const data = {
          effect: empty(), probability: empty(), flip: empty(), before: [0, 0], layers, direction: "denoising",
          answers: [pair.theirs, pair.ours].map((id) => (id === model.end ? "the end" : text(id).trim())),
          clean: places.map(([, from]) => text(donor.ids[from])),
          corrupted: places.map(([at]) => text(receiver.ids[at])),
          positions: places.map(([at]) => at),
          onchoose: (row, column) => onpatch([layers[row], places[column][0]]),
        };
        const all = live.probabilitiesAt(receiver.pass, pair.stop - 1);
        data.before = [all[pair.theirs], all[pair.ours]];
        place.replaceChildren();
        const view = globalThis.r2aViews.patch(place, data);
        const columns = [...places.keys()], differs = (c) => data.clean[c] !== data.corrupted[c];
        columns.sort((a, b) => differs(b) - differs(a) || b - a);
        const cells = columns.flatMap((column) => layers.map((row) => [row, column]));
        const grid = live.patchGrid(donor.pass, receiver.pass, pair, cells.map(([row, column]) => [row, ...places[column]]));
        let slice = performance.now();
        for (const [i, [row, column]] of cells.entries()) {
          const { effect, probability, flip } = grid.next().value;
          [data.effect[row][column], data.probability[row][column], data.flip[row][column]] = [effect, probability, flip];
          if (performance.now() - slice < SLICE && i + 1 < cells.length) continue;
          status.textContent = i + 1 < cells.length ? `${i + 1} of ${cells.length} cells are computed …` : `All ${cells.length} cells are computed.`;
          view.refresh();
          await pause();
          if (mine !== current) return;
          slice = performance.now();
        }
        if (off.hidden) view.best();
      } catch (error) {
        status.textContent = error.message;
        fill.disabled = false;
      }
    };

    const leave = () => {
      current++;
      own++;
      kept = donor = receiver = null;
      column.replaceChildren();
      below.replaceChildren();
    };

    return { follow, against, patched, fillGrid, leave, says: (text) => (status.textContent = text), get donor() { return donor; } };
  };

  // {thought, answer} of what was written, as plain text.
  live.textsOf = ({ tokenizer }, { ids, start, closed }) => ({
    thought: tokenizer.decode(ids.slice(start, (closed ?? ids.length + 1) - 1)).trim(),
    answer: closed === null ? "" : tokenizer.decode(ids.slice(closed)).trim(),
  });
})();
