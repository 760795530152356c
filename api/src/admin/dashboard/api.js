// Requests to the server. Paths are relative, so that the page works behind a proxy under any prefix.

import { $ } from "./dom.js";

const KEY = "ticketing-api-key";
let login = null;

/** Asks the user for an API key, once for all requests that need it. */
function logIn(why) {
  login ??= new Promise((resolve) => {
    const dialog = $("login");
    const input = dialog.querySelector("input");
    $("login-text").textContent = why;
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEY, input.value.trim());
      input.value = "";
      login = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return login;
}

async function answer(path, options) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status !== 401 && response.status !== 403) return response;
  const problem = await response.json().catch(() => ({}));
  if (!["/problems/api-key-required", "/problems/api-key-invalid", "/problems/scope-required"].includes(problem.type)) {
    throw new Error(problem.detail ?? response.statusText);
  }
  // Another request may have asked for the key in the meantime.
  if (sessionStorage.getItem(KEY) === key) await logIn(problem.detail);
  return answer(path, options);
}

async function ask(path, options) {
  const response = await answer(path, options);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail ?? `${response.status} ${response.statusText}`);
  return { body, next: nextPage(response) };
}

/** Returns the URL of the next page of a list, from the header `Link`. */
function nextPage(response) {
  const link = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link") ?? "");
  return link && new URL(link[1], response.url).href;
}

export const get = async (path) => (await ask(path)).body;
export const page = (path) => ask(path);
export const post = async (path) => (await ask(path, { method: "POST" })).body;
