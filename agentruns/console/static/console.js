// What the pages cannot say in HTML: how the connection is, times in the reader's own, and where the focus goes.
"use strict";

(() => {
  let seen = null; // the id of the last event
  let source = null;

  // The extension makes a new source where the browser gives up; it must say what was seen, as the browser would.
  htmx.createEventSource = (address) => {
    const url = new URL(address, location.href);
    if (seen) url.searchParams.set("after", seen);
    source = new EventSource(url);
    return source;
  };

  // The connection ----------------------------------------------------------------------------------------------------

  const say = (state, text) => {
    const place = document.getElementById("connection");
    if (place && place.dataset.state !== state) {
      place.dataset.state = state;
      place.textContent = text;
    }
  };
  document.addEventListener("htmx:sseOpen", () => say("live", "Live"));
  document.addEventListener("htmx:sseError", () => say("lost", "Connection lost, trying again"));
  document.addEventListener("htmx:sendError", () => say("lost", "Not sent: the console cannot be reached"));
  document.addEventListener("htmx:sseMessage", (event) => {
    if (event.detail.lastEventId) seen = event.detail.lastEventId;
    tidy();
  });

  // Browsers open no more than six connections to one address: a tab that nobody looks at gives its own back.
  const HIDDEN = 15000;
  let timer = null;
  let turn = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => {
        source?.close();
        say("waiting", "Paused");
      }, HIDDEN);
    } else if (source?.readyState === EventSource.CLOSED) {
      const place = document.querySelector("[sse-connect]");
      const url = new URL(place.getAttribute("sse-connect"), location.href);
      url.searchParams.set("turn", ++turn); // another address, so that htmx looks at it anew
      place.setAttribute("sse-connect", url.pathname + url.search);
      htmx.process(place);
    }
  });

  // The focus ---------------------------------------------------------------------------------------------------------

  let held = null; // where the focus goes if what had it is no more
  const forms = (panel) => [...panel.querySelectorAll(".card")].map((card) => `${card.id} ${card.dataset.route}`).join();

  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const coming = fragment && fragment.querySelector && fragment.querySelector("#actions");
    if (target.id === "actions" && coming && forms(coming) === forms(target)) {
      event.detail.shouldSwap = false; // the same forms: what is written in them stays
      return;
    }
    const card = target.matches(".card") && fragment?.querySelector?.(".card");
    if (card && (card.dataset.route === target.dataset.route || target.querySelector(".htmx-request"))) {
      event.detail.shouldSwap = false; // what is said of the form that was sent stays, or comes with the answer to it
      return;
    }
    if (target.contains(document.activeElement) && target.closest("#actions")) held = "actions-title";
  });
  document.addEventListener("htmx:oobAfterSwap", () => {
    if (held && document.activeElement === document.body) document.getElementById(held)?.focus();
    held = null;
  });
  // What was said of a form that was sent, or its first mistake.
  document.addEventListener("htmx:afterSwap", (event) => {
    if (!event.detail.xhr) return;
    const card = document.getElementById(event.detail.target?.id) || event.detail.elt;
    (card?.querySelector("[data-focus]") || card?.querySelector("[aria-invalid] input, [aria-invalid]"))?.focus();
    tidy();
  });
  document.addEventListener("change", (event) => {
    // A choice opens its fields: whoever uses the keyboard finds them next.
    if (event.target.matches(".options input[type=radio]")) tidy();
  });

  // Times -------------------------------------------------------------------------------------------------------------

  const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

  const ago = (date) => {
    const seconds = (date - Date.now()) / 1000;
    for (const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
      if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
    }
    return seconds > -5 ? "just now" : relative.format(Math.trunc(seconds), "second");
  };
  const tidy = () => {
    for (const each of document.querySelectorAll("time[data-age], time[data-clock]")) {
      const date = new Date(each.dateTime);
      const text = "age" in each.dataset ? ago(date) : date.toDateString() === new Date().toDateString() ? clock.format(date) : day.format(date);
      if (each.textContent !== text) each.textContent = text;
      each.title = day.format(date);
    }
  };
  setInterval(tidy, 10000);
  tidy();
})();
