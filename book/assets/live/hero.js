// The home page's problem: its thought can be changed, and the answer rewrites itself. The texts and
// the experiments stand in the page; this file makes them live.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const { make, shown } = live;
  const percent = (share) => (share > 0 && share < 0.01 ? "< 1" : Math.round(100 * share)) + " %";
  const DIGITS = [..."0123456789"];
  const ARCS = 3, LEAST = 0.1; // arcs of a token, and the least weight of one

  const mount = (root) => {
    const problems = [...root.querySelectorAll(".r2a-problem")].map((section) => {
      const text = (name) => section.querySelector(`[data-segment=${name}] > div`).textContent;
      return { title: section.dataset.title, question: text("prompt"), thought: text("reasoning") };
    });
    const experiments = JSON.parse(root.querySelector("script").textContent);
    const given = root.querySelector(".r2a-given"), status = make("output", { class: "r2a-status", "aria-live": "polite" });
    const ask = make("button", { type: "button", class: "r2a-ask", onclick: () => start() }, "Wake the model in this page (5 MB)");
    const asked = make("div", { class: "r2a-controls" }, ask);
    status.textContent = "Any digit and any name in the thought can be changed once the model is awake. Nothing leaves this page.";
    given.before(asked);
    root.append(status);

    const start = async () => {
      ask.disabled = true;
      status.textContent = "The model is being loaded …";
      try {
        const model = await live.loadModel();
        given.remove();
        asked.remove();
        status.remove();
        await run(root, model, problems, experiments);
      } catch (error) {
        ask.disabled = false;
        status.textContent = `The model could not be loaded: ${error.message}`;
      }
    };
    root.dataset.mounted = "";
  };

  const run = async (root, model, problems, experiments) => {
    const { tokenizer } = model;
    let problem, session, base, head, names = [], busy = false, opening = 0;

    // --- the panel ---
    const which = make("select", { onchange: () => begin(which.selectedIndex) }, ...problems.map((p) => make("option", {}, p.title)));
    const rest = make("select", {}, make("option", { value: "stays" }, "stays"), make("option", { value: "anew" }, "is written anew"));
    const again = make("button", { type: "button", onclick: () => begin(which.selectedIndex) }, "Undo all");
    const bars = make("div", { class: "r2a-bars" });
    const status = make("output", { class: "r2a-status", "aria-live": "polite" });
    const lab = make("div", { class: "r2a-lab" });
    root.append(make("div", { class: "r2a-controls" }, make("label", {}, "Problem", which),
      make("label", {}, "After a change the rest", rest), again));
    const text = live.newText(root, {
      choicesOf: (token) => (/^\d$/.test(token) ? DIGITS : names.includes(token) ? names : names.includes(" " + token) ? names : null),
      onedit: (index, token) => change(index, token),
      onpoint: (index) => reads(index),
    });
    root.append(bars, status, lab);

    // --- what is shown ---
    const segmentOf = (i) => {
      if (i < session.start) return i > 1 && i < session.start - 3 ? "prompt" : null;
      if (session.closed === null || i < session.closed - 1) return "reasoning";
      return i < opening ? null : "answer";
    };

    const show = () => {
      const { ids } = session.pass, texts = ids.map((id) => tokenizer.decode([id]));
      opening = session.closed ?? ids.length; // behind the blank line that the answer begins with
      while (texts[opening]?.trim() === "") opening++;
      const fresh = base ? live.newIn(base.ids, ids) : new Set();
      text.show(texts.map((piece, i) =>
        ({ text: piece, segment: segmentOf(i), marks: fresh.has(i) ? ["r2a-changed"] : [] })));
    };

    const bar = (name, before, after) => [
      make("span", {}, name),
      make("div", { class: "r2a-bar", role: "img", "aria-label": `${percent(before)} before, ${percent(after)} now` },
        make("i", { style: `width:${100 * after}%` }), make("u", { style: `left:${100 * before}%` })),
      make("span", {}, `${percent(before)} → ${percent(after)}`),
    ];

    const showBars = () => {
      const { box } = session.written();
      if (!box) return bars.replaceChildren(make("span", {}, "the answer has no box"));
      const now = live.probabilitiesAt(session.pass, box.position);
      const rows = [["the old answer, " + base.box.text, base.box.id]];
      if (box.id !== base.box.id) rows.push(["the new answer, " + box.text, box.id]);
      bars.replaceChildren(...rows.flatMap(([name, id]) => bar(name, base.likely[id], now[id])));
    };

    // What was read to write the token: by the strongest head, from the token before it.
    const reads = (index) => {
      if (index === null || busy || index <= session.start) {
        say(index);
        return [];
      }
      const row = live.attentionRow(session.pass, ...head, index - 1);
      const most = [...row.keys()].slice(1).sort((a, b) => row[b] - row[a]).slice(0, ARCS).filter((key) => row[key] >= LEAST);
      say(index, most.map((key) => [key, row[key]]), row[0]);
      return most.map((key) => [key, row[key]]);
    };

    const around = (index) => shown(tokenizer.decode(session.pass.ids.slice(Math.max(session.start, index - 2), index + 1)));
    const say = (index, most = [], first = 0) => {
      if (busy) return;
      if (index === null || index <= session.start) {
        status.textContent = `Point at a word to see what head L${head[0]}.H${head[1]} read to write it: of all heads it looks at the thought most while it answers. Click a digit or a name of the thought to change it.`;
        return;
      }
      const list = most.map(([key, weight]) => `${around(key)} ${percent(weight)}`).join(", ");
      status.textContent = `To write ${shown(tokenizer.decode([session.pass.ids[index]]))}, L${head[0]}.H${head[1]} read ${list || "nothing in particular"}${first >= LEAST ? `; the beginning of the text ${percent(first)}` : ""}.`;
    };

    // --- what happens ---
    const rewrite = async (thought) => {
      busy = true;
      const done = await session.rewrite(thought, show);
      if (!done) return false;
      busy = false;
      show();
      return true;
    };

    const begin = async (index) => {
      problem = problems[index];
      which.selectedIndex = index;
      names = [...new Set([...problem.question.matchAll(/the (\w+) is \w+ than the (\w+)/g)].flatMap((m) => [` ${m[1]}`, ` ${m[2]}`]))];
      session = live.newSession(model, problem.question);
      base = null;
      head = [0, 0];
      text.choose(null);
      lab.replaceChildren(...offers());
      if (!(await rewrite(tokenizer.encode(`${problem.thought}\n</think>`)))) return false;
      base = session.written();
      base.likely = live.probabilitiesAt(session.pass, base.box.position);
      head = session.strongestHead();
      show();
      showBars();
      return true;
    };

    const change = async (index, token) => {
      if (!base) return; // the problem's own text is still being read
      lab.replaceChildren(...offers());
      const ids = session.pass.ids.slice(session.start, session.closed ?? undefined);
      ids[index - session.start] = tokenizer.encode(token)[0];
      const kept = rest.value === "stays" ? ids : ids.slice(0, index - session.start + 1);
      if (await rewrite(kept)) showBars();
    };

    // --- experiments: a prediction first ---
    const offers = () => [make("b", {}, "Five things to try. Say first what will happen."),
      make("ol", {}, ...experiments.map((experiment) =>
        make("li", {}, make("button", { type: "button", onclick: () => predict(experiment) }, experiment.do))))];

    const predict = async (experiment) => {
      if (!(await begin(experiment.problem))) return;
      const guess = (changes, label) => make("button", { type: "button", onclick: () => tryOut(experiment, changes) }, label);
      lab.replaceChildren(make("p", {}, make("b", {}, experiment.do), ` The box says ${base.box.text}. Your prediction:`),
        make("div", { class: "r2a-controls" }, guess(false, "the box stays"), guess(true, "the box changes")));
      lab.querySelector("button").focus({ preventScroll: true });
    };

    const tryOut = async (experiment, predicted) => {
      rest.value = experiment.rest;
      const [old, put] = experiment.edit, at = problem.thought.indexOf(old);
      const end = experiment.rest === "stays" ? `${problem.thought.slice(at + old.length)}\n</think>` : "";
      if (!(await rewrite(tokenizer.encode(problem.thought.slice(0, at) + put + end)))) return;
      showBars();
      const { box } = session.written(), changed = box?.id !== base.box.id;
      const outcome = changed ? `The box went from ${base.box.text} to ${box ? box.text : "nothing"}` : `The box stayed at ${base.box.text}`;
      const back = make("button", { type: "button", onclick: () => begin(experiment.problem) }, "The other things to try");
      lab.replaceChildren(make("p", { role: "status" }, make("b", {}, `${outcome}, ${changed === predicted ? "as you said" : "and you said otherwise"}. `), experiment.lesson),
        make("div", { class: "r2a-controls" }, back));
      back.focus({ preventScroll: true });
    };

    await begin(0);
    text.stage.focus({ preventScroll: true });
  };

  for (const root of document.querySelectorAll(".r2a-live")) mount(root);
})();
