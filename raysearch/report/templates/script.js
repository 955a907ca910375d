// Draws the figures, on light or on dark as the reader's system has it; on light when printed.
(() => {
  "use strict";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true, displaylogo: false, typesetMath: false };
  const looks = {
    light: { ink: "#1f2328", veil: "255,255,255" },
    dark: { ink: "#d1d7e0", veil: "23,26,31" },
  };
  const plots = [...document.querySelectorAll("[data-figure]")].map((div) => ({
    div,
    figure: JSON.parse(document.getElementById(div.dataset.figure).textContent),
  }));

  function draw(ground) {
    const look = looks[ground];
    for (const { div, figure } of plots) {
      for (const trace of figure.data) {
        const meta = trace.meta || {};
        if (meta.veil) trace.colorscale = [[0, `rgba(${look.veil},0)`], [1, `rgba(${look.veil},1)`]];
        if (meta.ink) trace.textfont = { ...trace.textfont, color: meta.ink[ground] };
      }
      figure.layout.font = { ...figure.layout.font, color: look.ink };
      Plotly.react(div, figure.data, { ...figure.layout }, config);
    }
    document.documentElement.dataset.drawn = ground;
  }

  const onScreen = () => draw(dark.matches ? "dark" : "light");
  dark.addEventListener("change", onScreen);
  addEventListener("beforeprint", () => draw("light"));
  addEventListener("afterprint", onScreen);
  onScreen();
})();
