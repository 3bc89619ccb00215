// Greedy decoding: a pass goes on with the likeliest token, one at a time.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});

  // The likeliest token behind `position` that is not forbidden.
  live.likeliest = (pass, position, forbidden = new Set()) => {
    const logits = live.logitsAt(pass, position);
    let best = -1;
    for (let id = 0; id < logits.length; id++) {
      if (!forbidden.has(id) && (best < 0 || logits[id] > logits[best])) best = id;
    }
    return best;
  };

  // Yields the tokens that the pass goes on with, read into it, up to the end token, which is not
  // read, or to `most` of them. `forbidden` is a set of ids.
  live.continueGreedily = function* (pass, { forbidden = new Set(), most = 400 } = {}) {
    for (let written = 0; written < most; written++) {
      const id = live.likeliest(pass, pass.ids.length - 1, forbidden);
      if (id === pass.model.end) return;
      live.extend(pass, [id]);
      yield id;
    }
  };
})();
