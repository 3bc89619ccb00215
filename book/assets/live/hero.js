// The home page's problem: its thought can be changed, and the answer rewrites itself. The texts and
// the experiments stand in the page; this file makes them live.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const { make } = live;

  const run = async (root, model) => {
    const { tokenizer } = model, experiments = JSON.parse(root.querySelector("script").textContent);
    const problems = [...root.querySelectorAll(".r2a-problem")].map((section) => {
      const text = (name) => section.querySelector(`[data-segment=${name}] > div`).textContent;
      return { title: section.dataset.title, question: text("prompt"), thought: text("reasoning") };
    });
    root.querySelector(".r2a-given").remove();
    let session;

    const which = make("select", { onchange: () => begin(which.selectedIndex) }, ...problems.map((p) => make("option", {}, p.title)));
    const rest = make("select", {}, make("option", { value: "stays" }, "stays"), make("option", { value: "anew" }, "is written anew"));
    const again = make("button", { type: "button", onclick: () => begin(which.selectedIndex) }, "Undo all");
    root.append(make("div", { class: "r2a-controls" }, make("label", {}, "Problem", which),
      make("label", {}, "After a change the rest", rest), again));
    const panel = live.newPanel(root, model, (index, id) => change(index, id));
    const lab = make("div", { class: "r2a-lab" });
    root.append(lab);

    const begin = (index) => {
      which.selectedIndex = index;
      session = live.newSession(model, problems[index].question);
      panel.open(session);
      lab.replaceChildren(...offers());
      return panel.rewrite(tokenizer.encode(`${problems[index].thought}\n</think>`));
    };

    const change = (index, id) => {
      lab.replaceChildren(...offers());
      const ids = session.pass.ids.slice(session.start, session.closed ?? undefined), at = index - session.start;
      ids[at] = id;
      return panel.rewrite(rest.value === "stays" ? ids : ids.slice(0, at + 1));
    };

    // --- experiments: a prediction first ---
    const offers = () => [make("b", {}, "Five things to try. Say first what will happen."),
      make("ol", {}, ...experiments.map((experiment) =>
        make("li", {}, make("button", { type: "button", onclick: () => predict(experiment) }, experiment.do))))];

    const predict = async (experiment) => {
      if (!(await begin(experiment.problem))) return;
      const guess = (changes, label) => make("button", { type: "button", onclick: () => tryOut(experiment, changes) }, label);
      lab.replaceChildren(make("p", {}, make("b", {}, experiment.do), ` The box says ${panel.base.box.text}. Your prediction:`),
        make("div", { class: "r2a-controls" }, guess(false, "the box stays"), guess(true, "the box changes")));
      lab.querySelector("button").focus({ preventScroll: true });
    };

    const tryOut = async (experiment, predicted) => {
      rest.value = experiment.rest;
      const { thought } = problems[experiment.problem], [old, put] = experiment.edit, at = thought.indexOf(old);
      const end = experiment.rest === "stays" ? `${thought.slice(at + old.length)}\n</think>` : "";
      if (!(await panel.rewrite(tokenizer.encode(thought.slice(0, at) + put + end)))) return;
      const before = panel.base.box, { box } = session.written(), changed = box?.id !== before.id;
      const outcome = changed ? `The box went from ${before.text} to ${box ? box.text : "nothing"}` : `The box stayed at ${before.text}`;
      const back = make("button", { type: "button", onclick: () => begin(experiment.problem) }, "The other things to try");
      lab.replaceChildren(make("p", { role: "status" }, make("b", {}, `${outcome}, ${changed === predicted ? "as you said" : "and you said otherwise"}. `), experiment.lesson),
        make("div", { class: "r2a-controls" }, back));
      back.focus({ preventScroll: true });
    };

    await begin(0);
    panel.stage.focus({ preventScroll: true });
  };

  live.wakeable("hero", "Any digit and any name in the thought can be changed once the model is awake. Nothing leaves this page.", run);
})();
