// The streams of events of all pages of this browser: one for each account that a page shows, and never more than four, since a browser
// has six connections to a host over HTTP/1.1. A page says whose account it watches, or null once it watches none.
"use strict";

const STREAMS_MAX = 4;
// By account: its source, and the ports of the pages that watch it.
const streams = new Map();

function join(user, page) {
  if (!streams.has(user)) {
    if (streams.size >= STREAMS_MAX) return;
    streams.set(user, opened(user));
  }
  streams.get(user).pages.add(page);
}

function leave(page, but) {
  for (const [user, { source, pages }] of streams) {
    if (user !== but && pages.delete(page) && pages.size === 0) {
      source.close();
      streams.delete(user);
    }
  }
}

function opened(user) {
  // The service may stand below a path of its host, as this script does.
  const source = new EventSource(new URL("../api/v1/events?user=" + encodeURIComponent(user), location.href));
  const pages = new Set();
  const tell = (word) => pages.forEach((page) => page.postMessage(word));
  source.addEventListener("account", () => tell("changed"));
  source.addEventListener("alive", () => tell("alive"));
  source.addEventListener("error", () => {
    // A connection that breaks is made anew by the browser. One that is refused is not: the pages ask for it again after a while.
    if (source.readyState !== EventSource.CLOSED) return;
    streams.delete(user);
    tell("ended");
  });
  return { source, pages };
}

addEventListener("connect", ({ ports: [page] }) => {
  page.onmessage = ({ data: user }) => {
    leave(page, user);
    if (user !== null) join(user, page);
  };
});
