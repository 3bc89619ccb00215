// Loads the engine and the model when a reader asks for them: scripts from the page's own folder,
// one after the other, so that a page opened from disk can do it too.
(() => {
  "use strict";
  const live = (globalThis.r2aLive ??= {});
  const folder = new URL(".", document.currentScript.src);
  const SCRIPTS = ["kernel", "tokenizer", "interventions", "forward", "greedy", "grid", "model"];

  const script = (name) => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = new URL(`${name}.js`, folder).href;
    element.onload = resolve;
    element.onerror = () => reject(new Error(`${name}.js did not load: is the folder "live" beside this page?`));
    document.head.append(element);
  });

  let loaded = null;

  // The model, loaded once for all that lives on the page.
  const loadModel = () => (loaded ??= (async () => {
    for (const name of SCRIPTS) await script(name);
    const model = live.readModel(live.packed);
    delete live.packed; // its text is not needed any more
    return model;
  })().catch((error) => {
    loaded = null; // to be tried again
    throw error;
  }));

  // A button in every `.r2a-live` of this kind that wakes the model and gives both to `run`.
  live.wakeable = (kind, invitation, run) => {
    for (const root of document.querySelectorAll(`.r2a-live[data-live=${kind}]`)) {
      const status = document.createElement("output"), ask = document.createElement("button");
      ask.type = "button";
      ask.className = "r2a-ask";
      ask.textContent = "Wake the model in this page (5 MB)";
      status.className = "r2a-status";
      status.textContent = invitation;
      ask.addEventListener("click", async () => {
        ask.disabled = true;
        status.textContent = "The model is being loaded …";
        try {
          const model = await loadModel();
          ask.remove();
          status.remove();
          await run(root, model);
        } catch (error) {
          ask.disabled = false;
          status.textContent = `The model could not be loaded: ${error.message}`;
        }
      });
      root.querySelector(".r2a-title").after(ask);
      root.append(status);
    }
  };
})();
