// Whenever something changes in the account, what is marked by data-live is fetched anew. Without this script the pages
// are the same, and do not move.
"use strict";
// The service may stand below a path of its host, as this script does.
const root = new URL("..", document.currentScript.src);
const bar = document.querySelector("#credits .credits");
let asked = false;
async function refresh() {
  if (asked) return;
  asked = true;
  for (const part of document.querySelectorAll("[data-live]")) {
    // What somebody types into stays as it is.
    if (part.contains(document.activeElement) && document.activeElement.matches("input, select")) continue;
    try {
      const answer = await fetch(part.dataset.live, { credentials: "same-origin" });
      if (!answer.ok) continue;
      const found = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = part.id === "credits" ? found.body : found.getElementById(part.id);
      if (fresh) part.replaceChildren(...fresh.childNodes);
    } catch { /* The next change brings it. */ }
  }
  asked = false;
}
if (bar && bar.dataset.user) {
  const stream = new EventSource(new URL("api/v1/events?user=" + encodeURIComponent(bar.dataset.user), root));
  let first = true;
  stream.addEventListener("account", () => { if (!first) refresh(); first = false; });
  // A session that has ended leads to where one signs in: what stands still must not look as if it moved.
  stream.addEventListener("error", async () => {
    if (stream.readyState !== EventSource.CLOSED) return;
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "manual" }).catch(() => null);
    if (answer && answer.type === "opaqueredirect") location.reload();
  });
}
