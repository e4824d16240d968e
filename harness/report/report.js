/* SPDX-License-Identifier: MIT */
"use strict";
(() => {
  const form = document.querySelector(".filter");
  if (!form) return;
  const cases = [...document.querySelectorAll(".case")];
  const holders = [...document.querySelectorAll(".family, .group, #red, #rest")];
  const names = ["status", "category", "arch", "size"];
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const [words, shown] = [form.elements.q, form.querySelector("output")];
  const openedHere = new Set();
  const texts = new Map();

  // What is looked through: all of a case, and the claim that it shares with its other sizes.
  function text(one) {
    if (!texts.has(one)) {
      const claim = one.closest(".family")?.querySelector(".claim")?.textContent ?? "";
      texts.set(one, `${claim} ${one.textContent}`.toLowerCase());
    }
    return texts.get(one);
  }

  function state() {
    const chosen = new URLSearchParams();
    const asked = words.value.trim();
    if (asked) chosen.set("q", asked);
    for (const name of names) {
      const values = boxes.filter((box) => box.name === name && box.checked).map((box) => box.value);
      if (values.length) chosen.set(name, values.join(","));
    }
    return chosen;
  }

  function apply() {
    const chosen = state();
    const asked = (chosen.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = names.filter((name) => chosen.has(name)).map((name) => [name, chosen.get(name).split(",")]);
    let count = 0;
    for (const one of cases) {
      const fits = wanted.every(([name, values]) => values.includes(one.dataset[name]))
        && asked.every((word) => text(one).includes(word));
      one.hidden = !fits;
      count += fits;
    }
    const filtered = asked.length + wanted.length > 0;
    for (const holder of holders) {
      const some = holder.querySelector(".case:not([hidden])") !== null;
      holder.hidden = !some;
      if (holder.matches(".group") && filtered && some && !holder.open) {
        holder.open = true;
        openedHere.add(holder);
      }
    }
    if (!filtered) {
      for (const holder of openedHere) holder.open = false;
      openedHere.clear();
    }
    shown.textContent = filtered ? `${count} of ${cases.length} cases` : `${cases.length} cases`;
    form.querySelector("button").disabled = !filtered;
    return filtered;
  }

  function remember() {
    apply();
    const chosen = state().toString();
    history.replaceState(null, "", chosen ? `#${chosen}` : location.pathname + location.search);
  }

  function reveal(target) {
    if (target.closest("[hidden]")) {
      form.reset();
      apply();
    }
    for (let at = target; at; at = at.parentElement) {
      if (at.matches("details")) {
        at.open = true;
        openedHere.delete(at);
      }
    }
    target.scrollIntoView();
  }

  function follow() {
    const fragment = location.hash.slice(1);
    const target = fragment && document.getElementById(decodeURIComponent(fragment));
    if (target) {
      apply();
      reveal(target);
      return;
    }
    const chosen = new URLSearchParams(fragment);
    words.value = chosen.get("q") ?? "";
    for (const box of boxes) box.checked = (chosen.get(box.name) ?? "").split(",").includes(box.value);
    if (apply() && fragment) {
      form.querySelector("details").open = boxes.some((box) => box.checked);
      form.scrollIntoView();
    }
  }

  form.hidden = false;
  form.addEventListener("input", remember);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(remember));
  addEventListener("hashchange", follow);
  // A link to where one is already makes no new fragment, and yet should lead there.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) follow();
  });
  for (const text of document.querySelectorAll(".console pre")) {
    const first = text.querySelector("mark");
    if (first) text.scrollTop = first.offsetTop - text.offsetTop - 40;
  }
  follow();
})();
