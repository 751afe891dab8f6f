// The server's HTTP side: everything the page asks of it, with the key if one is needed.

const KEY = "vocal-node-key";
const LIMIT_MS = 10_000;

/** An answer that is not a success, or none at all (status 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {number | null} retryAfterS
   * @param {string | null} param the field that was wrong, where it was one
   */
  constructor(status, message, retryAfterS = null, param = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.param = param;
  }
}

/** Remember the key for as long as this tab lives. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** The key, where one is used; empty otherwise. */
export function accessToken() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Ask for a call. @returns {Promise<RTCIceServer[]>} the ICE servers to use */
export async function start() {
  const answer = await request("POST", "start", { enableDefaultIceServers: true, body: {} });
  return answer.iceConfig?.iceServers ?? [];
}

/**
 * Send the offer.
 * @param {string} sdp
 * @param {Record<string, unknown>} requestData who to speak with
 * @returns {Promise<{sdp: string, type: RTCSdpType, pc_id: string}>}
 */
export function offer(sdp, requestData) {
  return request("POST", "api/offer", { sdp, type: "offer", request_data: requestData });
}

/**
 * Carry a conversation on whose connection was lost.
 * @param {string} sdp
 * @param {string} lostId
 * @returns {Promise<{sdp: string, type: RTCSdpType, pc_id: string}>} 404 where it is known no more
 */
export function resume(sdp, lostId) {
  return request("POST", "api/offer", { sdp, type: "offer", pc_id: lostId, restart_pc: true });
}

/**
 * Add candidates found after the offer was sent.
 * @param {string} id
 * @param {RTCIceCandidate[]} candidates
 */
export function trickle(id, candidates) {
  return request("PATCH", "api/offer", {
    pc_id: id,
    candidates: candidates.map((c) => ({
      candidate: c.candidate, sdp_mid: c.sdpMid, sdp_mline_index: c.sdpMLineIndex,
    })),
  });
}

/** End the call on the server; also works while the page is being closed. @param {string} id */
export function hangUp(id) {
  return request("DELETE", `api/offer/${encodeURIComponent(id)}`);
}

/** Ask for nothing but whether this page, with this key, may ask. */
export function canTalk() {
  return request("GET", "agents");
}

/**
 * Return the address of a WebSocket, with the key in it: browsers let a page send that nowhere else.
 * @param {string} path relative to the page
 */
export function socketUrl(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  if (accessToken()) url.searchParams.set("access_token", accessToken());
  return url;
}

/**
 * Ask the server. Throws ApiError for whatever is no success.
 * @param {string} method
 * @param {string} path relative to the page, so that it also works behind a path prefix
 * @param {unknown} [body] FormData as it is, anything else as JSON
 * @param {number} [limitMs]
 * @returns {Promise<any>} the answer's JSON, or {}
 */
export async function request(method, path, body, limitMs = LIMIT_MS) {
  const response = await respond(method, path, body, limitMs);
  return response.json().catch(() => ({}));
}

/** Ask for a file, as `request` does. @param {string} path @returns {Promise<Blob>} */
export async function download(path) {
  const response = await respond("GET", path, undefined, LIMIT_MS);
  return response.blob();
}

/** @param {string} method @param {string} path @param {unknown} body @param {number} limitMs */
async function respond(method, path, body, limitMs) {
  /** @type {Record<string, string>} */
  const headers = accessToken() ? { Authorization: `Bearer ${accessToken()}` } : {};
  const isForm = body instanceof FormData;
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method, headers, keepalive: method === "DELETE", body: body === undefined || isForm ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(limitMs),
  }).catch((error) => {
    throw new ApiError(0, String(error));
  });
  if (!response.ok) throw await failure(response);
  return response;
}

/** Read what is no success. @param {Response} response @returns {Promise<ApiError>} */
export async function failure(response) {
  const body = await response.json().catch(() => null);
  const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const message = body?.error?.message ?? response.statusText;
  return new ApiError(response.status, String(message), Number.isNaN(retryAfter) ? null : retryAfter, body?.error?.param ?? null);
}
