// What moves on Relay's pages: live parts, copying, questions before what cannot be undone, times in
// the reader's own zone, filters. Every page works without it, but for what moves.
"use strict";

// --- times --------------------------------------------------------------------------------------

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function local(moment) {
  const two = (number) => String(number).padStart(2, "0");
  const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
  return `${day} ${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
}

function ago(seconds) {
  const away = Math.abs(seconds);
  if (away < 1) return "just now";
  const [unit, length] = UNITS.find(([, size]) => away >= size);
  const count = Math.floor(away / length);
  const words = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

function showTimes(inside) {
  for (const element of inside.querySelectorAll("time[data-local]")) {
    element.textContent = local(new Date(element.dateTime));
    element.title = `${element.dateTime.replace("T", " ").replace("Z", "")} UTC`;
  }
  showAgo(inside);
}

function showAgo(inside) {
  for (const element of inside.querySelectorAll("time[data-ago]")) {
    const moment = new Date(element.dateTime);
    const words = ago((Date.now() - moment) / 1000);
    if (element.textContent !== words) element.textContent = words;
    element.title = local(moment);
  }
}

// --- parts that move ----------------------------------------------------------------------------

const main = document.querySelector("main[data-live]");
let source = null;
let retry = 0;
let trouble = "";
const waiting = new Map(); // parts that came while somebody was using the one that is shown

function say(words) {
  const line = document.getElementById("line");
  if (!line || line.textContent === words) return;
  line.textContent = words;
  line.hidden = !words;
}

// Somebody types, has a question open, or marks text there: what comes is kept until they have done.
function isUsed(element) {
  const active = document.activeElement;
  if (element.contains(active) && active.matches("input, select, textarea")) return true;
  if (element.querySelector("details[data-confirm][open]")) return true;
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && element.contains(selection.anchorNode);
}

const FOCUSABLE = "a[href], button, input, select, textarea, summary";

function replace(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  if (isUsed(old)) {
    waiting.set(id, html);
    return;
  }
  waiting.delete(id);
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  const fresh = template.content.firstElementChild;
  if (!fresh) return;
  // A keyboard's place is kept, and what was opened stays open.
  const place = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  for (const open of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector(`#${CSS.escape(open.id)}`);
    if (same) same.open = true;
  }
  prepare(fresh);
  old.replaceWith(fresh);
  if (place >= 0) fresh.querySelectorAll(FOCUSABLE)[place]?.focus({ preventScroll: true });
}

function connect() {
  if (source || document.hidden) return;
  source = new EventSource(main.dataset.live);
  source.addEventListener("open", () => {
    retry = 0;
    say(trouble);
  });
  source.addEventListener("block", (event) => {
    const { id, html } = JSON.parse(event.data);
    replace(id, html);
  });
  source.addEventListener("trouble", (event) => {
    trouble = JSON.parse(event.data).words;
    say(trouble);
  });
  source.addEventListener("over", () => {
    disconnect();
    location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
  });
  source.addEventListener("error", () => {
    say("Connection lost, trying again.");
    // A browser tries again by itself, but not where it was answered with a refusal.
    if (source.readyState === EventSource.CLOSED) {
      disconnect();
      retry = Math.min(retry + 1, 4);
      setTimeout(connect, 1000 * 2 ** retry);
    }
  });
}

function disconnect() {
  source?.close();
  source = null;
}

if (main) {
  // A page in the background holds no connection: a browser has six for one host.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  setInterval(() => waiting.forEach((html, id) => replace(id, html)), 1000);
}

// --- copying ------------------------------------------------------------------------------------

async function copy(button) {
  const words = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    // No clipboard over plain HTTP: mark it, so that one key does it.
    const code = button.closest(".copyable").querySelector("code");
    document.getSelection().selectAllChildren(code);
    button.textContent = "Marked: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = words), 2500);
}

// --- questions ----------------------------------------------------------------------------------

// The question of a <details data-confirm> is asked in a dialog, which keeps the keyboard inside.
function ask(details) {
  const form = details.querySelector("form.ask");
  const dialog = document.createElement("dialog");
  const question = form.querySelector(".question");
  question.id ||= "question";
  dialog.setAttribute("aria-labelledby", question.id);
  details.open = true; // so that a live part is not replaced meanwhile
  dialog.append(form);
  document.body.append(dialog);
  form.querySelector("[data-close]").hidden = false;
  dialog.addEventListener("close", () => {
    details.append(form);
    details.open = false;
    dialog.remove();
    details.querySelector("summary").focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
  dialog.showModal();
  // Not on what cannot be undone.
  (form.querySelector("input:not([type=hidden]), select, textarea") || form.querySelector("[data-close]")).focus();
}

document.addEventListener("click", (event) => {
  const copied = event.target.closest("[data-copy]");
  if (copied) copy(copied);
  const summary = event.target.closest("details[data-confirm] > summary");
  if (summary && typeof HTMLDialogElement === "function") {
    event.preventDefault();
    ask(summary.parentElement);
  }
});

// --- forms --------------------------------------------------------------------------------------

// A form is sent once; what takes its time says so.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "1";
  const button = event.submitter;
  if (button && form.dataset.busy) {
    button.setAttribute("aria-disabled", "true");
    button.textContent = form.dataset.busy;
  }
});
// Back from the next page, it may be sent again.
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const form of document.forms) delete form.dataset.sent;
});

// --- filters ------------------------------------------------------------------------------------

function filter(box) {
  const input = box.querySelector("input");
  const table = document.getElementById(box.dataset.filter);
  if (!input || !table) return;
  const wanted = input.value.trim().toLocaleLowerCase();
  for (const row of table.tBodies[0].rows) {
    row.hidden = wanted !== "" && !row.textContent.toLocaleLowerCase().includes(wanted);
  }
}

// --- the whole ----------------------------------------------------------------------------------

function prepare(inside) {
  showTimes(inside);
  for (const button of inside.querySelectorAll("[data-copy]")) button.hidden = false;
  for (const box of inside.querySelectorAll("[data-filter]")) {
    box.hidden = false;
    box.addEventListener("input", () => filter(box));
  }
}

prepare(document);
document.querySelector("[data-focus]")?.focus();
document.querySelector(".sections [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
setInterval(() => showAgo(document), 5000);
if (main) connect();
