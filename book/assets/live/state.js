// A state of the playground: in the address, behind "#", so that it can be sent as a link, and as
// JSON, which `r2a_utils.playground` opens.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const WORDS = { reasoning: ["with", "without"], act: ["none", "cut", "ablate"], from: ["answer", "thought"] };
  const PAIRS = ["heads", "patch"]; // lists of [number, number]

  // question, thought (null: the model's own), reasoning, cues ("yes" or "banned"), act, from, to
  // ("thought", "problem" or the number of a line of the thought), heads ([layer, head] each), beside
  // (the address of the state that is kept beside it, or null), patch ([[layer, position]] of the
  // token that gets its state from there, or []).
  live.startState = (question) => ({
    question, thought: null, reasoning: "with", cues: "yes", act: "none", from: "answer", to: "thought", heads: [],
    beside: null, patch: [],
  });

  live.stateToHash = (state) => {
    const start = live.startState(""), fields = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      if (PAIRS.includes(name)) {
        if (value.length) fields.set(name, value.map((pair) => pair.join(".")).join(" "));
      } else if (value !== start[name]) fields.set(name, value);
    }
    return "#" + fields;
  };

  // The state that an address holds; what it does not say, or says wrongly, is as at the start.
  live.stateOfHash = (hash, question) => {
    const state = live.startState(question), fields = new URLSearchParams(hash.slice(1));
    for (const [name, value] of fields) {
      if (PAIRS.includes(name)) {
        state[name] = value.split(" ").filter((pair) => /^\d+\.\d+$/.test(pair)).map((pair) => pair.split(".").map(Number));
      } else if (name === "to" ? /^(thought|problem|\d+)$/.test(value) : (WORDS[name]?.includes(value) ?? name in state)) {
        state[name] = value;
      }
    }
    return state;
  };

  // The state that is kept beside this one, or null.
  live.stateBeside = (state) => state.beside === null ? null : live.stateOfHash("#" + state.beside, state.question);

  // This state beside another, of which only what it does by itself is kept.
  live.keepBeside = (state, other) =>
    ({ ...state, beside: live.stateToHash({ ...other, beside: null, patch: [] }).slice(1), patch: [] });

  // For a file: the state with the texts that stand in the page, {thought, answer}, and those of the
  // state beside it.
  live.stateToJson = (state, texts, textsBeside) => {
    const other = live.stateBeside(state), written = (one, { thought, answer }) =>
      ({ ...one, thought: one.reasoning === "with" ? thought : null, answer });
    const beside = other && textsBeside ? written(other, textsBeside) : null;
    return JSON.stringify({ model: "r2a-tiny", ...written(state, texts), beside }, null, 1);
  };
})();
