// The playground: any problem, any thought, cues banned, heads cut or ablated, one state kept beside
// another and patched into it. What comes of it is held against what the model writes by itself.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const { make } = live;
  const STRONGEST = 10;
  const WAIT = 250; // milliseconds without a key before a text that is typed counts

  const run = async (root, model) => {
    const { tokenizer, problems } = model;
    const heads = model.layers.flatMap((_, layer) => Array.from({ length: model.heads }, (_, head) => [layer, head]));
    let state = live.stateOfHash(location.hash, problems[0]), session = null, timer = null;

    // --- controls ---
    const select = (name, label, options) => make("select", { "aria-label": label, onchange: (event) => set({ [name]: event.target.value }) },
      ...options.map(([value, text]) => make("option", { value }, text)));
    const box = (rows, label, oninput) => make("textarea", { rows, "aria-label": label, spellcheck: "false", oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(oninput, WAIT);
    } });
    const drawn = make("select", { onchange: () => set({ ...live.startState(problems[drawn.selectedIndex]), beside: state.beside }) },
      ...problems.map((question) => make("option", {}, question)));
    const question = box(3, "problem", () => set({ question: question.value, thought: null }));
    const thought = box(9, "its thought", () => set({ thought: thought.value }));
    const reasoning = select("reasoning", "reasoning", [["with", "with reasoning"], ["without", "without reasoning"]]);
    const banned = make("input", { type: "checkbox", onchange: () => set({ cues: banned.checked ? "banned" : "yes", thought: null }) });
    const act = select("act", "what to do with the heads", [["none", "leave the heads alone"], ["cut", "cut the reading of the chosen heads"], ["ablate", "ablate the chosen heads"]]);
    const from = select("from", "where", [["answer", "in the answer"], ["thought", "from the thought on"]]);
    const to = select("to", "what they may not read", []);
    const boxes = heads.map((head) => make("input", { type: "checkbox", "aria-label": `L${head[0]}.H${head[1]}`,
      onchange: () => set({ heads: heads.filter((_, i) => boxes[i].checked) }) }));
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const onTo = make("label", {}, "of", to);
    const grid = make("table", { class: "r2a-heads" }, make("caption", {}, "Heads: a row for each layer"),
      ...model.layers.map((_, layer) => make("tr", {}, make("th", { scope: "row" }, `L${layer}`),
        ...boxes.slice(layer * model.heads, (layer + 1) * model.heads).map((input) => make("td", {}, input)))));
    root.append(
      make("div", { class: "r2a-controls" }, make("label", {}, "Draw a problem", drawn), reasoning),
      make("label", { class: "r2a-wide" }, "Problem, or write one of your own in its words", question),
      make("label", { class: "r2a-wide" }, "Its thought: change, delete, add lines", thought),
      make("div", { class: "r2a-controls" }, button("Think anew", () => set({ thought: null })),
        button("Go on from the cursor", () => goOn()), make("label", {}, banned, "ban the cues (Wait, Hmm, …)"),
        button("Undo all", () => set(live.startState(state.question)))),
      make("details", {}, make("summary", {}, "Heads: cut what they read, or ablate them"),
        make("div", { class: "r2a-controls" }, act, from, onTo),
        make("div", { class: "r2a-controls" }, button("all", () => set({ heads })), button("none", () => set({ heads: [] })),
          button(`the ${STRONGEST} that look at the thought most`, () => set({ heads: strongest() }))), grid));
    if (state.act !== "none") root.querySelector("details").open = true;
    const columnA = make("div"), columnB = make("div", {}, make("p", { class: "r2a-title" }, "B, as it stands")), below = make("section", { class: "r2a-below" });
    root.append(make("div", { class: "r2a-pair" }, columnA, columnB));
    const panel = live.newPanel(columnB, model, (index, id) => {
      const ids = session.pass.ids.slice(session.start, session.closed - 1);
      ids[index - session.start] = id;
      set({ thought: tokenizer.decode(ids) });
    });

    root.append(make("div", { class: "r2a-controls" },
      button("Keep this state beside", () => set(live.keepBeside(state, state))),
      button("Download as JSON", () => download())), below);
    const beside = live.newBeside(columnA, below, model, {
      onpatch: (cell) => set({ patch: cell ? [cell] : [] }),
      onleave: () => set({ beside: null, patch: [] }),
      onswap: () => set(live.keepBeside(live.stateBeside(state), state)),
    });

    const strongest = () => (panel.base?.heads ?? []).slice(0, STRONGEST).map(({ layer, head }) => [layer, head]);

    // What a state is, in words.
    const settings = (one) => [
      one.reasoning === "with" ? (one.thought === null ? "its own thought" : "a thought that was written for it") : "without reasoning",
      ...(one.cues === "banned" ? ["cues banned"] : []),
      ...(one.act === "none" || !one.heads.length ? [] : [`${one.heads.length} heads ${one.act === "cut" ? "cut" : "ablated"}`]),
    ].join(", ") + ".";

    // What stands in the page, as a file.
    const download = () => {
      const { donor } = beside, written = live.textsOf(model, session.written());
      const text = live.stateToJson(state, written, donor && live.textsOf(model, donor));
      const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "r2a-playground.json" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };

    // --- what happens ---
    const set = (changes) => {
      const before = state;
      state = { ...state, patch: [], ...changes }; // a patch is of the text that stood
      return move(before);
    };

    // From one state to another: a patch alone leaves the rest as it stands.
    const move = (before) => {
      const rest = (one) => live.stateToHash({ ...one, patch: [] });
      if (rest(state) === rest(before) && beside.donor) return patch();
      return update(state.question !== before.question);
    };

    const fill = () => {
      for (const [element, name] of [[question, "question"], [reasoning, "reasoning"], [act, "act"], [from, "from"]]) {
        if (element.value !== state[name]) element.value = state[name];
      }
      const at = problems.indexOf(state.question);
      drawn.selectedIndex = at;
      banned.checked = state.cues === "banned";
      boxes.forEach((input, i) => (input.checked = state.heads.some(([l, h]) => l === heads[i][0] && h === heads[i][1])));
      thought.disabled = state.reasoning === "without";
      onTo.hidden = state.act !== "cut";
      history.replaceState(null, "", live.stateToHash(state));
    };

    const update = async (other) => {
      fill();
      if (other || !session) {
        session = live.newSession(model, state.question);
        panel.open(session);
      }
      if (!panel.base) {
        if (!(await panel.rewrite([]))) return; // what the model writes by itself
        showThought();
        if (live.stateToHash({ ...state, beside: null }) === live.stateToHash(live.startState(state.question))) return compare();
      }
      if (!(await live.follow(state, session, panel.base, panel.rewrite))) return;
      showThought();
      await compare();
    };

    // The state that is kept beside this one, and what is patched from there.
    const compare = async () => {
      const other = live.stateBeside(state);
      if (!other) return beside.leave();
      const of = session;
      if (!(await beside.follow(other, settings(other))) || of !== session) return;
      beside.against(session.written(), session.pass);
      if (!state.patch.length) return;
      await patch();
      await beside.fillGrid();
    };

    const patch = async () => {
      fill();
      try {
        const { kept, change } = beside.patched(state.patch[0] ?? null);
        await panel.rewrite(kept, { forbidden: live.forbiddenBy(state, model), change });
      } catch (error) {
        beside.says(error.message);
      }
    };

    // The thought's text, and its lines as places to cut.
    const showThought = () => {
      const { ids } = session.pass, stop = (session.closed ?? ids.length + 1) - 1;
      const texts = live.linesOf(model, ids, session.start, stop).map(({ text }) => text), now = texts.join("\n");
      if (state.reasoning === "with" && thought.value.trimEnd() !== now) thought.value = now;
      to.replaceChildren(...[["thought", "the thought"], ["problem", "the problem"], ...texts.map((text, i) => [String(i + 1), `line ${i + 1}: ${text}`])]
        .map(([value, text]) => make("option", { value }, text)));
      to.value = Number(state.to) > texts.length ? "thought" : state.to;
    };

    // The thought up to the cursor stands; the model writes the rest of it.
    const goOn = async () => {
      const stands = thought.value.slice(0, thought.selectionStart);
      if (!(await panel.rewrite(tokenizer.encode(stands), { forbidden: live.forbiddenBy(state, model), change: live.unchanged }))) return;
      showThought();
      await set({ thought: thought.value });
    };

    window.addEventListener("hashchange", () => {
      const before = state;
      state = live.stateOfHash(location.hash, problems[0]);
      move(before);
    });
    await update(true);
  };

  live.wakeable("playground", "The controls come with the model. Nothing leaves this page.", run);
})();
