// Loads the engine and the model when a reader asks for them: scripts from the page's own folder,
// one after the other, so that a page opened from disk can do it too.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const folder = new URL(".", document.currentScript.src);
  const SCRIPTS = ["tokenizer", "interventions", "forward", "greedy", "model"];

  const script = (name) => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = new URL(`${name}.js`, folder).href;
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${name}.js did not load: is the folder "live" beside this page?`));
    document.head.append(element);
  });

  let loaded = null;

  // The model, loaded once for all that lives on the page.
  live.loadModel = () => (loaded ??= (async () => {
    for (const name of SCRIPTS) await script(name);
    const model = live.readModel(live.packed);
    delete live.packed; // its text is not needed any more
    return model;
  })());
})();
