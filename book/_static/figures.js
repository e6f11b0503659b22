/* A figure that is wider than a phone scrolls in itself (book.css): where it does, the keyboard reaches it. */
"use strict";
(() => {
    const mark = () => document.querySelectorAll(".cell_output:has(> figure > img)").forEach(box => {
        if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
        else box.removeAttribute("tabindex");
    });
    window.addEventListener("load", mark);
    window.addEventListener("resize", mark);
})();
