/* The reader's view: a stage's page without its code and its parameters; one button shows them.
   Without JavaScript everything is shown. The exercises, which are about code, keep theirs. A table
   that scrolls can be reached and scrolled by the keyboard. */
(function () {
  "use strict";
  const root = document.documentElement;
  const kept = "r2a-code";

  function remembered() {
    try {
      return localStorage.getItem(kept) === "shown";
    } catch (refused) {
      return false; // a browser that keeps nothing for this page
    }
  }

  function remember(shown) {
    try {
      localStorage.setItem(kept, shown ? "shown" : "folded");
    } catch (refused) {
      /* the choice holds until the page is left */
    }
  }

  // Before the page is drawn, so that nothing jumps.
  root.classList.toggle("r2a-reader", !remembered());

  document.addEventListener("DOMContentLoaded", function () {
    const tables = new ResizeObserver(function (entries) {
      for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
        else target.removeAttribute("tabindex");
      }
    });
    for (const table of document.querySelectorAll(".bd-article table")) tables.observe(table);
  });

  document.addEventListener("DOMContentLoaded", function () {
    const heading = document.querySelector(".bd-article h1");
    if (!heading || !document.querySelector(".bd-article section#parameters")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "r2a-code-switch btn btn-sm btn-outline-secondary";

    function set(shown) {
      root.classList.toggle("r2a-reader", !shown);
      button.textContent = shown ? "Hide code and parameters" : "Show code and parameters";
      button.setAttribute("aria-pressed", String(shown));
    }

    function follow() {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target && target.closest("section#parameters")) {
        set(true);
        target.scrollIntoView();
      }
    }

    button.addEventListener("click", function () {
      const shown = root.classList.contains("r2a-reader");
      remember(shown);
      set(shown);
    });
    set(remembered());
    heading.after(button);
    window.addEventListener("hashchange", follow);
    follow();
  });
})();
