// A state of the playground in the address, behind "#", so that it can be sent as a link.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const WORDS = { reasoning: ["with", "without"], act: ["none", "cut", "ablate"], from: ["answer", "thought"] };

  // question, thought (null: the model's own), reasoning, cues ("yes" or "banned"), act, from, to
  // ("thought", "problem" or the number of a line of the thought), heads ([layer, head] each).
  live.startState = (question) => ({
    question, thought: null, reasoning: "with", cues: "yes", act: "none", from: "answer", to: "thought", heads: [],
  });

  live.stateToHash = (state) => {
    const start = live.startState(""), fields = new URLSearchParams();
    for (const [name, value] of Object.entries(state)) {
      if (name === "heads") {
        if (value.length) fields.set(name, value.map((head) => head.join(".")).join(" "));
      } else if (value !== start[name]) fields.set(name, value);
    }
    return "#" + fields;
  };

  // The state that an address holds; what it does not say, or says wrongly, is as at the start.
  live.stateOfHash = (hash, question) => {
    const state = live.startState(question), fields = new URLSearchParams(hash.slice(1));
    for (const [name, value] of fields) {
      if (name === "heads") {
        state.heads = value.split(" ").filter((head) => /^\d+\.\d+$/.test(head)).map((head) => head.split(".").map(Number));
      } else if (name === "to" ? /^(thought|problem|\d+)$/.test(value) : (WORDS[name]?.includes(value) ?? name in state)) {
        state[name] = value;
      }
    }
    return state;
  };
})();
