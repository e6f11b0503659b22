/* What is wider than its box scrolls in itself (book.css): the class more-right says that there is more to the right, and
   the keyboard reaches a figure on a phone, as the theme lets it reach the rest. */
"use strict";
(() => {
    const BOXES = ".cell_output > .output, .pst-scrollable-table-container, .highlight pre, div.math mjx-container, "
        + ".cell_output:has(> figure > img), .opening-figure, .explorer-table";
    const mark = box => {
        const whole = !box.querySelector(":scope > figure, :scope > img");  // of a figure only the picture fades
        box.classList.toggle("more-right", box.scrollWidth - box.clientWidth - box.scrollLeft > 4);
        box.style.setProperty("--seen", `${box.clientWidth + (whole ? 0 : box.scrollLeft)}px`);
    };
    const all = () => {
        document.querySelectorAll(BOXES).forEach(mark);
        document.querySelectorAll(".cell_output:has(> figure > img)").forEach(box => {
            if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
            else box.removeAttribute("tabindex");
        });
    };
    window.addEventListener("load", () => { all(); window.MathJax?.startup?.promise?.then(all); });
    window.addEventListener("resize", all);
    document.addEventListener("toggle", all, true);  // of folded code
    document.addEventListener("scroll", event => event.target.matches?.(BOXES) && mark(event.target),
        {capture: true, passive: true});
})();
