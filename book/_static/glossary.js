/* A term's definition beside its link, on hover and on keyboard focus. Escape closes it, the pointer may move onto it, and it
   stays until pointer and focus have left (WCAG 2.2, 1.4.13). Without this script, and in print, the link leads to the glossary. */
"use strict";
(() => {
    const LEAVE = 300;  // milliseconds in which the pointer reaches the box
    const MARGIN = 8;   // pixels to the window's edge
    const data = document.getElementById("glossary-definitions");
    if (!data) return;
    const said = JSON.parse(data.textContent);
    const box = document.createElement("div");
    let owner = null, leaving = 0, loading = null;

    box.id = "glossary-box";
    box.setAttribute("role", "tooltip");
    box.hidden = true;
    document.body.append(box);

    function place() {
        const lines = owner.getClientRects(), line = lines[lines.length - 1], width = document.documentElement.clientWidth;
        const above = line.bottom + box.offsetHeight > window.innerHeight && lines[0].top > box.offsetHeight;
        const left = Math.max(MARGIN, Math.min(line.left, width - box.offsetWidth - MARGIN));
        box.style.left = `${left + window.scrollX}px`;
        box.style.top = `${(above ? lines[0].top - box.offsetHeight : line.bottom) + window.scrollY}px`;
    }

    function hide() {
        clearTimeout(leaving);
        if (owner) owner.removeAttribute("aria-describedby");
        owner = null;
        box.hidden = true;
    }

    function mathjax() {  // where the page has no formula of its own, it comes with the first definition that has
        loading ??= window.MathJax ? Promise.resolve() : new Promise(resolve => {
            window.MathJax = {startup: {typeset: false}};
            const script = document.createElement("script");
            script.src = data.dataset.mathjax;
            script.onload = resolve;  // without it the definition is read with its formulas as TeX
            document.head.append(script);
        });
        return loading.then(() => window.MathJax.startup?.promise);  // else still loading: it sets the box with the page
    }

    async function show(link, definition) {
        clearTimeout(leaving);
        if (owner === link) return;
        hide();
        owner = link;
        box.innerHTML = definition;
        box.hidden = false;
        link.setAttribute("aria-describedby", box.id);
        place();
        if (box.querySelector(".math")) {
            await mathjax();
            if (owner !== link || !window.MathJax.typesetPromise) return;
            await window.MathJax.typesetPromise([box]);
            if (owner === link) place();
        }
    }

    function leave() {
        clearTimeout(leaving);
        leaving = setTimeout(() => { if (owner !== document.activeElement) hide(); }, LEAVE);
    }

    for (const link of document.querySelectorAll('a[href*="glossary.html#term-"]')) {
        const definition = said[decodeURIComponent(link.hash.slice(1))];
        if (!definition) continue;
        link.addEventListener("pointerenter", event => { if (event.pointerType !== "touch") show(link, definition); });
        link.addEventListener("pointerleave", leave);
        link.addEventListener("focus", () => { if (link.matches(":focus-visible")) show(link, definition); });
        link.addEventListener("blur", () => { if (owner === link && !box.matches(":hover")) hide(); });
    }
    box.addEventListener("pointerenter", () => clearTimeout(leaving));
    box.addEventListener("pointerleave", leave);
    document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
})();
