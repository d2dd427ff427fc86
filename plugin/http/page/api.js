// Requests for the JSON behind the page, with the dashboard's token.

/** Address of the API server: this module lies one folder below. */
const BASE = new URL("..", import.meta.url);
/** Where the dashboard stores its token. */
const TOKEN = `auth.token:${BASE.href.replace(/\/+$/, "")}`;

/** An answer other than 200; its message is what the server said. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Thrown when there is no token, or the server refuses it; `signedOut` has fired by then. */
export class SignedOut extends ApiError {}

export const signedOut = new EventTarget();

export const dashboardUrl = (path) => new URL(path, BASE).href;

export const token = () => localStorage.getItem(TOKEN);

export const forgetToken = () => localStorage.removeItem(TOKEN);

/** Call *action* when the user signs in or out in another tab. */
export function onTokenChange(action) {
  addEventListener("storage", (event) => event.key === TOKEN && action());
}

/** Sign in to the dashboard, and so to this page. */
export async function signIn(username, password) {
  const response = await fetch(new URL("api/v1/login", BASE), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username, password }),
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.error || "The server refused to sign you in");
  localStorage.setItem(TOKEN, body.token);
}

/** Ask for *path* under /api/v1/metrics-log; parameters that are null, undefined or "" are left out. */
export async function ask(path, parameters = {}, signal = undefined) {
  const url = new URL(`api/v1/metrics-log/${path}`, BASE);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  if (!token()) return refused(403);
  let response;
  try {
    response = await fetch(url, { headers: { Authorization: `Bearer ${token()}` }, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server can't be reached.");
  }
  if (response.status === 401 || response.status === 403) return refused(response.status);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(response.status, body?.title || `The server answered ${response.status}`);
  return body;
}

function refused(status) {
  signedOut.dispatchEvent(new Event("refused"));
  throw new SignedOut(status, "You are signed out");
}
