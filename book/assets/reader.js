/* The reader's view: a stage's page without its code, its parameters and the sections that are marked
   `r2a-notebook`; one button shows them, and a line below it names these sections. Without JavaScript
   everything is shown. The exercises, which are about code, keep theirs. A table that scrolls can be
   reached and scrolled by the keyboard. A dark page is printed as a light one. */
(function () {
  "use strict";
  const root = document.documentElement;
  const kept = "r2a-code";
  const folded = "section#parameters, section.r2a-notebook";
  const pace = 220; // words a minute

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

  // Paper is white, whatever the screen is.
  let theme;
  window.addEventListener("beforeprint", function () {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
  });
  window.addEventListener("afterprint", function () {
    root.dataset.theme = theme;
  });

  document.addEventListener("DOMContentLoaded", function () {
    const tables = new ResizeObserver(function (entries) {
      for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
        else target.removeAttribute("tabindex");
      }
    });
    for (const table of document.querySelectorAll(".bd-article table")) tables.observe(table);
  });

  // The first explorer of a page is two tabs away from its top.
  document.addEventListener("DOMContentLoaded", function () {
    const first = document.querySelector("#pst-skip-link");
    const view = [...document.querySelectorAll(".bd-article :is([data-r2a-view], [data-live])")].find((one) => one.offsetParent && !one.closest("section#exercises"));
    if (!first || !view) return;
    view.id ||= "r2a-explorer";
    view.tabIndex = -1;
    const link = document.createElement("a");
    link.href = "#" + view.id;
    link.className = "r2a-skip";
    link.textContent = "Skip to the explorer";
    link.addEventListener("click", function (event) {
      event.preventDefault(); // the address of the page, a playground's state for one, stays
      view.focus();
      view.scrollIntoView();
    });
    first.after(link);
  });

  document.addEventListener("DOMContentLoaded", function () {
    const heading = document.querySelector(".bd-article h1");
    if (!heading || !document.querySelector(".bd-article section#parameters")) return;
    const further = [...document.querySelectorAll(".bd-article section.r2a-notebook")];
    const told = document.createElement("p");
    told.className = "r2a-reading";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "r2a-code-switch btn btn-sm btn-outline-secondary";

    function set(shown) {
      root.classList.toggle("r2a-reader", !shown);
      button.textContent = shown ? "Reader's view" : "Notebook view, with code and parameters";
      tell(shown);
      button.setAttribute("aria-pressed", String(shown));
    }

    // How long it takes to read, and what the other view has besides.
    function tell(shown) {
      const parts = [...document.querySelectorAll(".bd-article :is(p, li)")].filter(function (part) {
        return part !== told && part.offsetParent && !part.parentElement.closest("p, li") &&
          !part.closest("table, .r2a-view, section#exercises");
      });
      const words = parts.reduce((sum, part) => sum + (part.innerText.match(/[A-Za-z][\w'’-]*/g) || []).length, 0);
      const minutes = Math.max(1, Math.round(words / pace));
      told.replaceChildren(`${minutes} minute${minutes > 1 ? "s" : ""} to read.`);
      if (shown || !further.length) return;
      told.append(" The notebook view goes further: ");
      further.forEach(function (section, i) {
        const link = document.createElement("a");
        link.href = "#" + section.id;
        link.textContent = section.querySelector("h2, h3").firstChild.textContent;
        told.append(link, i + 1 < further.length ? " · " : "");
      });
    }

    function follow() {
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target && target.closest(folded)) {
        set(true);
        target.scrollIntoView();
      }
    }

    button.addEventListener("click", function () {
      const shown = root.classList.contains("r2a-reader");
      remember(shown);
      set(shown);
    });
    for (const section of further) {
      document.querySelector(`.bd-sidebar-secondary li:has(> a[href="#${section.id}"])`)?.classList.add("r2a-notebook");
    }
    heading.after(button, told);
    set(remembered());
    window.addEventListener("hashchange", follow);
    follow();
  });
})();
