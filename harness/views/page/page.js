"use strict";
// Text is put in as text, never as markup: whatever is in the data may be anybody's.
(() => {
  let data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  function make(name, attributes, ...children) {
    const made = name === "svg" || make.inside ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) if (value !== undefined && value !== "") made.setAttribute(key, value);
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  }

  function code(text, lexer, tone, label) {
    const pre = make("pre", { class: lexer === "diff" ? "diff" : tone || (lexer ? "" : "prose"), tabindex: "0", "aria-label": label });
    if (lexer !== "diff") {
      pre.append(text);
      return pre;
    }
    const marks = { "+": "added", "-": "removed", "@": "hunk" };
    for (const line of text.replace(/\n$/, "").split("\n")) {
      if (/^(index |diff --git )/.test(line)) continue;
      const meta = /^(diff |index |--- |\+\+\+ )/.test(line);
      pre.append(make("span", { class: meta ? "meta" : marks[line[0]] || "same" }, line || " "), "\n");
    }
    return pre;
  }

  // ---- what unfolds

  function item([heading, tone, parts]) {
    const box = make("div", { class: "item" }, make("h4", { class: tone }, heading));
    for (const [text, own, lexer] of parts) {
      if (!text) continue;
      const short = !lexer && !text.includes("\n") && text.length < 200;
      box.append(short ? make("p", { class: own }, text) : code(text, lexer, own, heading));
    }
    return box;
  }

  // Items of one turn stand together; before the first is the plan, after the last what became of the attempt.
  function turns(number) {
    const found = [];
    let name = "plan";
    for (const [kind, turn, heading, tone, parts] of data.attempts[number] || []) {
      if (typeof turn === "number") name = `turn ${turn}`;
      else if (!["attempt-started", "planned", "infrastructure-failed"].includes(kind)) name = "end";
      if (!found.length || found.at(-1).name !== name) found.push({ name, about: [], cost: "", items: [] });
      const last = found.at(-1);
      const [first, where] = heading.split("  ");
      if (kind === "turn-ended") last.cost = heading.replace(/^turn \d+: /, "");
      else last.items.push([heading, tone, parts]);
      if (kind === "tests-ran") last.about.push([`tests: ${parts.length ? parts[0][0] : "none ran"}`, tone]);
      else if (kind !== "turn-ended" && kind !== "decided") last.about.push([where && kind === "tool-ran" && !/^[\d.]+ s$/.test(where) ? `${first} ${where}` : first, tone === "bad" ? tone : ""]);
    }
    return found;
  }

  function attempt(number) {
    const list = make("ol", { class: "turns" });
    if (data.whole) list.append(make("li", {}, make("a", { href: data.whole.replace("{}", number) }, "All of this attempt on a page of its own")));
    const all = turns(number);
    all.forEach(({ name, about, cost, items }, place) => {
      const id = `attempt-${number}-${name.replace(" ", "-")}`;
      const told = about.map(([words, tone], at) => [at ? " · " : " ", make("span", { class: tone }, words)]);
      const summary = [make("b", {}, name), told, " ", make("span", { class: "dim" }, cost)];
      const link = make("a", { href: `#${id}`, class: "anchor", "aria-label": `link to ${name} of attempt ${number}` }, "#");
      list.append(make("li", {}, items.some((each) => each[2].length)
        ? make("details", { id, "data-turn": `${number}/${place}` }, make("summary", {}, summary))
        : make("p", { id, class: "bare", tabindex: "-1" }, summary), link));
    });
    if (!all.length) list.append(make("li", {}, "Nothing yet."));
    return list;
  }

  function fill(details) {
    if (details.dataset.filled) return;
    const { attempt: number, turn, patch } = details.dataset;
    if (number !== undefined) details.append(attempt(number));
    else if (turn !== undefined) {
      const [of, place] = turn.split("/");
      details.append(...turns(of)[place].items.map(item));
    } else if (patch !== undefined) details.append(code(data.patches[patch] || "", "diff", "", `patch of ${patch}`));
    else return;
    details.dataset.filled = "yes";
  }

  // Opens what an address names, whatever it is folded into: #attempt-2-turn-7.
  function reach(id) {
    const parent = /^attempt-\d+/.exec(id);
    if (parent && $(parent[0])) unfold($(parent[0]));
    const target = $(id);
    if (!target) return;
    if (target.tagName === "DETAILS") unfold(target);
    if (target.hidden) target.hidden = false;
    target.scrollIntoView({ block: "start" });
    (target.querySelector("summary") || target).focus({ preventScroll: true });
  }
  function unfold(details) {
    fill(details);
    details.open = true;
  }

  function show(button) {
    const { test, on, outcome } = button.dataset;
    const [said, text] = [(data.said[on] || {})[test], data.texts[test]];
    $("said-title").textContent = `${test} on ${on}: ${outcome}`;
    const none = outcome === "passed" ? "It passes, and says nothing." : "What it said is not kept.";
    $("said-body").replaceChildren(
      typeof said === "string" && said ? code(said, "", "", "what the test said") : make("p", {}, none),
      ...(typeof text === "string" ? [make("h3", {}, "The test"), code(text, "python", "", "the test")] : []));
    $("said").showModal();
  }

  // ---- filters: rows that have the text, the kind

  function filter(form) {
    const text = form.elements.text.value.toLowerCase(), kind = form.elements.kind.value;
    const rows = [...$(form.dataset.filter).children];
    let shown = 0;
    for (const row of rows) {
      const words = row.tagName === "DETAILS" ? row.querySelector("summary").textContent : row.textContent;
      row.hidden = !(words.toLowerCase().includes(text) && (!kind || row.dataset.kind === kind));
      shown += !row.hidden;
    }
    form.querySelector("output").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  }

  // ---- charts

  const WIDE = 640, HIGH = 320, LEFT = 52, RIGHT = 16, TOP = 16, BOTTOM = 44;
  function svg(name, attributes, ...children) {
    make.inside = true;
    const made = make(name, attributes, ...children);
    make.inside = false;
    return made;
  }
  function ticks(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const step of [1, 2, 5]) {
        const x = step * 10 ** power;
        if (x >= low * 0.999 && x <= high * 1.001) found.push(x);
      }
    return found.length > 8 ? found.filter((x) => /^1/.test(String(x / 10 ** Math.floor(Math.log10(x))))) : found;
  }

  // lines: { label, colour, dash, step, points: [[x, y, low, high]…] }, x on a logarithmic axis, y a share.
  function chart(lines, label, money) {
    const xs = lines.flatMap((line) => line.points.map(([x]) => x));
    if (!xs.length) return null;
    let low = Math.min(...xs), high = Math.max(...xs);
    if (low === high) (low /= 1.5), (high *= 1.5);
    const x = (value) => LEFT + ((Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (WIDE - LEFT - RIGHT);
    const y = (value) => HIGH - BOTTOM - value * (HIGH - TOP - BOTTOM);
    const n = (value) => value.toFixed(1);
    const parts = [];
    for (const share of [0, 0.25, 0.5, 0.75, 1])
      parts.push(svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: n(y(share)), y2: n(y(share)) }),
        svg("text", { x: LEFT - 8, y: n(y(share) + 4), "text-anchor": "end" }, `${100 * share} %`));
    const whole = [...new Set(xs)];
    for (const at of !money && whole.length <= 8 ? whole : ticks(low, high))
      parts.push(svg("line", { class: "grid", x1: n(x(at)), x2: n(x(at)), y1: TOP, y2: HIGH - BOTTOM }),
        svg("text", { x: n(x(at)), y: HIGH - BOTTOM + 18, "text-anchor": "middle" }, `${money ? "$" : ""}${Number(at.toPrecision(3))}`));
    parts.push(svg("text", { x: n((LEFT + WIDE - RIGHT) / 2), y: HIGH - 6, "text-anchor": "middle" }, label));
    for (const line of lines) {
      const points = line.points;
      const path = points.map(([px, py], i) => (i === 0 ? `M${n(x(px))} ${n(y(py))}` : line.step ? `H${n(x(px))}V${n(y(py))}` : `L${n(x(px))} ${n(y(py))}`)).join("");
      if (points.some(([, , a]) => a !== undefined) && points.length > 1)
        parts.push(svg("path", { class: `band c${line.colour}`, d: `M${[...points.map((p) => `${n(x(p[0]))} ${n(y(p[3]))}`), ...points.map((p) => `${n(x(p[0]))} ${n(y(p[2]))}`).reverse()].join("L")}Z` }));
      parts.push(svg("path", { class: `line c${line.colour} ${line.dash}`, d: path }));
      for (const [px, py, a, b] of points)
        parts.push(svg("circle", { class: `dot c${line.colour}`, cx: n(x(px)), cy: n(y(py)), r: 3 },
          svg("title", {}, `${line.label}: ${(100 * py).toFixed(1)} %${a === undefined ? "" : ` [${(100 * a).toFixed(1)}, ${(100 * b).toFixed(1)}]`} at ${money ? "$" : ""}${Number(px.toPrecision(3))}`)));
    }
    const legend = make("ul", { class: "legend" }, lines.map((line) => make("li", {}, svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("path", { class: `line c${line.colour} ${line.dash}`, d: "M0 5H28" })), ` ${line.label}`)));
    return make("figure", {}, svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${label}: ${lines.map((line) => line.label).join(", ")}` }, parts), make("figcaption", {}, legend));
  }

  function charts() {
    const study = data.study;
    if (!study || !$("charts")) return;
    const models = [...new Set(study.curves.map((curve) => curve.model))];
    const dashes = { coverage: "", selected: "dashed", majority: "dotted" };
    const lines = (money) => study.curves
      .map((curve) => ({
        label: `${curve.model}: ${curve.measure}`,
        colour: models.indexOf(curve.model) % 6,
        dash: dashes[curve.measure] || "",
        points: curve.points
          .filter((point) => !money || (point.usd && point.usd.value > 0))
          .map((point) => [money ? point.usd.value : point.k, point.solved.value, ...(curve.measure === "coverage" ? [point.solved.low, point.solved.high] : [])]),
      }))
      .filter((line) => line.points.length);
    const frontier = study.frontier.map((best) => [best.budget, best.purchase.solved.value, best.purchase.solved.low, best.purchase.solved.high]);
    $("charts").replaceChildren(...[
      chart(lines(false), "samples of each task (k)", false),
      chart(lines(true), "USD for each task", true),
      frontier.length > 1 ? chart([{ label: `the most ${study.frontier_measure} for a budget`, colour: 0, dash: "", step: true, points: frontier }], "USD for each task, the cost frontier", true) : null,
    ].filter(Boolean));
  }

  // ---- news: the page is asked for again, and what was unfolded stays so

  async function follow(tag) {
    await new Promise((done) => setTimeout(done, 2000));
    try {
      const answer = await fetch(location.pathname + location.search, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      delete document.body.dataset.lost;
      if (answer.status === 200) {
        renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
        tag = answer.headers.get("ETag");
      }
    } catch (error) {
      document.body.dataset.lost = "yes"; // the server has gone; what is here stays
    }
    follow(tag);
  }
  function renew(page) {
    const open = [...document.querySelectorAll("details")].filter((each) => each.id).map((each) => [each.id, each.open]);
    const values = [...document.querySelectorAll("main input, main select")].map((each) => [each.id, each.value]);
    const focused = document.activeElement && (document.activeElement.id || (document.activeElement.closest("details") || {}).id);
    const at = scrollY;
    data = JSON.parse(page.getElementById("data").textContent);
    for (const name of ["header", "main"])
      if (page.querySelector(name) && document.querySelector(name)) document.querySelector(name).replaceWith(document.adoptNode(page.querySelector(name)));
    document.title = page.title;
    start();
    for (const [id, was] of open) if ($(id)) was ? unfold($(id)) : ($(id).open = false);
    for (const [id, value] of values) if ($(id)) $(id).value = value;
    document.querySelectorAll("form[data-filter]").forEach(filter);
    const back = focused && $(focused);
    if (back) (back.tagName === "DETAILS" ? back.querySelector("summary") : back).focus({ preventScroll: true });
    scrollTo(0, at);
  }

  function start() {
    document.querySelectorAll("details[open]").forEach(fill);
    charts();
  }
  document.addEventListener("toggle", (event) => event.target.open && fill(event.target), true);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-test]");
    if (button) show(button);
    const sort = event.target.closest("button[data-sort]");
    if (sort) order(sort);
  });
  document.addEventListener("input", (event) => event.target.form && event.target.form.dataset.filter && filter(event.target.form));
  document.addEventListener("submit", (event) => event.target.dataset.filter && event.preventDefault());
  addEventListener("hashchange", () => reach(location.hash.slice(1)));

  function order(button) {
    const head = button.closest("th"), place = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    for (const each of head.parentNode.children) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const told = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const less = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
    body.append(...[...body.rows].sort((a, b) => less(told(a), told(b)) * (down ? -1 : 1)));
  }

  start();
  // After the browser's own way of going there, which knows nothing of what is folded.
  if (location.hash) addEventListener("load", () => setTimeout(() => reach(location.hash.slice(1))));
  if (document.body.hasAttribute("data-live")) follow("");
})();
