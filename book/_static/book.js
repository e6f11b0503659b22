// A formula that is wider than the screen scrolls in itself, and must then be reachable by keyboard as well. What the
// theme does for code and tables, it cannot do here: formulas have no size before MathJax has set them.
window.addEventListener("load", () => {
  const mark = () => {
    for (const formula of document.querySelectorAll("div.math")) {
      if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  };
  window.MathJax?.startup?.promise?.then(mark);
  window.addEventListener("resize", mark);
});
