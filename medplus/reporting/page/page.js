"use strict";
(() => {
  /* ---- Light and dark --------------------------------------------------------------------- */

  const root = document.documentElement;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);

  function startTheme() {
    const button = document.querySelector("#theme");
    const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("medplus-theme", root.dataset.theme);
      } catch (error) {
        // Not remembered then.
      }
      label();
    });
    systemIsDark.addEventListener("change", label);
  }

  /* ---- Contents and print ----------------------------------------------------------------- */

  function startContents() {
    const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const section of document.querySelectorAll("main > section")) watch.observe(section);
  }

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  startTheme();
  startContents();
  root.dataset.ready = "yes";
})();
