// Keeps a page up to date. When something happens in the account, or when nobody tells whether it does, the page is fetched again, and
// what differs is changed where it stands. Without this script the pages are the same, and stand still.
"use strict";

// Two fetches are at least so far apart; and ten times as far as the last one took, so that pages do not keep a busy service busy.
const APART_MS = 1_000;
// Where nothing was heard for so long, no stream comes through. Those that do say each 5 s that they are alive.
const SILENT_MS = 10_000;

const bar = document.getElementById("credits");
const main = document.getElementById("main");
const user = bar?.dataset.watch;

// The stream is shared by all pages of the browser (see stream.js).
let worker = null;
try {
  worker = user ? new SharedWorker(new URL("stream.js", document.currentScript.src)) : null;
} catch { /* This browser has none: the page asks. */ }

let isDue = false;
let isAsking = false;
let isPressed = false;
let heardAt = performance.now();
let freeAt = heardAt + APART_MS;

// Nobody can hit what moves under the pointer, nor mark a text that changes; and nobody looks at a hidden page.
const isPaused = () => document.hidden || isPressed || !getSelection().isCollapsed;

async function refresh() {
  const now = performance.now();
  if (!isDue || isAsking || isPaused() || now < freeAt) return;
  const isLive = main.hasAttribute("data-live");
  isDue = false;
  if (!isLive && !user) return;
  isAsking = true;
  let apart = SILENT_MS;
  try {
    const options = { redirect: "manual", signal: AbortSignal.timeout(3 * SILENT_MS) };
    const answer = await fetch(isLive ? location.href : bar.dataset.url, options);
    // The session has ended: what stands still must not look as if it moved.
    if (answer.type === "opaqueredirect") location.reload();
    const fresh = answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    if (fresh && !isPaused()) show(fresh, isLive);
    else isDue = true;
    if (fresh) apart = Math.max(APART_MS, 10 * (performance.now() - now));
  } catch {
    // What was not fetched is asked for again.
    isDue = true;
  }
  isAsking = false;
  heardAt = performance.now();
  freeAt = heardAt + apart;
}

function show(fresh, isLive) {
  // An amount that has lost a digit must not move what stands beside it.
  const label = bar.querySelector(".label");
  if (label) label.style.minWidth = `${label.offsetWidth}px`;
  patchChildren(bar, isLive ? fresh.getElementById("credits") : fresh.body);
  if (!isLive) return;
  const shown = fresh.getElementById("main");
  patchChildren(main, shown);
  main.toggleAttribute("data-live", shown.hasAttribute("data-live"));
}

// Makes a node as the other one is. What somebody fills in stays theirs.
function patch(node, fresh) {
  if (node.nodeName === "FORM") return;
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== fresh.data) node.data = fresh.data;
    return;
  }
  for (const { name } of [...node.attributes]) if (!fresh.hasAttribute(name) && name !== "style") node.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  patchChildren(node, fresh);
}

// Nodes that are still there are neither moved nor replaced. Rows are known by their ids, all else by what and where it is.
function patchChildren(parent, fresh) {
  let at = parent.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    let found = at;
    while (found && !isSame(found, wanted)) found = wanted.nodeType === Node.ELEMENT_NODE ? found.nextSibling : null;
    if (!found) {
      parent.insertBefore(wanted, at);
      continue;
    }
    while (at !== found) at = removed(at);
    patch(found, wanted);
    at = found.nextSibling;
  }
  while (at) at = removed(at);
}

const isSame = (node, other) => node.nodeName === other.nodeName && (node.id ?? "") === (other.id ?? "");

// Removes a node, but not one in which somebody is; gives the one behind it.
function removed(node) {
  const next = node.nextSibling;
  const isFilled = () => [...node.querySelectorAll("input, textarea")].some((field) => field.value !== field.defaultValue);
  const isUsed = node.nodeType === Node.ELEMENT_NODE && (node.contains(document.activeElement) || isFilled());
  if (!isUsed) node.remove();
  return next;
}

// A page that nobody sees asks for no stream.
function watch() {
  worker?.port.postMessage(document.hidden ? null : user);
  isDue ||= !document.hidden;
  refresh();
}

if (worker) {
  worker.port.onmessage = ({ data }) => {
    if (data !== "ended") heardAt = performance.now();
    isDue ||= data !== "alive";
    refresh();
  };
  addEventListener("pagehide", () => worker.port.postMessage(null));
  addEventListener("pageshow", watch);
}
document.addEventListener("visibilitychange", watch);
for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
  addEventListener(kind, (event) => { isPressed = kind !== "pointercancel" && event.buttons !== 0; }, { passive: true });
}
setInterval(() => {
  if (performance.now() - heardAt < SILENT_MS) refresh();
  else if (!document.hidden) watch();
}, APART_MS);
